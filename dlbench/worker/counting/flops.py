"""Count of MACs and bytes of the operations that a network runs, forward and backward, on the meta device.

The batch is that of the step: work that is done once per step, or that grows with the square of the batch, is counted
as often as it is done. A count on the meta device takes as long for a large batch as for a small one. What counts, and
how, is the table in `arithmetic.py`. A MAC is one multiply and one add: FLOP = 2 x MAC. PyTorch's own counter ignores
`groups` in the weight gradient of a convolution; here every gradient is counted as what it is.

Work that activation checkpointing does again in the backward pass is kept apart from that of the model.
"""

import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointFunction
from torch.utils.flop_counter import FlopCounterMode

from dlbench.models import BuiltModel, build_on_meta
from dlbench.suites.catalog import find_model
from dlbench.tasks import Batch
from dlbench.tasks.outputs import find_nested_tensors
from dlbench.worker.counting.node_owners import AutogradNodeTracker, hook_forward_calls
from dlbench.worker.counting.operation_macs import (
    count_operation_macs,
    has_mac_formula,
    is_mac_free,
    is_unknown_operation,
    operation_name,
)

#: Number of passes to average if the work differs between steps.
NUM_PASSES = 32
#: Time for comparing further forward passes with the first [s]: work may differ only in every tenth step.
CONSTANT_CHECK_S = 0.3
#: Name of uncounted work in another thread, in the list of uncounted operations.
OTHER_THREAD = "work in another thread"
_CHECKPOINT: type = CheckpointFunction._backward_cls


@dataclass(frozen=True)
class Operation:
    """One executed product, convolution or attention, or its gradient; or an unknown operation."""

    name: str  # as ATen calls it; others with their namespace
    macs: int | None  # None: not counted
    bytes: int  # each operand and result moved once
    backward: bool
    module: str  # the path of the module that ran it, or "" for the network itself
    shapes: tuple[tuple[int, ...], ...]  # of the tensor arguments
    recomputed: bool = False  # the forward pass once more, during the backward pass


@dataclass(frozen=True)
class CountedWork:
    """The work of one network, per image unless said otherwise."""

    parameters: int  # of the network as it is built for training, with auxiliary heads, or for inference, without
    forward_macs: int
    backward_macs: int
    pytorch_forward_flop: int | None  # by PyTorch's own counter; None where that cannot follow the network
    pytorch_backward_flop: int | None
    operations: tuple[Operation, ...] = field(repr=False, default=())  # of the whole batch
    recomputed_macs: int = 0  # what checkpointing runs again; in none of the other counts
    uncounted: tuple[str, ...] = ()  # names of operations that may multiply and are not in the counts
    num_passes: int = 1  # more than one: the work differs from step to step, and these are means
    lowest_flop: int | None = None  # of one pass, where passes differ; of the model, forward and backward
    highest_flop: int | None = None
    is_random: bool = False  # the forward pass drew random numbers on the host, which its control flow may follow

    @property
    def forward_flop(self) -> int:
        """FLOP of the forward pass of one image."""
        return 2 * self.forward_macs

    @property
    def backward_flop(self) -> int:
        """FLOP of the backward pass of one image, without recomputation; 0 in inference."""
        return 2 * self.backward_macs

    @property
    def executed_flop(self) -> int:
        """All FLOP of one image in a step, with recomputation."""
        return 2 * (self.forward_macs + self.backward_macs + self.recomputed_macs)


def count_network_flop(name: str, training: bool = True, batch_size: int = 2) -> CountedWork:
    """Count a network by name, on the meta device (without allocation).

    Args:
        name: as for `dlbench.models.build`.
        training: forward and backward, auxiliary heads included; else the forward pass of inference.
        batch_size: images in the step; batch normalisation after pooling to 1x1 needs two.

    Raises:
        UnknownName, BadInput: as `build`.
    """
    with suppress_warnings():
        built = build_on_meta(name, training)
        # Steps of built-in networks do not differ in work.
        count = count_mean_step_flop if find_model(name) is None else count_step_flop
        return count(built, training, batch_size)


