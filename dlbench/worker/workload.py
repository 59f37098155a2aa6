"""Workload of a case: network, batch, loss and optimizer in the precision and layout of the case."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import math
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlbench.errors import BadInput, InvalidMeasurement
from dlbench.models import BuiltModel, build
from dlbench.suites.case import Case
from dlbench.tasks import Batch, map_batch_tensors, unique_batch_tensors
from dlbench.tasks.outputs import find_nested_tensors
from dlbench.worker.batch_norm_folding import fold_batch_norm
from dlbench.worker.cuda_graph import CapturedStep
from dlbench.worker.dtype_check import check_parameters, check_step_dtypes
from dlbench.worker.precision import AUTOCAST_DTYPES, WEIGHT_DTYPES, autocast
from dlbench.worker.ranks.context import RankContext
from dlbench.worker.settings import ProcessSettings
from dlbench.worker.timing import Clock

if TYPE_CHECKING:
    from dlbench.data.jpeg import JpegBatches

#: Number of host batches that synthetic_host alternates, so that no cache keeps the batch.
NUM_HOST_BATCHES = 4
_STRIDED = torch.strided

#: PyTorch's class and usual hyperparameters. Weight decay is the 5e-4 of AlexNet's and VGG's papers with SGD, and 0
#: with the adaptive ones, where L2 decay is not what their papers describe; AdamW has PyTorch's own. It costs one more
#: pass over the weights: SGD shows that cost.
#: Learning rates do not change the work of a step. They are so low that the weights stay as they were initialised: on
#: one batch, over the thousands of steps of a window, gradients would fade, and data changes power and clocks.
OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"lr": 1e-8, "momentum": 0.9, "weight_decay": 5e-4}),
    "adam": (torch.optim.Adam, {"lr": 1e-10, "betas": (0.9, 0.999), "eps": 1e-8}),
    "adamw": (torch.optim.AdamW, {"lr": 1e-10, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2}),
    "adagrad": (torch.optim.Adagrad, {"lr": 1e-10, "eps": 1e-10}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 1e-10, "alpha": 0.99, "eps": 1e-8}),
}
#: How PyTorch is told the implementation: both options None is its own choice.
_OPTIMIZER_OPTIONS: dict[str, dict[str, bool]] = {
    "auto": {},
    "plain": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
#: Optimizers whose update depends on the number of the step.
_OPTIMIZERS_COUNTING_STEPS = ("adam", "adamw", "rmsprop")


def make_optimizer(case: Case, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of the case over `parameters`."""
    kind, settings = OPTIMIZERS[case.optimizer]
    # In a graph the number of the step must be counted on the device.
    capturable = (
        {"capturable": True} if case.cuda_graph == "on" and case.optimizer in _OPTIMIZERS_COUNTING_STEPS else {}
    )
    return kind(parameters, **settings, **_OPTIMIZER_OPTIONS[case.optimizer_impl], **capturable)


