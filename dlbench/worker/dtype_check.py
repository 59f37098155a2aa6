"""Check of the actual precision: types of parameters, and of matrix products and convolutions.

The precision of a case defines both. Process settings alone do not guarantee it: a network may have half precision
weights, cast in its forward pass, enable autocast itself, or switch TF32 within a step.
"""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dlbench import units
from dlbench.errors import InvalidMeasurement
from dlbench.suites.case import Case
from dlbench.tasks.outputs import find_nested_tensors
from dlbench.worker.precision import LOW_DTYPES, WEIGHT_DTYPES
from dlbench.worker.settings import ProcessSettings

#: Type of parameters, for all precisions of a case.
_SINGLE_PRECISION = (torch.float32, torch.complex64)
#: Other usual types of buffers, such as indices and counters.
_INTEGER_TYPES = (torch.bool, torch.int16, torch.int32, torch.int64)
#: Operations that multiply and add.
_PRODUCT_NAME = re.compile(
    r"(^|_)(mm|bmm|addmm|baddbmm|addbmm|mv|addmv|dot|vdot|linear|matmul|conv\w*|attention\w*|rnn\w*|lstm\w*|gru\w*"
    r"|bilinear|trilinear|cdist\w*)(_|$)"
)
#: Maximum number of names in a message.
_MAX_NAMES = 3


def check_parameters(module: nn.Module, case: Case) -> tuple[str, ...]:
    """Return warnings about parameters and buffers that are not in single precision.

    Raises InvalidMeasurement if floating-point parameters are of another type.
    """
    cast = WEIGHT_DTYPES.get(case.precision)
    usual = (*_SINGLE_PRECISION, *([cast] if cast else []))
    other = {name: p.dtype for name, p in module.named_parameters() if p.dtype != (cast or torch.float32)}
    wrong = {name: dtype for name, dtype in other.items() if _is_float(dtype) and dtype not in usual}
    if wrong:
        raise InvalidMeasurement(
            f"precision '{case.precision}' requires float32 parameters, but {_names_and_dtypes(wrong)}; use a float32 "
            f"network, because the case sets the compute precision"
        )
    buffers = {name: b.dtype for name, b in module.named_buffers() if b.dtype not in (*usual, *_INTEGER_TYPES)}
    warnings = []
    if other:
        warnings.append(f"parameter_dtype: {_names_and_dtypes(other)} instead of {_dtype_name(cast or torch.float32)}.")
    if buffers:
        warnings.append(f"buffer_dtype: {_names_and_dtypes(buffers)}.")
    return tuple(warnings)


def check_step_dtypes(step: Callable[[], object], case: Case, settings: ProcessSettings) -> None:
    """Run one step and check each operation in it.

    Raises:
        InvalidMeasurement: a product or convolution used a type outside the precision of the case; none used its type;
        or a setting changed within the step.
    """
    watch = _ProductDtypeRecorder(settings)
    with watch:
        step()
    if watch.changed:
        raise InvalidMeasurement(
            f"the network changes settings within a step: {'; '.join(watch.changed)}; remove these changes "
            f"from the network's code"
        )
    low = LOW_DTYPES.get(case.precision)
    allowed = {*_SINGLE_PRECISION, low}
    wrong = {(name, dtype): count for (name, dtype), count in watch.products.items() if dtype not in allowed}
    if wrong:
        most = sorted(wrong.items(), key=lambda item: -item[1])[:_MAX_NAMES]
        calls = ", ".join(f"{name} in {_dtype_name(dtype)} ({count} a step)" for (name, dtype), count in most)
        raise InvalidMeasurement(
            f"precision '{case.precision}' was requested, but the network computes {calls}; remove casts from the "
            f"network"
        )
    if low is not None and watch.products and not any(dtype == low for _, dtype in watch.products):
        raise InvalidMeasurement(
            f"precision '{case.precision}' was requested, but no product or convolution used {_dtype_name(low)}; check "
            f"whether the network disables autocast"
        )


class _ProductDtypeRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that counts products by name and type, and reads the precision settings at each."""

    def __init__(self, settings: ProcessSettings) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.settings = settings
        self.products: Counter[tuple[str, object]] = Counter()
        self.changed: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, _, name = func._schema.name.partition("::")
        if namespace == "quantized":
            self.products[name, "quantized integers"] += 1
        elif _PRODUCT_NAME.search(name):
            dtypes = {tensor.dtype for tensor in find_nested_tensors((args, kwargs or {}))}
            self.products.update((name, dtype) for dtype in dtypes if _is_arithmetic_dtype(dtype))
            if not self.changed:
                self.changed = self.settings.describe_differences(self.settings.read_fixed_settings())
        return func(*args, **(kwargs or {}))


def _is_arithmetic_dtype(dtype: torch.dtype) -> bool:
    """Whether the type is used in products: not an index, mask or random generator state."""
    return _is_float(dtype) or dtype in (torch.int8, torch.qint8, torch.quint8, torch.qint32)


def _is_float(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


def _names_and_dtypes(dtypes: dict[str, torch.dtype]) -> str:
    """Format names and type: "layer.weight, layer.bias and 12 more are float16"."""
    groups: dict[torch.dtype, list[str]] = {}
    for name, dtype in dtypes.items():
        groups.setdefault(dtype, []).append(name)
    return "; ".join(
        f"{units.list_text(names, _MAX_NAMES)} {'is' if len(names) == 1 else 'are'} {_dtype_name(dtype)}"
        for dtype, names in groups.items()
    )


def _dtype_name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")