def count_mean_step_flop(model: BuiltModel, training: bool = True, batch_size: int = 2) -> CountedWork:
    """Count steps of a network on the meta device: one, or `NUM_PASSES` if steps may differ in work.

    Steps may differ if the network uses random numbers on the host, or if one of the next passes differs from the
    first. Then the counts are means over all passes.
    """
    passes = [count_step_flop(model, training, batch_size, seed) for seed in range(2)]
    first = passes[0]
    if (
        not first.is_random
        and _work_totals(first) == _work_totals(passes[1])
        and _has_constant_work(model, training, batch_size, first)
    ):
        return first
    passes += [count_step_flop(model, training, batch_size, seed) for seed in range(2, NUM_PASSES)]
    if len({_work_totals(p) for p in passes}) == 1:
        return first
    means: dict[str, Any] = {
        name: round(Fraction(sum(getattr(p, name) for p in passes), len(passes)))
        for name in (
            *("forward_macs", "backward_macs", "recomputed_macs"),
            *("pytorch_forward_flop", "pytorch_backward_flop"),
        )
        if all(getattr(p, name) is not None for p in passes)
    }
    totals = [p.forward_flop + p.backward_flop for p in passes]
    return replace(
        first,
        **means,
        uncounted=tuple(dict.fromkeys(name for p in passes for name in p.uncounted)),
        num_passes=len(passes),
        lowest_flop=min(totals),
        highest_flop=max(totals),
    )


def _has_constant_work(model: BuiltModel, training: bool, batch_size: int, first: CountedWork) -> bool:
    """Whether the next forward passes equal the first, within a short time limit."""
    ends_s = time.perf_counter() + CONSTANT_CHECK_S
    batch = model.make_batch(batch_size, "meta")
    own = [(o.name, o.macs) for o in first.operations if not o.backward]
    for seed in range(2, NUM_PASSES):
        with FlopCountingMode(model.module) as mode, suppress_warnings(), seed_temporarily(seed):
            run_forward(model, training, batch)
        if [(o.name, o.macs) for o in mode.operations] != own:
            return False
        if time.perf_counter() > ends_s:
            break
    return True


def _work_totals(counted: CountedWork) -> tuple[Any, ...]:
    return counted.forward_macs, counted.backward_macs, counted.recomputed_macs, counted.uncounted


def count_step_flop(model: BuiltModel, training: bool = True, batch_size: int = 2, seed: int = 0) -> CountedWork:
    """Count one step of a network on the meta device; `seed` is that of random numbers on the host."""
    try:
        return count_step_operations(model, training, batch_size, seed, FlopCounterMode(display=False))
    except Exception:
        # PyTorch's counter uses module hooks, which fail for some networks, such as those that take gradients in
        # forward. Other errors occur again.
        return count_step_operations(model, training, batch_size, seed)


def count_step_operations(
    model: BuiltModel, training: bool, batch_size: int, seed: int = 0, pytorch: FlopCounterMode | None = None
) -> CountedWork:
    """`count_step_flop` with PyTorch's own counter only where it is given."""
    module = model.module.train(training)
    parameters = sum(p.numel() for p in module.parameters())
    batch = model.make_batch(batch_size, "meta")
    with (
        FlopCountingMode(module) as mode,
        pytorch or nullcontext(),
        suppress_warnings(),
        seed_temporarily(seed) as has_drawn,
    ):
        loss = run_forward(model, training, batch)
        is_random = has_drawn()
        pytorch_forward = pytorch.get_total_flops() if pytorch else 0
        if loss is not None:
            mode.backward = True
            loss.backward()  # type: ignore[no-untyped-call]
    module.zero_grad(set_to_none=True)
    operations = tuple(mode.operations)
    own = [o for o in operations if not o.recomputed]
    return CountedWork(
        parameters=parameters,
        forward_macs=_macs_per_image((o for o in own if not o.backward), batch_size),
        backward_macs=_macs_per_image((o for o in own if o.backward), batch_size),
        recomputed_macs=_macs_per_image((o for o in operations if o.recomputed), batch_size),
        pytorch_forward_flop=pytorch_forward // batch_size if pytorch else None,
        pytorch_backward_flop=(pytorch.get_total_flops() - pytorch_forward) // batch_size if pytorch else None,
        operations=operations,
        uncounted=uncounted_operation_names(operations),
        is_random=is_random,
    )


def uncounted_operation_names(operations: Iterable[Operation]) -> tuple[str, ...]:
    """Names of uncounted operations, each once, in order."""
    return tuple(dict.fromkeys(o.name for o in operations if o.macs is None))


def run_forward(model: BuiltModel, training: bool, batch: Batch) -> Tensor | None:
    """The forward pass of a batch; the loss in training, None in inference."""
    inputs, targets = batch
    if not training:
        with torch.no_grad():
            model.module(*inputs)
        return None
    return model.task.loss(model.module(*inputs), targets)


