"""Prediction of the peak memory of a case: runs its whole step on fake tensors, without allocation.

It runs the step of `workload.py` itself, with the case's batch, optimizer, layout and autocast: every
tensor counts from the operation that makes it until it is freed, as with the framework's allocator. On top come the
copies that oneDNN makes of what a convolution reads and writes on the CPU, and on CUDA the workspace of cuBLAS, which
both are taken from that allocator. Not in it: cuDNN's workspace, which is found by trying; the CUDA context; what the
allocator loses to rounding. A compiled network is predicted as the eager one, which keeps more; a captured step as the
one without a graph.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dlbench.errors import BadInput, DlbenchError
from dlbench.models import BuiltModel, build_on_meta
from dlbench.suites.case import Case
from dlbench.tasks import Batch, map_batch_tensors, unique_batch_tensors
from dlbench.worker.counting.footprint import LiveMemoryMode
from dlbench.worker.memory import bytes_saved_for_backward, optimizer_tensors, storage_bytes
from dlbench.worker.workload import Workload, cast_batch, cast_module, make_optimizer

_CPU = torch.device("cpu")
#: Channels per block of oneDNN, by width of vector registers; copies are padded to whole blocks.
_CHANNEL_BLOCK = {"AVX512": 16, "AVX2": 8}
#: Convolutions; under inference mode they have the names of their kind.
_CONVOLUTIONS = (
    *(torch.ops.aten.convolution.default, torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding),
    *(torch.ops.aten.conv1d.default, torch.ops.aten.conv3d.default),
    *(torch.ops.aten.conv_transpose1d.default, torch.ops.aten.conv_transpose2d.input),
    torch.ops.aten.conv_transpose3d.input,
)
#: Workspace of each cuBLAS handle in PyTorch: ":4096:2:16:8", and on Hopper and later 32 MiB
#: (aten/src/ATen/cuda/CublasHandlePool.cpp). The threads of forward and backward each have a handle.
_CUBLAS_BYTES, _CUBLAS_BYTES_FROM_HOPPER = 8_519_680, 33_554_432


@dataclass(frozen=True)
class MemoryPrediction:
    """Peak of the framework's allocator over one step [bytes], its phase, and its split as in records.

    Parts do not sum to the peak: some activations are already freed when the last gradients appear.
    """

    peak_bytes: int
    peak_phase: str  # "forward" | "backward" | "optimizer"
    parameter_bytes: int  # with buffers
    gradient_bytes: int
    optimizer_state_bytes: int
    activation_bytes: int  # saved by forward for backward
    batch_bytes: int  # images and labels
    workspace_bytes: int  # of oneDNN or cuBLAS at the peak
    buffer_bytes: int  # those in parameter_bytes


def predict_memory(case: Case) -> MemoryPrediction:
    """Predict the memory of `case` on one device. Raises UnknownName or BadInput if the network cannot run on meta."""
    return predict_memory_with_trace(case)[0]


def predict_memory_with_trace(case: Case) -> tuple[MemoryPrediction, list[int]]:
    """Return `predict_memory`, and the memory of `case` before its step and during each operation [bytes].

    The latter excludes the workspace of cuBLAS. Raises what `predict_memory` raises.
    """
    built = build_on_meta(case.model, case.mode == "training")
    # On the meta device, because fake parameters do not support it.
    cast_module(built.module, case)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            return _trace_step(case, built)
    except DlbenchError:
        raise
    except Exception as error:  # a user's network may read its data, which fake tensors lack
        text = (str(error).strip().splitlines() or ["no message"])[0]
        raise BadInput(
            f"the memory of {case.model} cannot be predicted, because a step on tensors without "
            f"data (shapes only) fails: {type(error).__name__}: {text}"
        ) from error


def _trace_step(case: Case, built: BuiltModel) -> tuple[MemoryPrediction, list[int]]:
    workload = _fake_workload(case, built)
    activations = bytes_saved_for_backward(workload)  # first step: the optimizer creates its state
    workload.release_step_state()
    parameters = list(workload.module.parameters())
    state = optimizer_tensors(workload)
    batch = unique_batch_tensors(next(workload.batches)) if case.data == "synthetic" else ()
    step = _StepMemoryTrace(case.device)
    for tensor in (*parameters, *workload.module.buffers(), *state, *batch):
        step.count_outside_tensor(tensor)
    step.start_recording()
    with step:
        workload.step(step)  # type: ignore[arg-type]  # only the stamps of a clock are used
    multiplies = any(isinstance(m, nn.Linear) for m in workload.module.modules())
    cublas = _cublas_workspace_bytes(case) if case.device == "cuda" and multiplies else 0
    kept = storage_bytes([*parameters, *workload.module.buffers()])
    prediction = MemoryPrediction(
        peak_bytes=step.peak + cublas,
        peak_phase=step.peak_phase,
        parameter_bytes=kept,
        buffer_bytes=kept - storage_bytes(parameters),
        gradient_bytes=storage_bytes([p.grad for p in parameters if p.grad is not None]),
        optimizer_state_bytes=storage_bytes(state),
        activation_bytes=activations,
        batch_bytes=storage_bytes(unique_batch_tensors(next(workload.batches))),
        workspace_bytes=step.peak_workspace + cublas,
    )
    return prediction, step.held


class _StepMemoryTrace(LiveMemoryMode):  # type: ignore[no-untyped-call]
    """Memory trace of one step; also acts as its clock, to see the ends of forward and backward."""

    def __init__(self, device_kind: str) -> None:
        super().__init__()
        self.peak_phase = "forward"
        self.peak_workspace = 0
        self.held: list[int] = []
        self._phases = iter(("backward", "optimizer"))
        self._phase = "forward"
        # Only for CPUs whose copies are known.
        self._block = _CHANNEL_BLOCK.get(torch.backends.cpu.get_cpu_capability(), 0) if device_kind == "cpu" else 0

    def start_recording(self) -> None:
        self.peak = self.live
        self.held = [self.live]

    def stamp(self) -> None:
        """Start the next phase."""
        self._phase = next(self._phases)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before, peak = self.live, self.peak
        result = super().__torch_dispatch__(func, types, args, kwargs)
        needed = self._convolution_peak(func, args, result) if self._block else 0
        workspace = max(0, before + needed - self.live)
        self.held.append(max(self.live, before + needed))
        self.peak = max(self.peak, before + needed)
        if self.peak > peak:
            self.peak_phase, self.peak_workspace = self._phase, workspace
        return result

    def _convolution_peak(self, func: Any, args: Any, result: Any) -> int:
        """Return the peak of a convolution on the CPU: its results and oneDNN's copies.

        From the allocator's reports: blocked copies of input, weights and output, then the output with its copy.
        Inputs with few channels (images) are not copied. Neither are outputs of a transposed convolution, which makes
        one more copy of its output in the end.
        """
        if func in _CONVOLUTIONS:
            x, weight = args[0], args[1]
            if _is_channels_last(x, weight):
                return _tensor_bytes(result) + self._padded_bytes(weight, 0)
            if _is_transposed(func, args):
                y, size = self._input_copy_bytes(result), _tensor_bytes(result)
                return max(self._input_copy_bytes(x) + self._padded_bytes(weight, 1) + (y or size), y + 2 * size)
            y = self._padded_bytes(result, 1)
            return max(self._input_copy_bytes(x) + self._padded_bytes(weight, 0) + y, y + _tensor_bytes(result))
        if func is torch.ops.aten.convolution_backward.default:
            gradient, x, weight = args[0], args[1], args[2]
            if _is_channels_last(x, weight):
                return sum(_tensor_bytes(t) for t in result if t is not None) + self._padded_bytes(weight, 0)
            transposed = args[7]
            copied = self._input_copy_bytes if transposed else lambda t: self._padded_bytes(t, 1)
            dy, w = copied(gradient), self._padded_bytes(weight, 0)
            peak, of_input = 0, 0
            if result[0] is not None:
                of_input, dx = _tensor_bytes(result[0]), copied(x)
                peak = max(dy + w + dx, dx + of_input)
            return max(peak, of_input + dy + self._input_copy_bytes(x) + 2 * w)
        return 0

    def _input_copy_bytes(self, x: Tensor) -> int:
        return self._padded_bytes(x, 1) if x.shape[1] >= self._block else 0

    def _padded_bytes(self, tensor: Tensor, axis: int) -> int:
        channels = tensor.shape[axis]
        return _tensor_bytes(tensor) // channels * math.ceil(channels / self._block) * self._block


def _is_transposed(func: Any, args: Any) -> bool:
    # Of `convolution`: after input, weight, bias, stride, padding and dilation.
    return bool(args[6]) if func is torch.ops.aten.convolution.default else "transpose" in func._schema.name


def _is_channels_last(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN uses the tensors directly (channels last): it then copies only weights."""
    return any(
        t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous()
        for t in (x, weight)
    )


