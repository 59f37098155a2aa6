"""Data-parallel training: the network in DistributedDataParallel, with the settings of the case."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

from dlbench.suites.case import Case

_COMM_HOOKS: dict[str, Any] = {"fp16": default_hooks.fp16_compress_hook, "bf16": default_hooks.bf16_compress_hook}


def wrap_in_ddp(module: nn.Module, case: Case, device: torch.device) -> nn.Module:
    """Wrap the module in DistributedDataParallel with the settings of the case."""
    wrapped = DistributedDataParallel(
        module,
        device_ids=[device.index] if device.type == "cuda" else None,
        bucket_cap_mb=case.bucket_cap_mb,
        gradient_as_bucket_view=case.gradient_as_bucket_view == "on",
        static_graph=case.static_graph == "on",
    )
    if case.comm_hook != "none":
        wrapped.register_comm_hook(None, _COMM_HOOKS[case.comm_hook])
    return wrapped
