"""The peak memory of a case before it runs: its whole step, followed on the meta device, where nothing is allocated.

What is followed is the step of `workload.py` itself, with the case's batch, optimizer, layout and autocast: every
tensor counts from the operation that makes it until it is freed, as with the framework's allocator. Not in it are what
libraries take for themselves (cuDNN's and oneDNN's workspace, the CUDA context) and the allocator's rounding and
fragmentation; and of a compiled network the eager one is followed, which keeps more.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlbench.errors import BadInput, DlbenchError
from dlbench.models import build_on_meta
from dlbench.spec.case import Case
from dlbench.worker.footprint import LiveBytes
from dlbench.worker.workload import OPTIMIZERS, Workload

#: Steps until the optimizer has its state: it makes it in the first.
_NUM_STEPS = 2


@dataclass(frozen=True)
class Prediction:
    """Peak of the framework's allocator in one step, and what is alive at that moment [bytes]; the parts sum to it."""

    peak_bytes: int
    parameter_bytes: int  # weights and buffers
    gradient_bytes: int
    optimizer_state_bytes: int
    batch_bytes: int  # images and labels
    activation_bytes: int  # everything else: saved for backward, on its way through a layer, or a temporary
