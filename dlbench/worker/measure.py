"""Measurement of one case in one process: build, warm up, start meters, time steps, stop meters, check."""

import dataclasses
import math
import socket
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dlbench.errors import DlbenchError, InvalidMeasurement
from dlbench.results.records import SHARED_FACTS, Measurement, Outcome, System
from dlbench.stats import step_time_drift
from dlbench.suites.case import Case, Protocol
from dlbench.worker import loader_limits, memory
from dlbench.worker.counting.case_work import count_case_flop
from dlbench.worker.devices import amd_pci_address, clock_for_device, device_name, device_uuid, find_device
from dlbench.worker.failures import classify_failure, out_of_memory_text
from dlbench.worker.fork_check import exit_if_forked, require_no_fork, times_forked
from dlbench.worker.machine.system import describe_system, load_average
from dlbench.worker.meters.device_watch import DeviceWatch, health_of_watched_device
from dlbench.worker.meters.energy import EnergyMeter, open_meter
from dlbench.worker.meters.held_limits import hold_limits, restore_limits
from dlbench.worker.meters.host_watch import HostWatch
from dlbench.worker.meters.reading import EnergyReading
from dlbench.worker.progress import enter_phase
from dlbench.worker.ranks.context import RankContext
from dlbench.worker.stopping import WARMUP_GROWTH, WINDOW_GROWTH, SlowestRankRule, WarmupRule, WindowRule
from dlbench.worker.timing import NO_LIMIT, Clock, TimedWindow, no_garbage_collection, run_window, time_calls_by_host
from dlbench.worker.workload import Workload, build_workload

#: Number of last warm-up steps whose median is the expected step time of the window.
NUM_ESTIMATE_STEPS = 50
#: Share of checks with an idle device above which the host limits the step.
HOST_BOUND_SHARE = 0.5


@dataclass(frozen=True)
class Warmup:
    """Discarded warm-up steps [s], and whether the drift test ended them."""

    step_s: tuple[float, ...]
    steady: bool
    warnings: tuple[str, ...] = ()

    @property
    def next_step_estimate_s(self) -> float:
        """Expected time of the next steps [s]."""
        return statistics.median(self.step_s[-NUM_ESTIMATE_STEPS:])


def measure(
    case: Case, context: RankContext, import_s: float | None = None, known: Mapping[str, Any] | None = None
) -> Outcome:
    """Measure `case`; the status is ok, or unstable if a limit ended the window.

    Args:
        known: what an earlier process of the case found that is the same in every process (`records.reusable_facts`);
            the passes that would find it once more are left out.

    Raises:
        DeviceUnavailable: the device of the case is not available.
        InvalidMeasurement: loss or outputs are not finite, or the computation differs from the case.
        torch.OutOfMemoryError, RuntimeError, MemoryError: out of memory (see `failures.classify_failure`).
    """
    load_before = load_average()
    device = find_device(case, context.local_rank)
    if case.power_cap_w or case.clock_mhz:
        enter_phase("limits")
    held = hold_limits(case, device_uuid(device))
    try:
        measured = _measure_on_device(device, case, context, import_s, known)
    finally:
        left = restore_limits(held)
    system = describe_system(device, load_before)
    status = "ok" if measured.stop_reason == "target" else "unstable"
    return Outcome(status, None, ((system, _add_facts_and_warnings(measured, {"warnings": left})),))


