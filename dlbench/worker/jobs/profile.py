"""Time of every layer, forward and backward, inside steps as `measure` runs them; and a trace.

Hooks on every module, and on every node that autograd made, take one stamp each: the time between two stamps belongs to
the innermost module that was running, so that the layers and the few parts that are none sum to the step. A node is
of the module during whose forward pass autograd numbered it; a residual addition so belongs to its block. Full-backward
hooks of modules are not used: they forbid in-place activations and see nothing of functions.

Blocks of steps with and without hooks alternate. Nothing waits for the device inside a block. On a GPU the time between
two stamps holds waiting for the host where that is the slower one, which the hooks make more likely: the record has
both kinds of step, so that what the hooks cost is known.
"""

import dataclasses
import math
import shutil
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlbench.errors import BadInput, DlbenchError
from dlbench.results.bounds_records import LayerTime, ProfileRun, to_json
from dlbench.suites.case import Case
from dlbench.suites.worker_request import requested_case
from dlbench.tasks.outputs import find_nested_tensors
from dlbench.worker.counting.node_owners import AutogradNodeTracker, hook_forward_calls
from dlbench.worker.counting.traffic import LOSS, ModuleWork, count_work_by_module
from dlbench.worker.devices import clock_for_device, device_identity, find_device
from dlbench.worker.jobs.job_answer import write_job_answer
from dlbench.worker.meters.host_watch import HostWatch
from dlbench.worker.network_check import check_network
from dlbench.worker.onednn import record_verbose_log
from dlbench.worker.progress import enter_phase
from dlbench.worker.stopping import WarmupRule
from dlbench.worker.timing import Clock, no_garbage_collection, time_queued_calls
from dlbench.worker.workload import Workload, build_workload

INPUT, OPTIMIZER, MEASURING = "(input)", "(optimizer)", "(measuring)"
PARTS = {INPUT: "input", LOSS: "loss", OPTIMIZER: "optimizer", MEASURING: "measuring"}
#: Length of a block of steps [s], and its maximum number of steps: its stamps are kept until it ends.
BLOCK_S, MAX_BLOCK_STEPS = 0.25, 20
MIN_STEPS, MAX_STEPS = 5, 200
#: Name of the network's own operations, which have the empty path.
ROOT = "(network)"

#: Seconds by owner and direction.
SelfTimes = dict[tuple[str, str], float]
#: Owner, direction ("forward" | "backward") and stamp.
Mark = tuple[str, str, Any]


class LayerHooks:
    """Hooks that take a stamp whenever another module of `network` starts to run, forward and backward."""

    def __init__(self, network: nn.Module, clock: Clock) -> None:
        self._network = network
        self._clock = clock
        self._owners = AutogradNodeTracker()
        self._last = ("", "")
        #: Once the network has left its forward pass: what its modules do then is run again for the gradients.
        self._in_backward = False
        self._before = ("", "")  # what was running when a part began to run again
        self._first_node = 0  # of that part
        self.marks: list[Mark] = []

    def attach_to_modules(self) -> AbstractContextManager[None]:
        """Context in which every step records its marks."""
        return hook_forward_calls(self._network, self._on_module_start, self._on_module_end)

    def begin_step(self) -> None:
        """Start a step."""
        self.marks = []
        self._owners.clear_nodes()
        self._last = ("", "")
        self._in_backward = False
        self._add_time_mark(INPUT, "forward")

    def end_step(self, shown: tuple[Any, ...]) -> list[Mark]:
        """Return the marks of the step; the last is its end.

        Args:
            shown: stamps from the step: after forward and after backward in training, none in inference.
        """
        if len(shown) == 2:
            self._clock.recycle_stamp(shown[0])
            self.marks.append((OPTIMIZER, "backward", shown[1]))
        self.marks.append(("", "", self._clock.stamp()))
        return self.marks

    def _add_time_mark(self, owner: str, way: str) -> None:
        if (owner, way) != self._last:
            self._last = (owner, way)
            self.marks.append((owner, way, self._clock.stamp()))

    def _on_module_start(self, path: str) -> None:
        is_first = self._owners.innermost_module is None
        self._owners.enter_module(path or ROOT)
        if self._in_backward and is_first:
            self._before, self._first_node = self._last, self._owners.next_node
        self._add_time_mark(path or ROOT, self._current_direction)

    def _on_module_end(self, output: Any) -> None:
        self._owners.leave_module()
        if self._owners.innermost_module is not None:
            self._add_time_mark(self._owners.innermost_module, self._current_direction)
            return
        self._add_time_mark(MEASURING, "forward")
        # Without an output the module ended early, for example when activation checkpointing has all it needs.
        for node in autograd_nodes(output) if output is not None else ():
            owner = self._owners.module_path_of_node(node)
            if owner is not None and (not self._in_backward or node._sequence_nr() >= self._first_node):
                node.register_prehook(self._backward_hook(owner))
        if self._in_backward:
            self._add_time_mark(*self._before)
            return
        self._in_backward = True
        self._add_time_mark(LOSS, "forward")

    @property
    def _current_direction(self) -> str:
        return "backward" if self._in_backward else "forward"

    def _backward_hook(self, owner: str) -> Callable[..., None]:
        # Nodes of the previous step are freed or keep their own owner: steps are never mixed.
        return lambda *_: self._add_time_mark(owner, "backward")


