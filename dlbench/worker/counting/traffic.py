"""Count of FLOP and moved elements per module, for all operations of a network, on the meta device.

`flops` counts only multiply-add operations, as published FLOP counts do. Normalisation, activation and pooling are
bound by bytes, so all operations are counted here: every operand and result of an ATen operation moves once. Views
move nothing, what is broadcast moves once. An operation belongs to the innermost module that runs it (a residual
addition to its block), its gradient to the same; so do the times of `profile`.

What makes this a lower bound in eager mode: caches that keep an operand are not allowed for (bytes may be saved, where
tensors fit into them), and neither is what libraries move beyond it (workspaces, casts of autocast, second passes of
normalisation). A compiler that fuses operations saves bytes that are counted here; so does a fused attention, for the
meta device makes all of its scores. What activation checkpointing runs again is work of the backward pass, in which it
takes its time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from dlbench.models import BuiltModel, build_on_meta
from dlbench.tasks.outputs import find_nested_tensors
from dlbench.worker.counting import flops
from dlbench.worker.counting.operation_macs import (
    count_operation_macs,
    has_mac_formula,
    is_unknown_operation,
    operation_name,
)
from dlbench.worker.memory import storage_id

#: Owner of operations after the network: the loss and its gradient.
LOSS = "(loss)"
_aten = torch.ops.aten
#: Operations that return new names or uninitialised memory and move nothing; ATen marks views itself.
_FREE_OPERATIONS = (
    *(_aten.detach, _aten._unsafe_view, _aten.empty, _aten.empty_like, _aten.new_empty, _aten.empty_strided),
)
#: Operations that write their first argument without reading it.
_OVERWRITING_OPERATIONS = (_aten.copy_, _aten.fill_, _aten.zero_, _aten.normal_, _aten.uniform_)
#: Operations that use only the shape of their arguments.
_CREATING_OPERATIONS = (
    *(_aten.zeros_like, _aten.ones_like, _aten.full_like, _aten.rand_like, _aten.randn_like),
    *(_aten.new_zeros, _aten.new_ones, _aten.new_full),
)


@dataclass
class ModuleWork:
    """Work of one module in one step of the whole batch."""

    forward_flop: int = 0
    backward_flop: int = 0
    forward_elements: int = 0
    backward_elements: int = 0
    forward_fixed_bytes: int = 0
    backward_fixed_bytes: int = 0
    note: str | None = None  # why FLOP are a lower bound or a mean


def count_work_by_module(name: str, training: bool, batch_size: int) -> dict[str, ModuleWork]:
    """Count the work of every module of a network, by path; "" is the network itself, `LOSS` the loss.

    Args:
        name: as `dlbench.models.build` takes it.
        training: forward and backward; else the forward pass of inference.
        batch_size: images in the step.

    Raises:
        UnknownName, BadInput: as `build`.
    """
    with flops.suppress_warnings():
        return network_work_by_module(build_on_meta(name), training, batch_size)


def network_work_by_module(model: BuiltModel, training: bool, batch_size: int) -> dict[str, ModuleWork]:
    """Count the work of a network on the meta device; means if the work differs between steps."""
    (first, is_random), (second, _) = (_count_step_work(model, training, batch_size, seed) for seed in range(2))
    if not is_random and first == second:
        return first
    passes = [
        first,
        second,
        *(_count_step_work(model, training, batch_size, n)[0] for n in range(2, flops.NUM_PASSES)),
    ]
    return first if all(work == first for work in passes) else _mean_work(passes)


def _count_step_work(
    model: BuiltModel, training: bool, batch_size: int, seed: int
) -> tuple[dict[str, ModuleWork], bool]:
    """Return the work of one step, and whether its forward pass used random numbers on the host."""
    module = model.module.train(training)
    batch = model.make_batch(batch_size, "meta")
    with MemoryTrafficMode(module) as mode, flops.suppress_warnings(), flops.seed_temporarily(seed) as has_drawn:
        loss = flops.run_forward(model, training, batch)
        is_random = has_drawn()
        if loss is not None:
            mode.backward = True
            loss.backward()  # type: ignore[no-untyped-call]
    module.zero_grad(set_to_none=True)
    for owner, names in mode.uncounted.items():
        mode.work[owner].note = f"not counted: {', '.join(names)}"
    return mode.work, is_random


def _mean_work(passes: Sequence[dict[str, ModuleWork]]) -> dict[str, ModuleWork]:
    found = {}
    for owner in dict.fromkeys(owner for work in passes for owner in work):
        # A module skipped in a pass has no work in it.
        alike = [work.get(owner, ModuleWork()) for work in passes]
        notes = [w.note for w in alike if w.note]
        if len({(w.forward_flop, w.backward_flop) for w in alike}) > 1:
            notes.append(f"mean of {len(passes)} steps")
        names = [f.name for f in fields(ModuleWork) if f.name != "note"]
        means = {name: round(sum(getattr(w, name) for w in alike) / len(passes)) for name in names}
        found[owner] = ModuleWork(**means, note="; ".join(dict.fromkeys(notes)) or None)
    return found


class MemoryTrafficMode(flops.FlopCountingMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that sums FLOP and moved elements of every operation, per module."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__(module)
        self.work: dict[str, ModuleWork] = {}
        self.uncounted: dict[str, dict[str, None]] = {}  # names by owner, in their order
        self._last_owner = LOSS
        #: Random masks of dropout, by storage. The meta device draws it, scales it and multiplies by it as
        #: floating-point numbers; at best, as on CUDA, one operation does it all, and leaves a byte per element.
        self._masks: dict[int, Tensor] = {}

    def _record_operation(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        owner, packet = self._owner_module(), func.overloadpacket
        macs = count_operation_macs(func, args, kwargs, result) if has_mac_formula(func) else 0
        if is_unknown_operation(func) or macs is None:
            self.work.setdefault(owner, ModuleWork())
            self.uncounted.setdefault(owner, {})[operation_name(func)] = None
        if packet is _aten.bernoulli_:
            self._masks[storage_id(result)] = result
        elif macs or not (
            func.is_view
            or packet in _FREE_OPERATIONS
            or (packet is _aten.div_ and storage_id(args[0]) in self._masks)  # a mask is scaled
        ):
            skipped = len(args) if packet in _CREATING_OPERATIONS else 1 if packet in _OVERWRITING_OPERATIONS else 0
            self._add_work(owner, macs or 0, [*args[skipped:], *kwargs.values()], result)

    def _record_uncounted_thread(self, path: str) -> None:
        self.work.setdefault(path, ModuleWork())
        self.uncounted.setdefault(path, {})[flops.OTHER_THREAD] = None

    def _add_work(self, owner: str, macs: int, arguments: list[Any], result: Any) -> None:
        work = self.work.setdefault(owner, ModuleWork())
        way = "backward" if self.backward else "forward"
        elements = fixed_bytes = 0
        for tensor in find_nested_tensors([*arguments, result]):
            if storage_id(tensor) in self._masks:
                fixed_bytes += _elements_in_memory(tensor)
            elif tensor.is_floating_point() or tensor.is_complex():
                elements += _elements_in_memory(tensor)
            else:
                fixed_bytes += _elements_in_memory(tensor) * tensor.element_size()
        for name, value in (("flop", 2 * macs), ("elements", elements), ("fixed_bytes", fixed_bytes)):
            setattr(work, f"{way}_{name}", getattr(work, f"{way}_{name}") + value)

    def _owner_module(self) -> str:
        if self.backward:
            node = torch._C._current_autograd_node()
            if node is not None:
                # The node of a parameter has no module: it belongs to the module that computed its gradient. So does
                # the sum of gradients of several paths, which has no node.
                owner = self._owners.module_path_of_node(node)
                self._last_owner = self._last_owner if owner is None else owner
            if not self.is_recomputing:
                return self._last_owner
        owner = self._owners.innermost_module
        owner = self._last_owner if owner is None else owner
        self._owners.assign_new_nodes(owner)
        return owner


def _elements_in_memory(tensor: Tensor) -> int:
    """Return the number of elements in memory: a broadcast dimension counts once."""
    return math.prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or size == 0)
