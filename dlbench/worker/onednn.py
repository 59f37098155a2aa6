"""oneDNN's own log of the kernels that ran in a step on the CPU."""

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dlbench.errors import BadInput

_MKLDNN: Any = torch.backends.mkldnn
LOG_NAME = "onednn.txt"


def record_verbose_log(step: Callable[[], object], device: torch.device, folder: Path) -> None:
    """Run one step; write oneDNN's verbose log to `folder`. Raises BadInput on other devices, or without oneDNN."""
    if device.type != "cpu" or not _MKLDNN.is_available():
        raise BadInput("--kernels lists the kernels of oneDNN, which run on a CPU only; remove the option")
    # oneDNN writes to the C library's stdout.
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with (folder / LOG_NAME).open("wb") as file:
            os.dup2(file.fileno(), 1)
            with _MKLDNN.verbose(_MKLDNN.VERBOSE_ON):
                step()
            ctypes.CDLL(None).fflush(None)
    finally:
        os.dup2(kept, 1)
        os.close(kept)