def _measure_on_device(
    device: torch.device, case: Case, context: RankContext, import_s: float | None, known: Mapping[str, Any] | None
) -> Measurement:
    """Measure `case` on the device, whose limits are set."""
    clock = clock_for_device(device)
    watch = DeviceWatch(device_uuid(device), amd_pci_address(device))
    host = HostWatch()
    meter = open_case_meter(case, device)

    enter_phase("build")
    began_s = time.perf_counter()
    workload = build_workload(case, device, context)
    clock.synchronize()
    build_s = time.perf_counter() - began_s

    if workload.loader is not None:
        host.helpers = workload.loader.process_ids
    with workload.inference_context():
        if case.cuda_graph == "on":
            enter_phase("capture")
            workload.capture_cuda_graph()
        warmup = _warm_up(workload, clock, meter, watch, context)
        window, reading, loss_first, loss_last = _measure_window(workload, clock, meter, watch, host, warmup, context)
    measurement = Measurement(
        rank=context.rank,
        local_rank=context.local_rank,
        world_size=context.world_size,
        device_name=device_name(device),
        device_uuid=device_uuid(device),
        **_window_fields(window, clock, warmup),
        import_s=import_s,
        build_s=build_s,
        parameters=workload.num_parameters(),
        sample_unit=workload.built.task.sample_unit,
        items_per_sample=workload.built.items_per_sample,
        **_energy_fields(reading, meter, window),
        **watch.window_facts(reading.trace.rows_between(window.opened_at_s, window.closed_at_s)),
        **memory.read_memory_peaks(device),
        **host.window_facts(),
        loss_first=loss_first,
        loss_last=loss_last,
    )
    measurement = _add_facts_and_warnings(measurement, _communication_fields(workload, clock, context, window))
    if workload.loader is not None:
        enter_phase("loader")
        with workload.inference_context(), workload.without_gradient_sync():
            loaded = loader_limits.measure_loader_limits(workload, workload.loader, clock, host.helpers_s)
        measurement = _add_facts_and_warnings(measurement, loaded)
    host.subtract_peer_ranks(context.all_gather(host.own_cpu_use()))
    enter_phase("check")
    checked = {"warnings": (*workload.warnings, *_check_workload(workload, each_operation=not known))}
    measurement = _add_facts_and_warnings(measurement, checked)
    if known:
        measurement = _add_facts_and_warnings(measurement, _reuse_known_facts(measurement, known))
    else:
        enter_phase("memory")
        measurement = _add_facts_and_warnings(measurement, _memory_facts(workload))
        if context.rank == 0:  # the same for all ranks
            enter_phase("flop")
            measurement = _add_facts_and_warnings(measurement, count_case_flop(case))
    waits_itself, settings = workload.scaler is not None, workload.settings
    if case.protocol.fingerprint == "on":
        enter_phase("fingerprint")
        workload.release_step_state()
        del workload  # the device may have no room for two
        measurement = _add_facts_and_warnings(measurement, _fingerprint_fields(case, device))
    enter_phase("system")
    if settings is not None:
        settings.apply()  # counting and the fingerprint have built the network again
    warnings = (*_timing_warnings(warmup, window, waits_itself), *warmup.warnings, *reading.warnings)
    warnings += (*watch.warnings(), *host.warnings(), *measurement.warnings)
    return dataclasses.replace(measurement, warnings=warnings)


def describe_failed_rank(case: Case, context: RankContext) -> tuple[tuple[System, Measurement], ...]:
    """Return the system of a failed case, with a measurement of nothing but the device's errors."""
    device = find_device(case, context.local_rank)
    found = Measurement(context.rank, context.local_rank, context.world_size, device_name(device), device_uuid(device))
    return ((describe_system(device, None), dataclasses.replace(found, **health_of_watched_device())),)


def open_case_meter(case: Case, device: torch.device) -> EnergyMeter:
    """Open the energy meter of the device, as the protocol of the case asks for."""
    name = device_name(device) or ""
    return open_meter(case.protocol.energy, device.type, device_uuid(device), amd_pci_address(device), name)


def _warm_up(workload: Workload, clock: Clock, meter: EnergyMeter, watch: DeviceWatch, context: RankContext) -> Warmup:
    """Run steps until the step time no longer falls; measure idle power after the first, with all data in place."""
    protocol = workload.case.protocol
    enter_phase("first step")
    first_s = _time_first_step(workload, clock)
    workload.require_finite_result("the first step")
    if workload.captured is None:  # a graph allocates when it is captured
        memory.reset_memory_peaks(workload.device)
    enter_phase("idle")
    context.barrier()
    meter.measure_idle(protocol.idle_time_s)
    enter_phase("warmup")
    second_s = time_calls_by_host(workload.step, clock)
    window = run_window(
        workload.step,
        clock,
        SlowestRankRule(WarmupRule(protocol, watch.temperature_c), context.all_gather),
        step_estimate_s=second_s,
        first_look_s=protocol.warmup_min_time_s,
        cap_s=protocol.warmup_max_time_s,
        max_steps=NO_LIMIT,
        growth=WARMUP_GROWTH,
        broadcast=context.broadcast if context.group else None,
    )
    steady = window.stop_reason in ("steady", "cool")
    return Warmup((first_s, second_s, *window.step_s), steady, _temperature_warnings(protocol, watch.temperature_c()))