def autograd_nodes(output: Any) -> list[Any]:
    """Return all autograd nodes of the tensors in `output`, each once."""
    waiting = [t.grad_fn for t in find_nested_tensors(output) if t.grad_fn is not None]
    seen = set(waiting)
    found = []
    while waiting:
        node = waiting.pop()
        found.append(node)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return found


def self_times_by_layer(marks: list[Mark], clock: Clock) -> SelfTimes:
    """Return the seconds of one step by owner and direction: from each mark to the next."""
    times: SelfTimes = {}
    for (owner, way, start), (_, _, end) in pairwise(marks):
        times[owner, way] = times.get((owner, way), 0.0) + clock.elapsed_s(start, end)
    return times


def profile_case(case: Case, folder: Path, time_s: float, trace_steps: int, kernels: bool = False) -> ProfileRun:
    """Profile the layers of `case`; write the trace to `folder`.

    Args:
        time_s: time for steps, with and without hooks [s]; at least `MIN_STEPS` of each.
        trace_steps: steps in the trace; 0 for none.
        kernels: also write oneDNN's log of one step; see `record_verbose_log`.

    Raises:
        BadInput: the case is compiled, or has several devices; or as `build_workload`.
        DeviceUnavailable: its device is not available.
        InvalidMeasurement: the loss is not finite.
    """
    _require_profilable(case, time_s)
    network_key = check_network(case.model).key
    enter_phase("flop")
    work = _count_work(case)
    device = find_device(case)
    case = dataclasses.replace(case, device=device.type)
    clock = clock_for_device(device)
    enter_phase("build")
    workload = build_workload(case, device)
    with workload.inference_context():
        enter_phase("warmup")
        step_s = _warm_up(workload, clock)
        enter_phase("profile")
        host = HostWatch()
        host.read_before_window()
        plain, hooked, times = _time_steps_with_and_without_hooks(workload, clock, step_s, time_s)
        host.read_after_window()
        workload.require_finite_result(f"{len(plain) + len(hooked)} steps")
        if kernels:
            enter_phase("kernels")
            record_verbose_log(workload.step, device, folder)
    workload.check_work_and_precision()
    if trace_steps > 0:
        enter_phase("trace")
        write_trace(workload, clock, folder, trace_steps)
    layers, parts = _layer_times(workload.module, times, work, case.mode == "training")
    return ProfileRun(
        device_identity(device),
        case.to_dict(),
        layers,
        parts,
        bytes_moved_by_optimizer(workload),
        plain,
        hooked,
        clock.name,
        busy_share=host.busy_share,
        network_key=network_key,
    )