@contextmanager
def suppress_warnings() -> Iterator[None]:
    """Suppress warnings of a foreign network about its initialisation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def seed_temporarily(seed: int) -> Iterator[Callable[[], bool]]:
    """Seed the host's random numbers, restore their state afterwards, and report whether any were drawn.

    Random numbers on the meta device use no generator.
    """
    numpy = sys.modules.get("numpy")
    before = random.getstate(), numpy.random.get_state() if numpy else None
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        torch.default_generator.manual_seed(seed)
        if numpy:
            numpy.random.seed(seed)
        seeded = _random_generator_states(numpy)
        try:
            yield lambda: _random_generator_states(numpy) != seeded
        finally:
            random.setstate(before[0])
            if numpy:
                numpy.random.set_state(before[1])


def _random_generator_states(numpy: Any) -> tuple[Any, ...]:
    of_numpy = numpy.random.get_state(legacy=False)["state"] if numpy else None
    key = (bytes(of_numpy["key"]), of_numpy["pos"]) if of_numpy else None
    return random.getstate(), bytes(torch.get_rng_state().numpy()), key


def _macs_per_image(operations: Iterable[Operation], batch_size: int) -> int:
    # Work independent of the batch, such as a product of parameters, is divided over the images.
    return round(Fraction(sum(o.macs or 0 for o in operations), batch_size))


class FlopCountingMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that records every operation that multiplies and adds, or may do so, with its module's path."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self.backward = False
        self._thread = threading.get_ident()
        self._owners = AutogradNodeTracker()
        self._hooks = hook_forward_calls(module, self._on_module_start, self._on_module_end)

    def __enter__(self) -> Self:
        self._hooks.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._hooks.__exit__(None, None, None)

    def _on_module_start(self, path: str) -> None:
        if threading.get_ident() == self._thread:
            self._owners.enter_module(path)
        else:
            # Dispatch modes apply to one thread: operations in other threads are not seen.
            self._record_uncounted_thread(path)

    def _record_uncounted_thread(self, path: str) -> None:
        self.operations.append(Operation(OTHER_THREAD, None, 0, self.backward, path, ()))

    def _on_module_end(self, output: Any) -> None:
        if threading.get_ident() == self._thread:
            self._owners.leave_module()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if is_unknown_operation(func) and func._can_decompose():
            # Composite operations such as `linear` are decomposed; their parts are dispatched here.
            with self._keep_mode_active():
                return func.decompose(*args, **kwargs)
        result = func(*args, **kwargs)
        self._record_operation(func, args, kwargs, result)
        return result

    @contextmanager
    def _keep_mode_active(self) -> Iterator[None]:
        """Keep the mode active, which PyTorch disables while it handles an operation."""
        super().__enter__()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            super().__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def _record_operation(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        if is_mac_free(func):
            return
        tensors = list(find_nested_tensors(args))
        self.operations.append(
            Operation(
                name=operation_name(func),
                macs=count_operation_macs(func, args, kwargs, result) if has_mac_formula(func) else None,
                bytes=sum(t.numel() * t.element_size() for t in (*tensors, *find_nested_tensors(result))),
                backward=self.backward,
                module=self._owner_module(),
                shapes=tuple(tuple(t.shape) for t in tensors),
                recomputed=self.is_recomputing,
            )
        )

    @property
    def is_recomputing(self) -> bool:
        """Whether a part of the forward pass is being recomputed in a backward pass.

        Modules are entered only in a forward pass. Outside modules, operations that record a graph in a backward pass
        are recomputation, unless a custom autograd function of the network computes gradients that way.
        """
        if not self.backward:
            return False
        if self._owners.innermost_module is not None:
            return True
        node = torch._C._current_autograd_node()
        own = isinstance(node, BackwardCFunction) and not isinstance(node, _CHECKPOINT)
        return torch.is_grad_enabled() and not own

    def _owner_module(self) -> str:
        """Return the module that runs the operation, or whose gradient it is."""
        node = torch._C._current_autograd_node() if self.backward else None
        owner = (self._owners.module_path_of_node(node) if node else None) or ""
        if self.backward and not self.is_recomputing:
            return owner
        # Recomputation outside modules belongs to the module whose gradient needs it.
        path = owner if self._owners.innermost_module is None else self._owners.innermost_module
        self._owners.assign_new_nodes(path)
        return path