def _fake_workload(case: Case, built: BuiltModel) -> Workload:
    """Build the workload from fake tensors; call under FakeTensorMode."""
    training = case.mode == "training"
    module: nn.Module = _allocate_empty_weights_on_cpu(built.module).train(training)
    impl = case.optimizer_impl
    if impl in ("auto", "fused"):
        # PyTorch's own choice is foreach on CUDA, with temporaries of the size of all weights. A fused update has none
        # and no kernel for fake tensors: plain is nearest.
        impl = "foreach" if impl == "auto" and case.device == "cuda" else "plain"
    updated = dataclasses.replace(case, optimizer_impl=impl, cuda_graph="off")
    optimizer = make_optimizer(updated, module.parameters()) if training else None
    return Workload(
        case=case,
        built=built,
        module=module,
        device=_CPU,
        run=module,
        batches=_fake_batches(case, built),
        optimizer=optimizer,
        # It reads its factor in each step, which fake tensors do not have.
        scaler=None,
    )


def _allocate_empty_weights_on_cpu(module: nn.Module) -> nn.Module:
    """The module with empty tensors; weights that several of its parts share are shared still."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    module.to_empty(device=_CPU)
    for first, *others in names.values():
        for name in others:
            path, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(path), attribute, module.get_parameter(first))
    return module


def _fake_batches(case: Case, built: BuiltModel) -> Iterator[Batch]:
    batch = cast_batch(built.make_batch(case.batch_size, _CPU), case)
    if case.data == "synthetic":
        return itertools.repeat(batch)
    return (map_batch_tensors(torch.empty_like, batch) for _ in itertools.count())


def _cublas_workspace_bytes(case: Case) -> int:
    hopper = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 9
    return (_CUBLAS_BYTES_FROM_HOPPER if hopper else _CUBLAS_BYTES) * (2 if case.mode == "training" else 1)


def _tensor_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
