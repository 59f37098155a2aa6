"""Layers that multiply and add, with the usual letters: N images, C input channels, M filters,
H x W input, R x S filter, P x Q output."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from dlbench.errors import BadInput
from dlbench.facts.layers import LayerRow
from dlbench.models import BuiltModel, build_on_meta
from dlbench.worker.counting import flops

#: Two batches separate work per image from constant work; a third verifies that the work is linear.
_BATCH_SIZES = (2, 3, 5)
_PROFILE_ADVICE = "run `dlbench profile` to list its layers for one batch"
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def layers(name: str, auxiliary: bool = False) -> list[LayerRow]:
    """Return every layer of a network that multiplies and adds, in order of execution.

    Args:
        name: as `dlbench.models.build` takes it.
        auxiliary: include training-only layers, such as GoogLeNet's auxiliary heads.

    Raises:
        UnknownName, BadInput: as `dlbench.models.build`; or a layer has no single row, because its work differs
        between steps or is not linear in the batch.
    """
    with flops.suppress_warnings():
        return network_layers(build_on_meta(name), auxiliary)


def network_layers(model: BuiltModel, auxiliary: bool = False) -> list[LayerRow]:
    """Return the layers of a network on the meta device; see `layers`."""
    with _record_shapes(model.module) as shapes:
        smallest = flops.count_step_operations(model, True, _BATCH_SIZES[0])
    counts = [smallest, *(flops.count_step_operations(model, True, batch) for batch in _BATCH_SIZES[1:])]
    main = {o.module for o in flops.count_step_operations(model, False, _BATCH_SIZES[0]).operations}
    _require_same_operations(model.name, counts, flops.count_step_operations(model, True, _BATCH_SIZES[0], seed=1))
    alike: dict[str, list[tuple[flops.Operation, ...]]] = {}
    for operations in zip(*(c.operations for c in counts), strict=True):
        if not operations[0].recomputed:
            alike.setdefault(operations[0].module, []).append(operations)
    modules = dict(model.module.named_modules())
    return [
        LayerRow(
            path,
            **_layer_shape(modules[path], *shapes.get(path, ((), ()))),
            weights=_count_weights(path, modules, alike.keys()),
            **_layer_work(model.name, path, operations),
            uncounted=flops.uncounted_operation_names(of_smallest for of_smallest, *_ in operations),
        )
        for path, operations in alike.items()
        if auxiliary or path in main
    ]


@contextmanager
def _record_shapes(network: nn.Module) -> Iterator[dict[str, tuple[tuple[int, ...], tuple[int, ...]]]]:
    """Record input and output shapes of every module, by path, of passes run inside the context."""
    found: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def record_shape(path: str, module: nn.Module, args: Any, result: Any) -> None:
        if args and isinstance(args[0], torch.Tensor) and isinstance(result, torch.Tensor):
            found[path] = (tuple(args[0].shape), tuple(result.shape))

    with ExitStack() as hooks:
        for path, module in network.named_modules():
            hooks.enter_context(module.register_forward_hook(partial(record_shape, path)))
        yield found


def _layer_shape(module: nn.Module, x: tuple[int, ...], out: tuple[int, ...]) -> dict[str, Any]:
    if isinstance(module, _CONVOLUTIONS + _TRANSPOSED):
        kind = "conv_transposed" if isinstance(module, _TRANSPOSED) else "conv"
        (h, w), (r, s), (p, q) = map(_height_and_width, (x[2:], module.kernel_size, out[2:]))
        sides = {"H": h, "W": w, "R": r, "S": s, "P": p, "Q": q}
        shape: dict[str, int | None] = {"M": module.out_channels, "C": module.in_channels, **sides}
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


def _count_weights(path: str, modules: dict[str, nn.Module], rows: Collection[str]) -> int:
    """Return the weights of a module and of its submodules without own row (attention's output projection)."""
    others = tuple(f"{row}." for row in rows if row != path)
    below = (
        module
        for name, module in modules.items()
        if name == path or (name.startswith(f"{path}.") and not f"{name}.".startswith(others))
    )
    return sum(p.numel() for module in below for p in module.parameters(recurse=False) if p.dim() > 1)


def _height_and_width(sizes: tuple[int, ...]) -> tuple[int, int]:
    height, width = ((1,) * 2 + tuple(sizes))[-2:]
    return height, width


def _require_same_operations(name: str, counts: list[flops.CountedWork], once_more: flops.CountedWork) -> None:
    """Raise BadInput if the operations of several counts do not correspond one to one."""
    runs = [[(o.name, o.module) for o in c.operations] for c in (*counts, once_more)]
    if runs[0] != runs[-1] or counts[0].operations != once_more.operations:
        raise BadInput(
            f"{name} runs different layers in different steps, so the layers cannot be listed; {_PROFILE_ADVICE}"
        )
    for batch, run in zip(_BATCH_SIZES, runs, strict=False):
        if run != runs[0]:
            raise BadInput(
                f"{name} runs different layers for {batch} images than for {_BATCH_SIZES[0]}, so the layers cannot be "
                f"listed; {_PROFILE_ADVICE}"
            )


def _layer_work(name: str, path: str, operations: list[tuple[flops.Operation, ...]]) -> dict[str, Any]:
    """Compute MACs, FLOP and bytes of one layer from its operations at several batch sizes."""
    work: dict[str, Any] = {}
    for direction, backward in (("forward", False), ("backward", True)):
        ours = [o for o in operations if o[0].backward == backward]
        of_batches = [[o[number] for o in ours] for number in range(len(_BATCH_SIZES))]
        flop, flop_fixed = _linear_work(name, path, [2 * sum(o.macs or 0 for o in one) for one in of_batches])
        moved, moved_fixed = _linear_work(name, path, [sum(o.bytes for o in one) for one in of_batches])
        work |= {f"{direction}_flop": flop, f"{direction}_flop_fixed": flop_fixed}
        work |= {f"{direction}_bytes_per_image": moved, f"{direction}_bytes_fixed": moved_fixed}
    return {"macs": work["forward_flop"] // 2, **work}


def _linear_work(name: str, path: str, work: list[int]) -> tuple[int, int]:
    """The work per image, and the constant work. Raises BadInput if it is not linear in the batch."""
    few, more, many = _BATCH_SIZES
    slope = (work[1] - work[0]) // (more - few)
    fixed = work[0] - few * slope
    if work != [fixed + batch * slope for batch in _BATCH_SIZES]:
        raise BadInput(
            f"the work of {path or 'the network'} in {name} is not linear in the batch ({work[0]}, {work[1]}, "
            f"{work[2]} for {few}, {more}, {many} images); {_PROFILE_ADVICE}"
        )
    return slope, fixed