@dataclass
class Workload:
    """Parts of a case; `step` runs one training or inference step and returns the stamps between its phases."""

    case: Case
    built: BuiltModel
    module: nn.Module
    device: torch.device
    run: Callable[..., Any]  # the module, compiled where the case asks for it
    batches: Iterator[Batch]
    optimizer: torch.optim.Optimizer | None
    #: Gradient scaler for fp16.
    scaler: torch.amp.GradScaler | None
    #: Loss and output of the latest training step, on the device: reading the loss waits for the device. Both are kept
    #: with their graph until the next step, as in usual loops (backward has freed saved tensors). Freeing the output
    #: earlier costs 2 µs per step of LeNet-5, detaching the loss 0.5 %.
    output: Any = None
    loss: Tensor | None = None
    #: The module in DistributedDataParallel, if several ranks train together.
    parallel: Any = None
    #: Required process settings, verified in `check`; None if nothing is measured.
    settings: ProcessSettings | None = None
    #: What loads image files, where the case asks for it.
    loader: JpegBatches | None = None
    #: About the network, for the record.
    warnings: tuple[str, ...] = ()
    #: The step as a CUDA graph, after `capture`; None where each step starts its operations.
    captured: CapturedStep | None = None
    #: Whether the forward pass runs under autocast.
    mixed: bool = field(init=False)
    loss_of: Callable[[Any, Tensor], Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.mixed = self.case.precision in AUTOCAST_DTYPES
        self.loss_of = self.built.task.loss

    def step(self, clock: Clock | None = None) -> tuple[Any, ...]:
        """Run one step; with a clock, the stamps after forward and after backward (training), or none (inference)."""
        optimizer = self.optimizer
        if optimizer is None:
            self.infer()
            return ()
        if self.captured is not None:
            self.captured.replay()
            return ()
        inputs, targets = next(self.batches)
        # Here rather than at the end: gradients of the last step are freed before activations need room, and
        # set_to_none makes backward write them instead of adding to zeros.
        optimizer.zero_grad(set_to_none=True)
        # Branches, because even an empty context takes microseconds, and a step may take only a thousand.
        mixed, scaler = self.mixed, self.scaler
        if mixed:
            with autocast(self.case.precision, self.device.type):
                output = self.run(*inputs)
        else:
            output = self.run(*inputs)
        forward_end = clock.stamp() if clock else None
        if mixed:
            with autocast(self.case.precision, self.device.type):
                loss = self.loss_of(output, targets)
        else:
            loss = self.loss_of(output, targets)
        (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        # Those of the last step end here, not at the head: as in the usual loop, some of their memory is used again.
        self.output, self.loss = output, loss
        backward_end = clock.stamp() if clock else None
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        return (forward_end, backward_end) if clock else ()

    def infer(self) -> Any:
        """Run one step of inference; return the outputs."""
        if not torch.is_inference_mode_enabled():
            with torch.inference_mode():
                return self.infer()
        if self.captured is not None:
            return self.captured.replay()
        inputs, _ = next(self.batches)
        if self.mixed:
            with autocast(self.case.precision, self.device.type):
                return self.run(*inputs)
        return self.run(*inputs)

    def require_finite_result(self, after: str) -> None:
        """Check that the latest training loss, or the outputs of one more inference step, are finite.

        Waits for the device.

        Raises:
            InvalidMeasurement: they are not finite.
        """
        if self.optimizer is None:
            require_finite_outputs(self.infer(), after)
        else:
            require_finite_loss(self.read_loss(), after)

    def check_work_and_precision(self, each_operation: bool = True) -> tuple[str, ...]:
        """Check that the measurement matches the case; runs one more step, without the compiler.

        Args:
            each_operation: look at the precision of each operation, which takes that step; not needed where another
                process of the case has done so under the same settings.

        Returns:
            Warnings.

        Raises:
            InvalidMeasurement: process settings changed, another precision was used, or nothing was compiled although
            the case requires it.
        """
        if self.settings is None:
            return ()
        self.settings.require_unchanged()
        frames = _num_compiled_functions()
        if self.case.compile != "off" and not frames:
            raise InvalidMeasurement(
                f"compile = '{self.case.compile}' was requested, but PyTorch compiled no part of the network; see "
                'torch.compiler.disable and TORCHDYNAMO_DISABLE, or set compile = "off"'
            )
        if each_operation:
            self._check_operation_dtypes(self.settings)
        if frames and self.case.compile == "off":
            return (
                f"compiled_inside: the network itself compiles {frames} of its functions, although compile is off.",
            )
        return ()

    def _check_operation_dtypes(self, settings: ProcessSettings) -> None:
        run, self.run = self.run, self.module
        try:
            with self.without_gradient_sync(), self.without_cuda_graph():
                check_step_dtypes(self.step, self.case, settings)
        finally:
            self.run = run
            self.release_step_state()

    def inference_context(self) -> AbstractContextManager[object]:
        """Context for many steps, which enters inference mode only once, as usual loops do."""
        return torch.inference_mode() if self.optimizer is None else nullcontext()

    @property
    def has_gradient_all_reduce(self) -> bool:
        """Whether a step reduces the gradients of several ranks."""
        return self.parallel is not None

    def without_gradient_sync(self) -> AbstractContextManager[object]:
        """Context in which steps do not reduce gradients, so that a rank can run a step alone."""
        return nullcontext() if self.parallel is None else self.parallel.no_sync()

    def capture_cuda_graph(self) -> None:
        """Capture the step as a CUDA graph, where the case asks for it; see `CapturedStep` for errors."""
        if self.case.cuda_graph == "on":
            self.captured = CapturedStep(self)

    @contextmanager
    def without_cuda_graph(self) -> Iterator[None]:
        """Context in which each step starts its operations, for what looks at them."""
        captured, self.captured = self.captured, None
        try:
            yield
        finally:
            self.captured = captured

    def num_parameters(self) -> int:
        """Number of trainable and frozen weights and biases, each counted once."""
        return sum(p.numel() for p in self.module.parameters())

    def release_step_state(self) -> None:
        """Free output, loss and gradients of the latest step."""
        self.output = self.loss = None
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)

    def read_loss(self) -> float | None:
        """Read the loss of the latest training step; waits for the device. None in inference."""
        return None if self.loss is None else float(self.loss.detach())


def build_workload(case: Case, device: torch.device, context: RankContext | None = None) -> Workload:
    """Build the workload of `case` on `device`, seeded by the protocol, without running a step.

    Args:
        context: of this rank; ranks have equal weights and different images.

    Raises:
        BadInput: the device does not support the precision or compile mode, or the model is unknown.
    """
    dataclasses.replace(case, device=device.type).require_compatible_axes()
    settings = ProcessSettings(case, device)
    settings.set_seeds()
    training = case.mode == "training"
    built = build(case.model, training)
    if training:
        _require_trainable(built)
    module: nn.Module = cast_module(built.module.to(device), case).train(training)
    folded: tuple[str, ...] = ()
    if case.fold_batch_norm == "on":
        module, folded = fold_batch_norm(module, built.make_batch(1, device)[0])
        built = dataclasses.replace(built, module=module)
        module = cast_module(module, case)
    parallel = None
    if context is not None and context.group is not None:
        from dlbench.worker.ranks.process_group import wrap_in_ddp

        parallel = wrap_in_ddp(module, case, device) if training else None
    # After all code of the network that runs before the first step.
    reset = settings.restore()
    rank = context.rank if context is not None else 0
    settings.set_seeds(rank)
    loader = None
    if case.data == "jpeg":
        from dlbench.data.loaders import open_batches  # imports torchvision, which takes seconds

        loader = open_batches(case, built, rank)
    return Workload(
        case=case,
        built=built,
        module=module,
        device=device,
        run=compile_if_asked(module if parallel is None else parallel, case, device),
        batches=_make_batches(case, built, device, loader),
        loader=loader,
        optimizer=make_optimizer(case, module.parameters()) if training else None,
        # Small gradients vanish in fp16 without it; bf16 has the range of fp32.
        scaler=torch.amp.GradScaler(device.type) if case.precision == "amp_fp16" else None,
        parallel=parallel,
        settings=settings,
        warnings=(*built.warnings, *folded, *reset, *check_parameters(module, case)),
    )


def _num_compiled_functions() -> int:
    if "torch._dynamo" not in sys.modules:
        return 0
    from torch._dynamo.utils import counters

    return int(counters["frames"]["ok"])


def require_finite_loss(loss: float | None, after: str) -> None:
    """Raise InvalidMeasurement if the loss is not finite."""
    if loss is not None and not math.isfinite(loss):
        raise InvalidMeasurement(
            f"the loss is {loss} after {after}; check the model's initialisation and the precision (NaN and "
            f"infinity can change step times)."
        )


def require_finite_outputs(outputs: Any, after: str) -> None:
    """Raise InvalidMeasurement if an output tensor contains NaN or infinity."""
    for tensor in find_nested_tensors(outputs):
        if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_quantized or tensor.layout != _STRIDED:
            continue
        values = tensor.detach()
        if values.element_size() < 2:  # 8-bit types have no isfinite
            values = values.float()
        wrong = int(values.numel() - torch.isfinite(values).sum())
        if wrong:
            raise InvalidMeasurement(
                f"{wrong} of {values.numel()} outputs are not finite after {after}; check the model's "
                f"initialisation and the precision (NaN and infinity can change step times)."
            )


def _require_trainable(built: BuiltModel) -> None:
    """Raise BadInput if the network cannot be trained."""
    reason = None
    if built.num_classes == 0 and built.task.has_classes:
        reason = "has no class scores (num_classes is 0)"
    elif not any(p.requires_grad for p in built.module.parameters()):
        reason = "has no trainable parameter"
    if reason:
        raise BadInput(f"model '{built.name}' {reason} and cannot be trained; use mode = \"inference\"")


def compile_if_asked(module: nn.Module, case: Case, device: torch.device) -> Callable[..., Any]:
    """The function that runs the network, compiled where the case asks. Raises BadInput if a tool is missing."""
    mode = case.compile
    if mode == "off":
        return module
    _require_compiler()
    if device.type == "cuda":
        _require_triton()
    if case.freeze == "on":
        from torch._inductor import config

        config.freezing = True
    return torch.compile(module) if mode == "default" else torch.compile(module, mode=mode)


def _require_compiler() -> None:
    """Raise BadInput without a C++ compiler, which Inductor needs; without it errors come late and are long."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError):
        raise BadInput(
            'compile was requested, but no C++ compiler was found; install g++, or set compile = "off".'
        ) from None


def _require_triton() -> None:
    """Raise BadInput without Triton or Python's headers, which Inductor needs on CUDA."""
    if importlib.util.find_spec("triton") is None:
        raise BadInput('compile was requested, but Triton is not installed; install it, or set compile = "off".')
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        raise BadInput(
            f"compile was requested, but Triton needs Python's headers, and {header} does not exist; "
            'install them (python3-dev, python3-devel), or set compile = "off".'
        )


def _make_batches(case: Case, built: BuiltModel, device: torch.device, loader: JpegBatches | None) -> Iterator[Batch]:
    """Batches without end: random ones of the network's task, or those of the loader."""
    if loader is not None:
        return (cast_batch(batch, case) for batch in _copy_to_device(loader, device, case.prefetch == "on"))
    if case.data == "synthetic":
        return itertools.repeat(cast_batch(built.make_batch(case.batch_size, device), case))
    on_host = [cast_batch(built.make_batch(case.batch_size, "cpu"), case) for _ in range(NUM_HOST_BATCHES)]
    if device.type == "cuda":
        # Only from page-locked memory is the copy asynchronous.
        on_host = [map_batch_tensors(lambda tensor: tensor.pin_memory(), batch) for batch in on_host]
    # copy=True: on the CPU `to` would hand out the host batch itself, and nothing would be measured.
    return _copy_to_device(itertools.cycle(on_host), device, case.prefetch == "on", copy=True)


def tensor_layout(case: Case) -> torch.memory_format:
    """The memory layout of weights and images."""
    return torch.channels_last if case.memory_format == "channels_last" else torch.contiguous_format


def cast_module(module: nn.Module, case: Case) -> nn.Module:
    """The network in the type and layout of the case."""
    dtype = WEIGHT_DTYPES.get(case.precision)
    cast = module if dtype is None else module.to(dtype)
    return cast.to(memory_format=tensor_layout(case))


def cast_batch(batch: Batch, case: Case) -> Batch:
    """The batch in the type of the case, its images in the layout of the case."""
    dtype, layout = WEIGHT_DTYPES.get(case.precision), tensor_layout(case)

    def cast_tensor(tensor: Tensor) -> Tensor:
        cast = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
        return cast.contiguous(memory_format=layout) if cast.dim() == 4 else cast

    return map_batch_tensors(cast_tensor, batch)


def _copy_to_device(batches: Iterable[Batch], device: torch.device, ahead: bool, copy: bool = False) -> Iterator[Batch]:
    """Each batch copied to the device.

    Args:
        ahead: copy in a stream of its own, while the step before computes.
        copy: also where the batch is on the device already.
    """

    def copy_batch(batch: Batch) -> Batch:
        return map_batch_tensors(lambda tensor: tensor.to(device, non_blocking=True, copy=copy), batch)

    if not ahead:
        yield from map(copy_batch, batches)
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batch in batches:
        # The host is ahead of the device: this copy runs beside the step before.
        with torch.cuda.stream(stream):
            copied = copy_batch(batch)
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        for tensor in unique_batch_tensors(copied):
            # Its memory must not be used again before the step that reads it is done.
            tensor.record_stream(current)
        yield copied
