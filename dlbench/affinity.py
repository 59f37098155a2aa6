"""Cores and threads that this process may use, read before any library restricts them."""

import os
import sys
from collections.abc import Mapping

# With OMP_PROC_BIND set, importing torch binds the main thread to one core, and the affinity then contains only that
# core. `dlbench.worker` imports this module first, so this line runs before torch.
_CORES_AT_START = frozenset(os.sched_getaffinity(0) if sys.platform == "linux" else range(os.cpu_count() or 1))


def allowed_cores() -> frozenset[int]:
    """Return the logical cores that this process was allowed to use at its start."""
    return _CORES_AT_START


def is_thread_count_from_torchrun(environ: Mapping[str, str]) -> bool:
    """Whether OMP_NUM_THREADS=1 comes from torchrun, which sets it for several ranks if it is unset."""
    return environ.get("OMP_NUM_THREADS") == "1" and "TORCHELASTIC_RUN_ID" in environ