def _temperature_warnings(protocol: Protocol, temperature_c: float | None) -> tuple[str, ...]:
    """Return a warning if the warm-up ended at a lower temperature than asked for, or at an unknown one."""
    wanted_c = protocol.warmup_until_c
    if not wanted_c or (temperature_c is not None and temperature_c >= wanted_c):
        return ()
    reached = "the temperature is unknown" if temperature_c is None else f"the device reached {temperature_c:.0f} °C"
    return (f"not_warm: {reached}; protocol.warmup_until_c requires {wanted_c:.0f} °C.",)


def _time_first_step(workload: Workload, clock: Clock) -> float:
    """Time of the first step [s]. Raises InvalidMeasurement if the network fails on inputs of its `input_shape`."""
    try:
        return time_calls_by_host(workload.step, clock)
    except Exception as error:  # users' networks may raise anything
        from dlbench.models.external import outputs_on_meta  # imports torchvision, which takes seconds

        built = workload.built
        inputs = tuple(tensor.to("meta") for tensor in built.make_batch(2, "cpu")[0])
        try:
            outputs_on_meta(built.module, inputs)
        except Exception:
            raise InvalidMeasurement(
                f"model '{built.name}' fails on inputs of its input_shape "
                f"{built.input_shape}: {classify_failure(error)[1]}; "
                "if it needs another shape, set input_shape of the network or its factory"
            ) from error
        raise  # the shape is not the cause


def _measure_window(
    workload: Workload,
    clock: Clock,
    meter: EnergyMeter,
    watch: DeviceWatch,
    host: HostWatch,
    warmup: Warmup,
    context: RankContext,
) -> tuple[TimedWindow, EnergyReading, float | None, float | None]:
    """Run the window with meters; return its energy, and the loss before and after."""
    protocol = workload.case.protocol
    loss_first = workload.read_loss()
    watch.read_before_window()
    # Collect garbage before the meter starts: the device would idle meanwhile.
    exit_if_forked()
    with no_garbage_collection():
        context.barrier()
        enter_phase("window")
        fork_count_before = times_forked()
        meter.start()
        host.read_before_window()
        if workload.loader is not None:
            workload.loader.reset_waiting_time()
        window = run_window(
            workload.step,
            clock,
            SlowestRankRule(WindowRule(protocol), context.all_gather),
            step_estimate_s=warmup.next_step_estimate_s,
            first_look_s=protocol.min_time_s,
            cap_s=protocol.max_time_s,
            max_steps=protocol.max_steps,
            growth=WINDOW_GROWTH,
            broadcast=context.broadcast if context.group else None,
        )
        host.read_after_window()
    if workload.loader is None:
        require_no_fork(fork_count_before)
    else:
        # Processes of the loader belong to the case.
        workload.loader.store_window_waiting_time()
    watch.read_after_window()
    reading = meter.stop(window.opened_at_s, window.closed_at_s)
    loss_last = workload.read_loss()
    workload.require_finite_result(f"{len(window.step_s)} timed steps")
    return window, reading, loss_first, loss_last


def _window_fields(window: TimedWindow, clock: Clock, warmup: Warmup) -> dict[str, Any]:
    return {
        "step_s": tuple(window.step_s),
        "forward_s": tuple(window.forward_s),
        "backward_s": tuple(window.backward_s),
        "optimizer_s": tuple(window.optimizer_s),
        "phase_stride": window.phase_stride,
        "clock": clock.name,
        "window_s": window.window_s,
        "device_window_s": math.fsum(window.step_s),
        "warmup_steps": len(warmup.step_s),
        "warmup_s": math.fsum(warmup.step_s),
        "warmup_step_s": warmup.step_s,
        "first_step_s": warmup.step_s[0],
        "steady": warmup.steady,
        "stop_reason": window.stop_reason,
    }


def _energy_fields(reading: EnergyReading, meter: EnergyMeter, window: TimedWindow) -> dict[str, Any]:
    rows = reading.trace.rows_between(window.opened_at_s, window.closed_at_s)
    return {
        "energy_j": reading.energy_j,
        "energy_source": meter.source if reading.energy_j is not None else "none",
        "energy_scope": meter.scope if reading.energy_j is not None else None,
        "energy_window_s": reading.window_s,
        "energy_counter_j": reading.counter_j,
        "energy_integral_j": reading.integral_j,
        "energy_module_j": reading.module_j,
        "energy_note": reading.note,
        "idle_power_w": reading.idle_power_w,
        "power_time_s": tuple(row[0] - window.opened_at_s for row in rows),
        "power_w": tuple(row[1] for row in rows),
    }


