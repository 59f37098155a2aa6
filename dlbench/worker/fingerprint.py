"""Numerical fingerprint: does this case compute what the same network computes in fp32 on the CPU?

A bad kernel or driver, or a wrong use of the compiler, a graph or a fused optimizer may be fast. With
`protocol.fingerprint = "on"`, the case runs `NUM_STEPS` seeded steps after the window; so does a reference: the same
weights and samples in fp32 on the CPU, with every other axis at its default. Compared are the loss of each step, the
gradient of each weight, and the outputs. A case beyond its limit is `invalid`.

Use: `compare_with_reference(case, device)` builds the case by `build_workload` and calls `Workload.step` and
`Workload.infer`: an axis that these honour is checked without a line here. The learning rate is set before the first
step. The batch has the case's size, and repeats a few different samples: the reference then needs only these.

Limits: rounding is no error. The reference runs `NUM_ROUNDINGS` times more with weights and results that err at random
as rounding to the case's precision does. A limit is `FACTOR` times what that changes, at least `FLOOR`. Errors that all
entries of a tensor share are found by its scale, a sum in which rounding cancels: one part in a hundred
is seen in bf16 too.

Deep networks amplify rounding, and their limits are wide. One more step, without compiler and graph, therefore compares
each product and convolution, forwards and backwards, with the same operation on the same inputs in fp32 on the CPU:
nothing adds up, and one part in a hundred is seen at any depth.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from dlbench.errors import InvalidMeasurement
from dlbench.suites.case import Case
from dlbench.suites.training import LEARNING_RATES
from dlbench.tasks import Batch, map_batch_tensors
from dlbench.tasks.outputs import find_nested_tensors
from dlbench.worker.workload import Workload, build_workload, cast_batch

#: Steps of a training case. More would amplify rounding, as deep networks do.
NUM_STEPS = 3
#: A tenth of the rates that networks learn with: deep networks without normalisation diverge at these.
LEARNING_RATE_SHARE = 0.1
#: At least so many different samples, if the batch has so many.
MIN_SAMPLES = 8
#: Smallest limit of a relative deviation, and factor between what rounding changes and the limit.
FLOOR, FACTOR = 0.003, 4.0
NUM_ROUNDINGS = 4
#: Bits of a number that a result depends on. fp32 has 24: other algorithms and orders of sums lose a few.
_MANTISSA_BITS = {"fp32": 20, "tf32": 11, "amp_fp16": 11, "fp16": 11, "amp_bf16": 8, "bf16": 8}
#: Rounding errs by at most half of the last bit, which is half as much for a number just below a power of two.
_ROUNDING_WIDTH = 0.75
#: Gradients below this share of the largest are left out: differences of almost equal numbers, as of queries.
_SMALL_GRADIENT_SHARE = 0.03
_GRADIENT_PREFIX = "gradient of "
#: Operations that are compared one by one: those that a CPU has too, and whose arguments do not depend on the device.
_COMPARED = {
    *("mm", "bmm", "addmm", "baddbmm", "convolution", "convolution_backward"),
    *("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward"),
}


@dataclass(frozen=True)
class Fingerprint:
    """The figure that came nearest to its limit, or farthest beyond it: relative deviation from the reference."""

    deviation: float
    limit: float
    of: str  # "loss" | "outputs" | "gradient of NAME" | "OPERATION of SHAPES"

    @property
    def share_of_limit(self) -> float:
        """Deviation / limit; infinite for NaN."""
        return _nan_as_infinity(self.deviation / self.limit)

    def require_agreement(self, precision: str) -> None:
        """Raise InvalidMeasurement if the deviation is beyond the limit."""
        if not self.deviation <= self.limit:  # NaN as well
            raise InvalidMeasurement(
                f"fingerprint: {self.of} differs by {self.deviation:.2%} from the same computation in fp32 on the CPU, "
                f"but rounding in {precision} explains at most {self.limit:.2%}; the results may be wrong: check "
                f"driver, libraries and device"
            )


@dataclass(frozen=True)
class StepResults:
    """What a few seeded steps computed."""

    losses: tuple[float, ...]
    gradients: dict[str, Tensor]  # of the weights, in the first step
    outputs: tuple[Tensor, ...]  # of inference, at the end, the mean over samples subtracted


def compare_with_reference(case: Case, device: torch.device) -> Fingerprint:
    """Compare `case` with the reference; needs room for one more workload on the device.

    Changes process settings: the caller sets them anew.
    """
    size = num_samples(case.batch_size)
    own = Case(case.model, case.mode, batch_size=size, optimizer=case.optimizer, protocol=case.protocol)
    cpu = torch.device("cpu")
    reference = build_workload(own, cpu)
    start = _copy_state(reference)
    batch = reference.built.make_batch(size, cpu)
    expected = _run_steps(reference, batch)
    end = _copy_state(reference)
    del reference
    rounded = [
        _run_steps(_simulate_rounding(build_workload(own, cpu), case.precision, seed), batch, start, end)
        for seed in range(NUM_ROUNDINGS)
    ]
    alone = dataclasses.replace(case, data="synthetic", nodes=1, devices_per_node=1, backend="auto")
    workload = build_workload(alone, device)
    whole = compare_step_results(_run_steps(workload, batch, start, end), expected, rounded)
    return max([whole, *_compare_operations(workload)], key=lambda one: one.share_of_limit)


def compare_step_results(found: StepResults, expected: StepResults, rounded: Sequence[StepResults]) -> Fingerprint:
    """Return the figure of `found` with the largest share of its limit, which is made of those of `rounded`."""
    each = [relative_deviations(one, expected) for one in rounded]
    # The root of the mean square: a single draw may be near zero by chance.
    noise = {name: math.hypot(*(one[name] for one in each)) / math.sqrt(len(each)) for name in each[0]}
    # Networks have many gradients: some of them would err less than usual in all draws by chance.
    usual = statistics.median([noise[name] for name in noise if name.startswith(_GRADIENT_PREFIX)] or [0.0])
    prints = (
        Fingerprint(value, max(FLOOR, FACTOR * max(noise[name], usual * name.startswith(_GRADIENT_PREFIX))), name)
        for name, value in relative_deviations(found, expected).items()
    )
    return max(prints, key=lambda one: one.share_of_limit)


def relative_deviations(found: StepResults, expected: StepResults) -> dict[str, float]:
    """Relative deviation of each figure."""
    figures: dict[str, float] = {}
    if expected.losses:
        pairs = zip(found.losses, expected.losses, strict=True)
        figures["loss"] = max((abs(a - b) / abs(expected.losses[0]) for a, b in pairs), key=_nan_as_infinity)
    norms = {name: float(tensor.norm()) for name, tensor in expected.gradients.items()}
    largest = max(norms.values(), default=0.0)
    for name, gradient in expected.gradients.items():
        if norms[name] > _SMALL_GRADIENT_SHARE * largest:
            figures[_GRADIENT_PREFIX + name] = _scale_deviation(found.gradients[name], gradient)
    pairs_of_outputs = list(zip(found.outputs, expected.outputs, strict=True))
    if pairs_of_outputs:
        figures["outputs"] = max((_scale_deviation(a, b) for a, b in pairs_of_outputs), key=_nan_as_infinity)
        figures["single outputs"] = max((_relative_distance(a, b) for a, b in pairs_of_outputs), key=_nan_as_infinity)
    return figures


def num_samples(batch_size: int) -> int:
    """The smallest divisor of the batch from `MIN_SAMPLES` on: mean loss and statistics are those of the batch."""
    return next(n for n in range(min(MIN_SAMPLES, batch_size), batch_size + 1) if batch_size % n == 0)


def _run_steps(
    workload: Workload, batch: Batch, start: dict[str, Tensor] | None = None, end: dict[str, Tensor] | None = None
) -> StepResults:
    """Train for `NUM_STEPS` from state `start`, then infer from state `end`; without states, from its own.

    A case of inference has the reference's weights by its seed: folding and freezing have changed what a state holds.
    """
    module, case = workload.module, workload.case
    times = case.batch_size // len(batch[1])
    whole = map_batch_tensors(lambda t: t.repeat(times, *(1,) * (t.dim() - 1)).to(workload.device), batch)
    workload.batches = repeat(cast_batch(whole, case))
    losses: list[float] = []
    gradients: dict[str, Tensor] = {}
    if workload.optimizer is not None:
        _disable_dropout(module)
        for group in workload.optimizer.param_groups:
            group["lr"] = LEARNING_RATE_SHARE * LEARNING_RATES[case.optimizer]
        workload.capture_cuda_graph()
        _restore_start_state(workload, start)
        for _ in range(NUM_STEPS):
            scale = workload.scaler.get_scale() if workload.scaler else 1.0
            workload.step()
            losses.append(workload.read_loss() or 0.0)
            gradients = gradients or _weight_gradients(workload, scale)
        workload.release_step_state()
        module.eval()
        if end is not None:
            _load_state(workload, end)
        workload.captured = None  # a graph of training steps
    else:
        workload.capture_cuda_graph()
    tensors = [tensor for tensor in find_nested_tensors(workload.infer()) if tensor.is_floating_point()]
    outputs = tuple(_differences_between_samples(tensor, len(batch[1])) for tensor in tensors)
    return StepResults(tuple(losses), gradients, outputs)


def _restore_start_state(workload: Workload, start: dict[str, Tensor] | None) -> None:
    """Load state `start`; take back what the steps before a capture have left in the optimizer."""
    if start is not None:
        _load_state(workload, start)
    if workload.captured is not None and workload.optimizer is not None:
        for state in workload.optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()


def _disable_dropout(module: nn.Module) -> None:
    """Switch off dropout and its like; normalisation stays that of training."""
    module.eval()
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.train()
        elif isinstance(part, nn.RNNBase):
            # cuDNN has no backward pass for one in inference mode.
            part.train()
            part.dropout = 0.0


def _weight_gradients(workload: Workload, scale: float) -> dict[str, Tensor]:
    """Gradients of weights, on the CPU; biases are left out: theirs may be zero but for rounding."""
    scaled = getattr(workload.optimizer, "_step_supports_amp_scaling", False)  # such an optimizer leaves them scaled
    factor = 1.0 / scale if scaled else 1.0
    named = workload.module.named_parameters()
    return {name: _flat_on_cpu(p.grad) * factor for name, p in named if p.grad is not None and p.dim() > 1}


def _differences_between_samples(outputs: Tensor, num_different: int) -> Tensor:
    """What differs between samples: biases, which all samples share, would hide an error of a layer."""
    outputs = outputs[:num_different]
    return _flat_on_cpu(outputs - outputs.mean(0) if num_different > 1 else outputs)


def _flat_on_cpu(tensor: Tensor) -> Tensor:
    # A copy in the order of its indices, whatever the layout.
    return tensor.detach().to("cpu", torch.float64).contiguous().flatten()


def _copy_state(workload: Workload) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in workload.module.state_dict().items()}


def _load_state(workload: Workload, state: dict[str, Tensor]) -> None:
    # Values alone: the layout stays, and a graph finds its addresses.
    own = workload.module.state_dict()
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)


def _scale_deviation(found: Tensor, expected: Tensor) -> float:
    """Relative deviation of the scale of a tensor: of its projection on the expected one."""
    square = float(expected @ expected)
    return abs(float(found @ expected) / square - 1.0) if square > 0 else float(found.norm() > 0)


def _relative_distance(found: Tensor, expected: Tensor) -> float:
    norm = float(expected.norm())
    return float((found - expected).norm()) / norm if norm > 0 else float(found.norm() > 0)


def _nan_as_infinity(value: float) -> float:
    return value if value == value else float("inf")


def _compare_operations(workload: Workload) -> list[Fingerprint]:
    """Compare each operation of one step with fp32 on the CPU, in the order in which they run."""
    if workload.optimizer is not None:
        _disable_dropout(workload.module)
    workload.run, workload.captured = workload.module, None
    mode = _CompareOperationsWithFp32(workload.case.precision)
    with mode:
        workload.step()
    return mode.found


class _CompareOperationsWithFp32(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Run each of the `_COMPARED` operations once more, in fp32 on the CPU."""

    def __init__(self, precision: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.last_bit = 2.0 ** -_MANTISSA_BITS[precision]
        self.found: list[Fingerprint] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if name not in _COMPARED:
            if not func._can_decompose():
                return func(*args, **kwargs)
            # Composite operations such as `linear`, which inference mode dispatches whole.
            with self:
                return func.decompose(*args, **kwargs)
        inputs, options = tree_map(_to_fp32_on_cpu, (args, kwargs))
        results = func(*args, **kwargs)
        for found, expected in zip(
            find_nested_tensors(results), find_nested_tensors(func(*inputs, **options)), strict=True
        ):
            # Sums of biases may be zero but for rounding.
            if found.is_floating_point() and found.dim() > 1:
                self._record_deviation(found, expected, f"{name} of {_shapes_text(args)}")
        return results

    def _record_deviation(self, found: Tensor, expected: Tensor, of: str) -> None:
        # In the result's type, in which small numbers may be zero and large ones infinite.
        expected = _flat_on_cpu(expected.to(found.dtype))
        if expected.isfinite().all():
            limit = max(FLOOR, FACTOR * self.last_bit / math.sqrt(len(expected)))
            self.found.append(Fingerprint(_scale_deviation(_flat_on_cpu(found), expected), limit, of))


def _to_fp32_on_cpu(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    on_host = value.detach().cpu()
    return on_host.float().contiguous() if value.is_floating_point() else on_host


def _shapes_text(args: Any) -> str:
    shapes = ("x".join(map(str, tensor.shape)) for tensor in find_nested_tensors(args) if tensor.dim() > 1)
    return " and ".join(dict.fromkeys(shapes))


class _RandomRounding(torch.autograd.Function):
    """Change numbers at random, forwards and backwards, by at most a share."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, share: float) -> Tensor:
        ctx.share = share
        return _perturb_values(values, share)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return _perturb_values(gradients[0], ctx.share), None


def _perturb_values(values: Tensor, share: float) -> Tensor:
    return values * (1.0 + share * (2.0 * torch.rand_like(values) - 1.0))


def _simulate_rounding(workload: Workload, precision: str, seed: int) -> Workload:
    """Let the weights, and the result of each layer in both directions, err as rounding to this precision does."""
    share = _ROUNDING_WIDTH * 2.0 ** -_MANTISSA_BITS[precision]

    def round_result(_: nn.Module, __: Any, result: Any) -> Any:
        is_rounded = isinstance(result, Tensor) and result.is_floating_point()
        return _RandomRounding.apply(result, share) if is_rounded else result

    def round_weights(part: nn.Module, _: Any) -> None:
        with torch.no_grad():
            for parameter in part.parameters(recurse=False):
                parameter.copy_(_perturb_values(parameter, share))

    torch.manual_seed(seed)
    for part in workload.module.modules():
        if next(part.children(), None) is None:
            part.register_forward_hook(round_result)
            part.register_forward_pre_hook(round_weights)
    return workload
