"""Compute precision: set PyTorch's switches for convolutions and matrix products together, and read them back.

PyTorch has two of them, and by default they differ: convolutions may use TF32, matrix products may not. Here fp32 means
IEEE single precision in both and tf32 means TF32 in both; the values of the switches are stored in the record.
"""

import contextlib
from typing import Any

import torch

from dlbench.errors import BadInput

#: Untyped, since PyTorch's annotations lag behind its switches.
_BACKENDS: Any = torch.backends
AUTOCAST_DTYPES = {"amp_bf16": torch.bfloat16, "amp_fp16": torch.float16}
#: Type of weights, inputs and the whole step; fp32 for all other precisions. fp16 has no loss scaling then: PyTorch's
#: needs gradients in fp32.
WEIGHT_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
#: Type of products other than fp32.
LOW_DTYPES = AUTOCAST_DTYPES | WEIGHT_DTYPES


def set_precision(precision: str, device_kind: str) -> None:
    """Set both switches for `precision`; under autocast, operations left in single precision are IEEE.

    PyTorch has an old and a new name for each switch, and raises if only one was set and the other is read. Both are
    set to the same value, so that models and compilers can read either.

    Raises:
        BadInput: the device has no TF32.
    """
    if precision == "tf32" and not _has_tf32(device_kind):
        names = {"cpu": "the CPU", "cuda": torch.cuda.get_device_name() if device_kind == "cuda" else ""}
        found = names.get(device_kind, f"this {device_kind.upper()} device")
        raise BadInput(f"precision 'tf32' was requested, but {found} has no TF32; use fp32, amp_bf16 or amp_fp16.")
    tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    _BACKENDS.cudnn.allow_tf32 = tf32
    # Inductor's templates read the setting of cuDNN as a whole.
    for backend in (_BACKENDS.cudnn, _BACKENDS.cudnn.conv, _BACKENDS.cudnn.rnn):
        backend.fp32_precision = "tf32" if tf32 else "ieee"
    for backend in (_BACKENDS.mkldnn.conv, _BACKENDS.mkldnn.matmul):
        backend.fp32_precision = "ieee"


def active_precision_switches() -> dict[str, str]:
    """Read the current switches, with PyTorch's names of their values."""
    return {
        "convolution": str(_BACKENDS.cudnn.conv.fp32_precision),
        "compiled_convolution": str(_BACKENDS.cudnn.fp32_precision),
        "matrix_product": str(_BACKENDS.cuda.matmul.fp32_precision),
        "cpu_convolution": str(_BACKENDS.mkldnn.conv.fp32_precision),
        "cpu_matrix_product": str(_BACKENDS.mkldnn.matmul.fp32_precision),
    }


def autocast(precision: str, device_kind: str) -> contextlib.AbstractContextManager[object]:
    """Return the context of forward pass and loss: autocast in mixed precision, else no-op."""
    dtype = AUTOCAST_DTYPES.get(precision)
    return contextlib.nullcontext() if dtype is None else torch.autocast(device_kind, dtype=dtype)


def supported_precisions(device: torch.device) -> list[str]:
    """The precisions of the device, without bf16 that a GPU emulates. A CPU has all, possibly emulated."""
    if device.type != "cuda":
        return ["fp32", "amp_bf16", "amp_fp16"]
    found = ["fp32", "tf32"] if _has_tf32(device.type) else ["fp32"]
    amd = torch.version.hip is not None
    if amd or torch.cuda.get_device_capability(device)[0] >= 8:
        found.append("amp_bf16")
    return [*found, "amp_fp16"]


def _has_tf32(device_kind: str) -> bool:
    """Whether the GPU has TF32: from compute capability 8.0 (NVIDIA Ampere); PyTorch has no switch for AMD."""
    if device_kind != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability()[0] >= 8
