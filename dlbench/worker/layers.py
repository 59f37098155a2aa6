"""The layers that multiply and add, one by one, with the letters of the field: N images, C input channels, M filters,
H x W input, R x S filter, P x Q output."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dlbench.errors import BadInput
from dlbench.models import BuiltModel, build_on_meta
from dlbench.worker.flops import Operation, count_model, quietly

#: Two batches tell what part of the bytes grows with the images and what part is there once.
_BATCHES = (2, 3)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class LayerRow:
    """One layer. MAC and FLOP are per image; the bytes of a batch of N are N times `..._per_image` plus `..._fixed`.

    Bytes count every operand and result of the layer's own operations as moved once, in fp32: input, weights and
    output forward; gradients, input and weights backward. Caches may save some, libraries may move more.
    """

    name: str
    kind: str  # conv | conv_transposed | fc | other (such as attention, whose products have no layer of their own)
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
    forward_bytes_per_image: int
    forward_bytes_fixed: int
    backward_bytes_per_image: int
    backward_bytes_fixed: int


def layers(name: str, auxiliary: bool = False) -> list[LayerRow]:
    """Every layer of a network that multiplies and adds, in the order in which they run.

    Args:
        name: as `dlbench.models.build` takes it.
        auxiliary: with the layers that run in training alone, such as GoogLeNet's auxiliary heads.

    Raises:
        UnknownName, BadInput: as `dlbench.models.build`.
    """
    with quietly():
        return layers_of(build_on_meta(name), auxiliary)


def layers_of(model: BuiltModel, auxiliary: bool = False) -> list[LayerRow]:
    """As `layers`, of a network on the meta device."""
    small, large = _BATCHES
    with _shapes(model.module) as shapes:
        fewer = count_model(model, training=True, batch_size=small).operations
    more = count_model(model, training=True, batch_size=large).operations
    main = {o.module for o in count_model(model, training=False, batch_size=small).operations}
    if len(fewer) != len(more):
        raise BadInput(f"the network runs other layers for {large} images than for {small}: they have no one row each")
    pairs: dict[str, list[tuple[Operation, Operation]]] = {}
    for pair in zip(fewer, more, strict=True):
        pairs.setdefault(pair[0].module, []).append(pair)
    modules = dict(model.module.named_modules())
    return [
        LayerRow(
            path,
            **_letters(modules[path], *shapes.get(path, ((), ()))),
            weights=_weights(path, modules, pairs.keys()),
            **_work(operations),
        )
        for path, operations in pairs.items()
        if auxiliary or path in main
    ]


@contextmanager
def _shapes(network: nn.Module) -> Iterator[dict[str, tuple[tuple[int, ...], tuple[int, ...]]]]:
    """The shapes that go into and come out of every module, by its path, of the passes run inside."""
    found: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def hook(path: str) -> Any:
        def remember(module: nn.Module, args: Any, result: Any) -> None:
            if args and isinstance(args[0], torch.Tensor) and isinstance(result, torch.Tensor):
                found[path] = (tuple(args[0].shape), tuple(result.shape))

        return remember

    handles = [module.register_forward_hook(hook(path)) for path, module in network.named_modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _letters(module: nn.Module, x: tuple[int, ...], out: tuple[int, ...]) -> dict[str, Any]:
    """Kind and shape parameters of one module."""
    if isinstance(module, _CONVOLUTIONS + _TRANSPOSED):
        kind = "conv_transposed" if isinstance(module, _TRANSPOSED) else "conv"
        (h, w), (r, s), (p, q) = _last_two(x[2:]), _last_two(module.kernel_size), _last_two(out[2:])
        shape: dict[str, int | None] = {
            "M": module.out_channels,
            "C": module.in_channels,
            "H": h,
            "W": w,
            "R": r,
            "S": s,
            "P": p,
            "Q": q,
        }
        padding = module.padding if isinstance(module.padding, str) else tuple(module.padding)
        more: dict[str, Any] = {"groups": module.groups, "stride": tuple(module.stride), "padding": padding}
    elif isinstance(module, nn.Linear):
        kind = "fc"
        # On a sequence of tokens, a fully connected layer is a 1x1 convolution along it.
        tokens = x[1] if len(x) == 3 else 1
        h, w = x[1:3] if len(x) == 4 else (1, tokens)
        sides = {"H": h, "W": w, "R": 1, "S": 1, "P": h, "Q": w}
        shape = {"M": module.out_features, "C": module.in_features, **sides}
        more = {"groups": 1, "stride": (1, 1), "padding": (0, 0)}
    else:
        kind, shape = "other", dict.fromkeys("MCHWRSPQ")
        more = {"groups": None, "stride": None, "padding": None}
    return {"kind": kind, **shape, **more}


def _weights(path: str, modules: dict[str, nn.Module], rows: Collection[str]) -> int:
    """Weights of a module and of those below it that have no row of their own (attention's output projection)."""
    others = tuple(f"{row}." for row in rows if row != path)
    below = (
        module
        for name, module in modules.items()
        if name == path or (name.startswith(f"{path}.") and not f"{name}.".startswith(others))
    )
    return sum(p.numel() for module in below for p in module.parameters(recurse=False) if p.dim() > 1)


def _last_two(sizes: tuple[int, ...]) -> tuple[int, int]:
    height, width = ((1,) * 2 + tuple(sizes))[-2:]
    return height, width


def _work(operations: list[tuple[Operation, Operation]]) -> dict[str, Any]:
    """MACs, FLOP and bytes of one layer from its operations at two batch sizes."""
    small, large = _BATCHES
    work: dict[str, Any] = {}
    for direction, backward in (("forward", False), ("backward", True)):
        pairs = [(few, many) for few, many in operations if few.backward == backward]
        per_image = sum(many.bytes - few.bytes for few, many in pairs) // (large - small)
        work[f"{direction}_flop"] = 2 * sum(few.macs for few, _ in pairs) // small
        work[f"{direction}_bytes_per_image"] = per_image
        work[f"{direction}_bytes_fixed"] = sum(few.bytes for few, _ in pairs) - small * per_image
    return {"macs": work["forward_flop"] // 2, **work}
