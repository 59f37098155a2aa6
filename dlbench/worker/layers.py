"""The layers that multiply and add, one by one, with the letters of the field: N images, C input channels, M filters,
H x W input, R x S filter, P x Q output."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from dlbench.models import BuiltModel, build
from dlbench.worker.flops import Counted, Operation, count_model, quietly


@dataclass(frozen=True)
class LayerRow:
    """One convolution or fully connected layer (or other module with matrix products); work is per image."""

    name: str
    kind: str  # conv | conv_transposed | fc | other
    M: int | None
    C: int | None
    H: int | None
    W: int | None
    R: int | None
    S: int | None
    P: int | None
    Q: int | None
    groups: int | None
    stride: tuple[int, ...] | None
    padding: tuple[int, ...] | str | None
    weights: int  # without biases
    macs: int
    forward_flop: int
    backward_flop: int  # gradients to the weights and, where one is needed, to the input
    forward_bytes: int  # input, weights and output each moved once, fp32
    backward_bytes: int
    calls: int  # how often one pass runs it


def layers(name: str, training: bool = False) -> list[LayerRow]:
    """Every layer of a network that multiplies and adds, in the order in which they run.

    The backward columns are those of a training pass in any case; without `training`, layers that only training runs
    (auxiliary heads) are left out.

    Raises:
        UnknownName, BadInput: as `dlbench.models.build`.
    """
    with quietly(), torch.device("meta"):
        return layers_of(build(name), training)


def layers_of(model: BuiltModel, training: bool = False, batch_size: int = 2) -> list[LayerRow]:
    """As `layers`, of a network on the meta device."""
    shapes = _Shapes(model.module)
    counted = count_model(model, training=True, batch_size=batch_size)
    shapes.remove()
    main = {o.module for o in count_model(model, training=False, batch_size=batch_size).operations}
    modules = dict(model.module.named_modules())
    owners = _owners(counted, modules)
    return [
        _row(path, modules[path], operations, shapes, batch_size)
        for path, operations in owners.items()
        if training or path in main
    ]


def _owners(counted: Counted, modules: dict[str, nn.Module]) -> dict[str, list[Operation]]:
    """Operations by the module that ran them. Backward ones run outside of modules; autograd's order is the reverse
    of the forward one, and `backward_of` tells whose gradient each of them is."""
    owners: dict[str, list[Operation]] = defaultdict(list)
    for operation in counted.operations:
        owners[operation.module].append(operation)
    return owners


class _Shapes:
    """Remembers the (C, H, W) that goes into and comes out of every module."""

    def __init__(self, module: nn.Module) -> None:
        self.inputs: dict[str, tuple[int, ...]] = {}
        self.outputs: dict[str, tuple[int, ...]] = {}
        self._handles = [m.register_forward_hook(self._hook(path)) for path, m in module.named_modules()]

    def _hook(self, path: str) -> Any:
        def remember(module: nn.Module, args: Any, result: Any) -> None:
            if args and isinstance(args[0], torch.Tensor) and isinstance(result, torch.Tensor):
                self.inputs[path], self.outputs[path] = tuple(args[0].shape), tuple(result.shape)

        return remember

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def _row(path: str, module: nn.Module, operations: list[Operation], shapes: _Shapes, batch_size: int) -> LayerRow:
    raise NotImplementedError