def bytes_moved_by_optimizer(workload: Workload) -> int:
    """Return the minimum bytes of one update: gradients read, parameters and state read and written."""
    if workload.optimizer is None:
        return 0
    moved = 0
    for parameter in workload.module.parameters():
        # The optimizer skips frozen parameters.
        if not parameter.requires_grad:
            continue
        state = workload.optimizer.state.get(parameter, {})
        # The step count is a scalar and is ignored.
        kept = [v for v in state.values() if isinstance(v, Tensor) and v.numel() == parameter.numel()]
        moved += sum(2 * t.numel() * t.element_size() for t in (parameter, *kept))
        moved += parameter.numel() * parameter.element_size()
    return moved


def write_trace(workload: Workload, clock: Clock, folder: Path, steps: int) -> None:
    """Write `trace.json.gz` for Perfetto, and the same under the name that TensorBoard's plugin looks for.

    Modules show as ranges named by their paths.
    """
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    activities = [ProfilerActivity.CPU]
    if workload.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with torch_profile(activities=activities, record_shapes=True) as recorded, _name_profiler_ranges(workload.module):
        for number in range(steps):
            # TensorBoard's plugin recognises steps by this name.
            with torch.profiler.record_function(f"ProfilerStep#{number}"):
                workload.step()
        clock.synchronize()
    trace = folder / "trace.json.gz"
    recorded.export_chrome_trace(str(trace))
    named = folder / "tensorboard" / f"{workload.case.model.replace(':', '_').replace('/', '_')}.pt.trace.json.gz"
    named.parent.mkdir(exist_ok=True)
    try:
        named.hardlink_to(trace)
    except OSError:
        shutil.copyfile(trace, named)


def _name_profiler_ranges(network: nn.Module) -> AbstractContextManager[None]:
    """Context in which every module is a range of the profiler, named by its path."""
    open_ranges: list[Any] = []

    def open_profiler_range(path: str) -> None:
        open_ranges.append(torch.profiler.record_function(path or ROOT))
        open_ranges[-1].__enter__()

    return hook_forward_calls(network, open_profiler_range, lambda _: open_ranges.pop().__exit__(None, None, None))


def _count_work(case: Case) -> dict[str, ModuleWork]:
    """Count the work of each module first: without it a profile would be useless."""
    try:
        return count_work_by_module(case.model, case.mode == "training", case.batch_size)
    except DlbenchError:
        raise
    except Exception as error:  # a user's network may read its data, which the meta device lacks
        text = (str(error).strip().splitlines() or ["no message"])[0]
        raise BadInput(
            f"the work of {case.model} cannot be counted, because a step on tensors without "
            f"data (shapes only) fails: {type(error).__name__}: {text}"
        ) from error


def _require_profilable(case: Case, time_s: float) -> None:
    if case.compile != "off":
        raise BadInput(f'cannot profile layers with compile "{case.compile}", which fuses them; set compile = "off"')
    if case.cuda_graph == "on":
        raise BadInput('cannot profile layers of a CUDA graph, which runs all layers as one; set cuda_graph = "off"')
    if case.world_size != 1:
        raise BadInput(
            f"cannot profile {case.world_size} devices; a profile uses one device: remove nodes and devices_per_node"
        )
    if not (math.isfinite(time_s) and time_s > 0):
        raise BadInput(f"the time to profile is {time_s} s; it must be above 0 s")


def _warm_up(workload: Workload, clock: Clock) -> float:
    """Expected time of a step [s], after as many as the protocol's warm-up takes."""
    rule = WarmupRule(workload.case.protocol)
    workload.step()
    clock.synchronize()
    step_s: list[float] = []
    began_s = stamp_s = time.perf_counter()
    look_s = 0.0
    while True:
        workload.step()
        clock.synchronize()
        last_s, stamp_s = stamp_s, time.perf_counter()
        step_s.append(stamp_s - last_s)
        elapsed_s = stamp_s - began_s
        if elapsed_s >= look_s:
            if rule(step_s, elapsed_s) is not None:
                return statistics.median(step_s[-MAX_STEPS:])
            # The rule uses all steps: evaluating it after each one would take longer than the steps.
            look_s = 1.05 * elapsed_s


