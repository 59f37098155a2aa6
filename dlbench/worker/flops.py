"""Counts MACs and bytes of the operations that a network really runs, forward and backward, on the meta device.

PyTorch's own counter ignores `groups` in the weight gradient of a convolution; here every gradient is counted as what
it is. A MAC is one multiply and one add: FLOP = 2 x MAC. Pooling, normalisation and activation are left out, as in
every published count; they are 0.04 to 2.3 % of the operations, but most of the bytes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dlbench.models import BuiltModel, build_on_meta, training_loss

aten = torch.ops.aten


@dataclass(frozen=True)
class Operation:
    """One matrix product, convolution or attention that was run, or one gradient of it."""

    name: str  # as ATen calls it
    macs: int
    bytes: int  # each operand and result moved once
    backward: bool
    module: str  # the path of the module that ran it, or "" for the network itself
    shapes: tuple[tuple[int, ...], ...]  # of the tensor arguments


@dataclass(frozen=True)
class Counted:
    """The work of one network, per image unless said otherwise."""

    parameters: int  # of the network as it is built for training, with auxiliary heads, or for inference, without
    forward_macs: int
    backward_macs: int
    pytorch_forward_flop: int
    pytorch_backward_flop: int
    operations: tuple[Operation, ...] = field(repr=False, default=())  # of the whole batch

    @property
    def forward_flop(self) -> int:
        """FLOP of the forward pass of one image."""
        return 2 * self.forward_macs

    @property
    def backward_flop(self) -> int:
        """FLOP of the backward pass of one image; 0 in inference."""
        return 2 * self.backward_macs


def count(name: str, training: bool = True, batch_size: int = 2) -> Counted:
    """Count a network by its name, on the meta device: nothing is allocated.

    Args:
        name: as `dlbench.models.build` takes it.
        training: forward and backward, auxiliary heads included; else the forward pass of inference.
        batch_size: images in the counted batch; batch normalisation after pooling to 1x1 needs two.

    Raises:
        UnknownName, BadInput: as `build`.
    """
    with quietly():
        return count_model(build_on_meta(name, training), training, batch_size)


def count_model(model: BuiltModel, training: bool = True, batch_size: int = 2) -> Counted:
    """Count a network that lies on the meta device."""
    module = model.module.train(training)
    parameters = sum(p.numel() for p in module.parameters())
    with CountingMode(module) as mode, FlopCounterMode(display=False) as pytorch, quietly():
        loss = run_forward(model, training, batch_size)
        pytorch_forward = pytorch.get_total_flops()
        if loss is not None:
            mode.backward = True
            loss.backward()  # type: ignore[no-untyped-call]
    module.zero_grad(set_to_none=True)
    operations = tuple(mode.operations)
    return Counted(
        parameters=parameters,
        forward_macs=_per_image((o.macs for o in operations if not o.backward), batch_size),
        backward_macs=_per_image((o.macs for o in operations if o.backward), batch_size),
        pytorch_forward_flop=pytorch_forward // batch_size,
        pytorch_backward_flop=(pytorch.get_total_flops() - pytorch_forward) // batch_size,
        operations=operations,
    )


def run_forward(model: BuiltModel, training: bool, batch_size: int) -> Tensor | None:
    """The forward pass on meta tensors; the loss in training, None in inference."""
    x = torch.empty(batch_size, *model.input_shape, device="meta")
    if not training:
        with torch.no_grad():
            model.module(x)
        return None
    targets = torch.zeros(batch_size, dtype=torch.long, device="meta")
    return training_loss(model.module(x), targets)


@contextmanager
def quietly() -> Iterator[None]:
    """No warnings of somebody else's network about its own initialisation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _per_image(macs: Iterator[int], batch_size: int) -> int:
    # Work that does not depend on the batch, such as a product of parameters, is shared by its images.
    return round(Fraction(sum(macs), batch_size))


class CountingMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down every operation that multiplies and adds, with the module it belongs to.

    Args:
        module: the network; its submodules' paths name the operations.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self.backward = False
        self._module = module
        self._inside: list[str] = []
        self._owner_of_node: dict[int, str] = {}  # by autograd's number of the node
        self._next_node: int = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        for path, module in self._module.named_modules():
            self._handles.append(module.register_forward_pre_hook(self._entering(path)))
            self._handles.append(module.register_forward_hook(self._leaving, always_call=True))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()

    def _entering(self, path: str) -> Callable[..., None]:
        return lambda *_: self._inside.append(path)

    def _leaving(self, *_: Any) -> None:
        self._inside.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet not in _MACS:
            # What is made of counted parts, such as `linear`, is taken apart first.
            parts = func.decompose(*args, **kwargs) if func._can_decompose() else NotImplemented
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        if packet in _MACS:
            self._note(packet, args, kwargs, result)
        return result

    def _note(self, packet: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        tensors = [a for a in args if isinstance(a, Tensor)]
        outputs = [r for r in (result if isinstance(result, tuple | list) else (result,)) if isinstance(r, Tensor)]
        self.operations.append(
            Operation(
                name=packet.__name__,
                macs=_MACS[packet](*args, **kwargs, result=result),
                bytes=sum(t.numel() * t.element_size() for t in (*tensors, *outputs)),
                backward=self.backward,
                module=self._owner(),
                shapes=tuple(tuple(t.shape) for t in tensors),
            )
        )

    def _owner(self) -> str:
        """The module that runs the operation now, or whose gradient it is."""
        if self.backward:
            node = torch._C._current_autograd_node()
            return self._owner_of_node.get(node._sequence_nr(), "") if node else ""
        path = self._inside[-1] if self._inside else ""
        newest = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
        if newest > self._next_node:
            # Autograd has just made this operation's node, and numbers them upwards; of frozen weights it makes none.
            self._owner_of_node[newest - 1] = path
            self._next_node = newest
        return path


def _product(left: Tensor, right: Tensor, *, result: Tensor, **_: Any) -> int:
    return left.shape[-1] * result.numel()


def _product_added(_: Tensor, left: Tensor, right: Tensor, *, result: Tensor, **__: Any) -> int:
    return left.shape[-1] * result.numel()


def convolution_macs(x: Sequence[int], weight: Sequence[int], out: Sequence[int], transposed: bool) -> int:
    """MACs of a convolution: each weight is used once per output position, or, transposed, once per input position.

    Args:
        x: shape (N, C, *spatial).
        weight: shape (M, C/groups, *kernel), or transposed (C, M/groups, *kernel).
        out: shape (N, M, *spatial).
        transposed: whether it is one.
    """
    positions = x if transposed else out
    return math.prod(weight) * positions[0] * math.prod(positions[2:])


def _convolution(x: Tensor, weight: Tensor, *args: Any, result: Tensor, **_: Any) -> int:
    transposed = args[4]  # after bias, stride, padding, dilation
    return convolution_macs(x.shape, weight.shape, result.shape, transposed)


def _convolution_backward(gradient: Tensor, x: Tensor, weight: Tensor, *args: Any, result: Any, **_: Any) -> int:
    transposed, output_mask = args[4], args[7]  # after bias sizes, stride, padding, dilation
    # The gradient to the input and that to the weights use each weight as often as the forward pass did.
    num_gradients: int = output_mask[0] + output_mask[1]
    return num_gradients * convolution_macs(x.shape, weight.shape, gradient.shape, transposed)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    batch = math.prod(query.shape[:-2])
    pairs = batch * query.shape[-2] * key.shape[-2]
    return pairs * (query.shape[-1] + value.shape[-1])


def _attention_backward(_: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any) -> int:
    # Two gradients for each of the two products; recomputing the scores is an implementation's choice, not counted.
    return 2 * _attention(query, key, value)


_MACS: dict[Any, Callable[..., int]] = {
    aten.dot: _product,
    aten.mv: _product,
    aten.addmv: _product_added,
    aten.mm: _product,
    aten.bmm: _product,
    aten.addmm: _product_added,
    aten.baddbmm: _product_added,
    aten.convolution: _convolution,
    aten._convolution: _convolution,
    aten.convolution_backward: _convolution_backward,
    aten._scaled_dot_product_flash_attention: _attention,
    aten._scaled_dot_product_efficient_attention: _attention,
    aten._scaled_dot_product_cudnn_attention: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_fused_attention_overrideable: _attention,
    aten._scaled_dot_product_flash_attention_backward: _attention_backward,
    aten._scaled_dot_product_efficient_attention_backward: _attention_backward,
    aten._scaled_dot_product_cudnn_attention_backward: _attention_backward,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten._scaled_dot_product_fused_attention_overrideable_backward: _attention_backward,
}