def _communication_fields(
    workload: Workload, clock: Clock, context: RankContext, window: TimedWindow
) -> dict[str, Any]:
    """Return transport of gradients and steps without synchronisation; empty for a single process."""
    if context.group is None:
        return {}
    from dlbench.worker import gradient_sync
    from dlbench.worker.ranks import transport

    hosts = context.all_gather(socket.gethostname())
    backend = context.group.backend
    found = transport.find_transport(backend, workload.device, context.world_size, len(set(hosts)) == 1)
    step_s = statistics.median(window.step_s)
    return {
        "communicator": backend,
        "transport": found.used,
        "gradient_allreduce_s": gradient_sync.measure_gradient_all_reduce(workload, clock, context),
        "unsynced_step_s": gradient_sync.measure_unsynced_steps(workload, clock, context, step_s, window.window_s),
        "warnings": (found.warning,) if found.warning else (),
    }


def _add_facts_and_warnings(measurement: Measurement, facts: dict[str, Any]) -> Measurement:
    """Add `facts`; append their warnings to the existing ones."""
    warnings = (*measurement.warnings, *facts.get("warnings", ()))
    return dataclasses.replace(measurement, **{**facts, "warnings": warnings})


def _reuse_known_facts(measurement: Measurement, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of an earlier process, except those read by this one, such as CUDA's allocator peak."""
    own = {name for name in SHARED_FACTS if getattr(measurement, name) is not None}
    facts = {name: known.get(name) for name in (*SHARED_FACTS, "facts_from") if name not in own}
    return {**facts, "warnings": tuple(known.get("warnings", ()))}


def _check_workload(workload: Workload, each_operation: bool) -> tuple[str, ...]:
    """Run `Workload.check`; if its step fails, keep the case with a warning."""
    try:
        return workload.check_work_and_precision(each_operation)
    except (RuntimeError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return (f"precision_unchecked: the step that checks the precision of each operation failed: {reason}",)


def _memory_facts(workload: Workload) -> dict[str, Any]:
    """Measure memory split and CPU allocator peak; if they run out of memory, keep the case."""
    facts: dict[str, Any] = {}
    try:
        # Without communication: a rank that runs out of memory must not block the others.
        with workload.without_gradient_sync(), workload.without_cuda_graph():
            facts.update(memory.measure_memory_split(workload))
            if workload.device.type == "cpu":
                facts["memory_allocated_peak_bytes"] = memory.cpu_allocated_peak_bytes(workload)
    except (RuntimeError, MemoryError) as error:
        reason = out_of_memory_text(error)
        if reason is None:
            raise
        facts["warnings"] = (f"memory_unknown: the extra step that measures memory failed: {reason}",)
    return facts


def _fingerprint_fields(case: Case, device: torch.device) -> dict[str, Any]:
    """Compare with fp32 on the CPU, or warn if that fails. Raises InvalidMeasurement if the result is another."""
    from dlbench.worker import fingerprint

    try:
        found = fingerprint.compare_with_reference(case, device)
    except (DlbenchError, RuntimeError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return {"warnings": (f"fingerprint_unknown: the results could not be compared with fp32 on the CPU: {reason}",)}
    found.require_agreement(case.precision)
    return {f"fingerprint_{name}": value for name, value in dataclasses.asdict(found).items()}


def _timing_warnings(warmup: Warmup, window: TimedWindow, waits_itself: bool = False) -> tuple[str, ...]:
    """Return warnings about the step times.

    Args:
        waits_itself: each step waits for the device, as with a loss scaler, which checks gradients: the host cannot
        run ahead, and host_bound does not apply.
    """
    warnings = []
    if not warmup.steady:
        warnings.append(f"not_steady: the drift test did not pass within {len(warmup.step_s)} warm-up steps.")
    if not waits_itself and window.num_idle_looks > HOST_BOUND_SHARE * window.num_looks:
        looks = f"{window.num_idle_looks} of {window.num_looks} checks"
        warnings.append(f"host_bound: in {looks} the device had finished all launched steps, so it waits for the host.")
    change = step_time_drift(window.step_s)
    if change is not None:
        warnings.append(
            f"drift: the median step time changed by {change:+.1%} from the first half of the window to the second."
        )
    return tuple(warnings)