def _time_steps_with_and_without_hooks(
    workload: Workload, clock: Clock, step_s: float, time_s: float
) -> tuple[tuple[float, ...], tuple[float, ...], list[SelfTimes]]:
    """Alternate steps without and with hooks; return both [s], and the module times of the latter."""
    block = max(1, min(MAX_BLOCK_STEPS, int(BLOCK_S / max(step_s, 1e-9))))
    hooks = LayerHooks(workload.module, clock)
    plain: list[float] = []
    hooked: list[float] = []
    times: list[SelfTimes] = []
    ends_s = time.perf_counter() + time_s
    first_hooked = True
    with no_garbage_collection():
        while len(hooked) < MIN_STEPS or (time.perf_counter() < ends_s and len(hooked) < MAX_STEPS):
            plain += _time_plain_steps(workload, clock, block)
            with hooks.attach_to_modules():
                found = _time_hooked_steps(workload, clock, hooks, block + first_hooked)
            # The first hooked step initialises data for later ones.
            found, first_hooked = found[first_hooked:], False
            times += [own for _, own in found]
            hooked += [total for total, _ in found]
    return tuple(plain), tuple(hooked), times


def _time_plain_steps(workload: Workload, clock: Clock, block: int) -> list[float]:
    def timed_step() -> None:
        # The clock, as in every shown step of `measure`: the same two stamps between the phases.
        for stamp in workload.step(clock):
            clock.recycle_stamp(stamp)

    return time_queued_calls(timed_step, clock, block)


def _time_hooked_steps(
    workload: Workload, clock: Clock, hooks: LayerHooks, block: int
) -> list[tuple[float, SelfTimes]]:
    """Return total and module times of each step [s]."""
    clock.synchronize()
    steps = []
    for _ in range(block):
        hooks.begin_step()
        steps.append(hooks.end_step(workload.step(clock)))
    clock.synchronize()
    found = [(clock.elapsed_s(marks[0][2], marks[-1][2]), self_times_by_layer(marks, clock)) for marks in steps]
    for marks in steps:
        for _, _, stamp in marks:
            clock.recycle_stamp(stamp)
    return found


def _layer_times(
    network: nn.Module, times: list[SelfTimes], work: dict[str, ModuleWork], training: bool
) -> tuple[tuple[LayerTime, ...], dict[str, tuple[float, ...]]]:
    """Return one row per module that ran and has work or no children, in network order; and the other parts.

    The time of containers between their children becomes the part "between".
    """
    rows = []
    parts = dict.fromkeys((*PARTS.values(), "between"), [0.0] * len(times))
    for path, module in network.named_modules():
        owner = path or ROOT
        forward = [own.get((owner, "forward"), 0.0) for own in times]
        backward = [own.get((owner, "backward"), 0.0) for own in times]
        counted = work.get(path, ModuleWork())
        if not any(forward) and not any(backward):
            continue
        if counted == ModuleWork() and any(True for _ in module.children()):
            parts["between"] = [sum(t) for t in zip(parts["between"], forward, backward, strict=True)]
            continue
        # Without a gradient, backward is None instead of zero.
        times_s = (tuple(forward), tuple(backward) if training and any(backward) else ())
        rows.append(LayerTime(owner, type(module).__name__, *times_s, **dataclasses.asdict(counted)))
    for owner, part in PARTS.items():
        parts[part] = [own.get((owner, "forward"), 0.0) + own.get((owner, "backward"), 0.0) for own in times]
    return tuple(rows), {part: tuple(samples) for part, samples in parts.items() if any(samples)}


def handle_request(request: dict[str, Any], folder: Path) -> int:
    """Profile the case of the request; return the exit status."""
    time_s, trace_steps = float(request.get("time_s", 10.0)), int(request.get("trace_steps", 3))
    kernels = bool(request.get("kernels"))
    return write_job_answer(
        folder, lambda: to_json(profile_case(requested_case(request), folder, time_s, trace_steps, kernels))
    )
