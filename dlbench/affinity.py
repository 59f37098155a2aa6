"""The cores and threads that this process may use, read before anything can narrow them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

# With OMP_PROC_BIND set, importing torch binds the main thread to one core, and every later look at the affinity sees
# that core alone. `dlbench.worker` imports this module first, so this line runs before torch.
_ALLOWED = frozenset(os.sched_getaffinity(0) if sys.platform == "linux" else range(os.cpu_count() or 1))


def allowed_cores() -> frozenset[int]:
    """Numbers of the logical cores that this process was allowed to use when it started."""
    return _ALLOWED


def set_by_torchrun(environ: Mapping[str, str]) -> bool:
    """Whether OMP_NUM_THREADS is the 1 that torchrun sets for several ranks where nobody has set it."""
    return environ.get("OMP_NUM_THREADS") == "1" and "TORCHELASTIC_RUN_ID" in environ
