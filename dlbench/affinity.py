"""The cores that this process may use, read before anything can narrow them."""

from __future__ import annotations

import os
import sys

# With OMP_PROC_BIND set, importing torch binds the main thread to one core, and every later look at the affinity sees
# that core alone. `dlbench.worker` imports this module first, so this line runs before torch.
_ALLOWED = frozenset(os.sched_getaffinity(0) if sys.platform == "linux" else range(os.cpu_count() or 1))


def allowed_cores() -> frozenset[int]:
    """Numbers of the logical cores that this process was allowed to use when it started."""
    return _ALLOWED
