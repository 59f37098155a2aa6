"""What the hardware computes in: the switches for convolutions and for matrix products, set together and read back.

PyTorch has two of them, and by default they differ: convolutions may use TF32, matrix products may not. Here fp32 means
IEEE single precision in both and tf32 means TF32 in both; what the switches say afterwards goes into the record.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from dlbench.errors import BadInput

#: Untyped, since PyTorch's annotations lag behind its switches.
_BACKENDS: Any = torch.backends
AUTOCAST_DTYPES = {"amp_bf16": torch.bfloat16, "amp_fp16": torch.float16}


def set_precision(precision: str, device_kind: str) -> None:
    """Sets both switches for `precision`; under autocast the rest, which stays in single precision, is IEEE.

    The switches have an old and a new name in PyTorch, and reading one after setting only the other raises there. Both
    are set, to the same, so that models and compilers may read whichever they know.

    Raises:
        BadInput: the device has no TF32.
    """
    if precision == "tf32" and not _has_tf32(device_kind):
        found = "the CPU" if device_kind == "cpu" else torch.cuda.get_device_name()
        raise BadInput(f"precision 'tf32' asked for, but {found} has no TF32; choose fp32, amp_bf16 or amp_fp16.")
    tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    _BACKENDS.cudnn.allow_tf32 = tf32
    # Inductor's templates ask the whole of cuDNN.
    for backend in (_BACKENDS.cudnn, _BACKENDS.cudnn.conv, _BACKENDS.cudnn.rnn):
        backend.fp32_precision = "tf32" if tf32 else "ieee"
    for backend in (_BACKENDS.mkldnn.conv, _BACKENDS.mkldnn.matmul):
        backend.fp32_precision = "ieee"


def read_precision() -> dict[str, str]:
    """The switches as they are now, as PyTorch names their values."""
    return {
        "convolution": str(_BACKENDS.cudnn.conv.fp32_precision),
        "compiled_convolution": str(_BACKENDS.cudnn.fp32_precision),
        "matrix_product": str(_BACKENDS.cuda.matmul.fp32_precision),
        "cpu_convolution": str(_BACKENDS.mkldnn.conv.fp32_precision),
        "cpu_matrix_product": str(_BACKENDS.mkldnn.matmul.fp32_precision),
    }


def autocast(precision: str, device_kind: str) -> contextlib.AbstractContextManager[object]:
    """The context of the forward pass and the loss: autocast in mixed precision, else nothing."""
    dtype = AUTOCAST_DTYPES.get(precision)
    return contextlib.nullcontext() if dtype is None else torch.autocast(device_kind, dtype=dtype)


def precisions(device: torch.device) -> list[str]:
    """The precisions that the device computes in; bf16 that a GPU emulates is none. A CPU has all, in whatever way."""
    if device.type == "cpu":
        return ["fp32", "amp_bf16", "amp_fp16"]
    found = ["fp32", "tf32"] if _has_tf32(device.type) else ["fp32"]
    amd = torch.version.hip is not None
    if amd or torch.cuda.get_device_capability(device)[0] >= 8:
        found.append("amp_bf16")
    return [*found, "amp_fp16"]


def _has_tf32(device_kind: str) -> bool:
    """TF32 came with compute capability 8.0 (NVIDIA Ampere); AMD's has no such switch in PyTorch."""
    if device_kind != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability()[0] >= 8
