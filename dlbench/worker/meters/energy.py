"""Energy of the window [J]: choice of meter, its time span, and when no energy is reported.

A meter is opened before the window and closed after it; nothing is read by this process in between.

**NVML counter.** It moves only every tick (about 100 ms), so both of its readings are taken at the moment it moves: the
meter polls for a tick just before the window opens (while the device is idle for at most one tick) and again after it
closed. What it counted belongs to its own time, from tick to tick, which is longer than the window by a tail: what is
left of the last tick. The tail's energy is taken off with the power of the full tick that follows it, read from the
same counter. The lead, from the tick to the opening, is taken off at the idle power where that is known: about a
millisecond alone, among several ranks until the last of them has seen its tick. The result belongs to the window:
energy_window_s is the window, and average power is the quotient of the two. What can be wrong is the power of lead and
tail, in which the device clocks up and down: off by a fifth of the load's for a whole tick, each makes 0.4 % of 5 s.

**Sampled power.** A separate process samples it every 50 ms; its trapezoidal integral over the window is the fallback
where there is no counter, and the cross-check where there is one.

**RAPL.** Its counters move every millisecond: they are read at both ends of the window, and need no alignment.

What cannot be known is None with its reason in `note` or a warning; a meter that fails on the way never ends a case.
"""

import time
from dataclasses import dataclass, replace
from typing import Protocol

import pynvml

from dlbench.worker.meters.amd import TWO_DIE_MODEL
from dlbench.worker.meters.nvml import MeterUnavailable, NvmlDevice
from dlbench.worker.meters.power_trace import PowerSampler, PowerTrace
from dlbench.worker.meters.reading import (
    USUAL_TICK_S,
    EnergyReading,
    check_energy_window_length,
    compare_counter_with_integral,
    drop_nonpositive_energy,
    positive_or_none,
    remove_energy,
)

#: A counter without change for this time is broken [s].
TICK_TIMEOUT_S = 3.0
POLL_S = 0.001


class EnergyMeter(Protocol):
    """Meter of the energy between `start` and `stop`; the caller passes the ends of the window to `stop`."""

    @property
    def source(self) -> str:
        """nvml_counter, nvml_power, rapl, amdsmi or none."""

    @property
    def scope(self) -> str | None:
        """device, module, package, or None without a meter."""

    def measure_idle(self, time_s: float) -> None:
        """Measure idle power for `time_s`; return at once without a meter."""

    def start(self) -> None:
        """Return at the moment from which the meter counts; the window opens right afterwards."""

    def stop(self, opened_s: float, closed_s: float) -> EnergyReading:
        """Return the energy from `opened_s` to `closed_s` (perf_counter), and close the meter."""


@dataclass(frozen=True)
class NoMeter:
    """Placeholder without readings, with the reason."""

    reason: str
    source: str = "none"
    scope: str | None = None

    def measure_idle(self, time_s: float) -> None:
        pass

    def start(self) -> None:
        pass

    def stop(self, opened_s: float, closed_s: float) -> EnergyReading:
        return EnergyReading(note=self.reason)


class SampledMeter:
    """Energy as the integral of sampled power: AMD devices, and NVIDIA's before Volta."""

    def __init__(self, sampler: PowerSampler, source: str, note: str | None = None, scope: str = "device") -> None:
        self.source = source
        self.scope = scope
        self._note = note
        self._sampler = sampler
        self._rest_s = (0.0, 0.0)

    def measure_idle(self, time_s: float) -> None:
        begin_s = time.perf_counter()
        time.sleep(time_s)
        self._rest_s = (begin_s, time.perf_counter())

    def start(self) -> None:
        pass

    def stop(self, opened_s: float, closed_s: float) -> EnergyReading:
        trace = self._sampler.stop()
        integral_j = trace.integrate_power_j(opened_s, closed_s)
        idle_j = trace.integrate_power_j(*self._rest_s)
        reading = EnergyReading(
            energy_j=integral_j,
            window_s=closed_s - opened_s,
            integral_j=integral_j,
            module_j=trace.integrate_module_power_j(opened_s, closed_s),
            idle_power_w=None if idle_j is None else positive_or_none(idle_j / (self._rest_s[1] - self._rest_s[0])),
            note=self._note,
            trace=trace,
        )
        if integral_j is None:
            return remove_energy(reading, f"meter_lost: {trace.error or 'the power samples have a gap'}.")
        return drop_nonpositive_energy(check_energy_window_length(reading, USUAL_TICK_S))


@dataclass(frozen=True)
class CounterTick:
    """Time of a counter change, and its new value."""

    at_s: float
    energy_j: float


class NvmlCounterMeter:
    """Energy from the device's counter, cross-checked by sampled power."""

    source = "nvml_counter"
    scope = "device"

    def __init__(self, device: NvmlDevice, sampler: PowerSampler | None) -> None:
        self._device = device
        self._sampler = sampler
        self._idle_w: float | None = None
        self._start: CounterTick | None = None
        self._failure: str | None = None

    def measure_idle(self, time_s: float) -> None:
        if time_s <= 0:
            return
        try:
            first = wait_for_counter_tick(self._device)
            time.sleep(time_s)
            last = wait_for_counter_tick(self._device)
        except (pynvml.NVMLError, MeterUnavailable):
            return
        if last.energy_j > first.energy_j:
            self._idle_w = (last.energy_j - first.energy_j) / (last.at_s - first.at_s)

    def start(self) -> None:
        try:
            self._start = wait_for_counter_tick(self._device)
        except (pynvml.NVMLError, MeterUnavailable) as error:
            self._failure = str(error)

    def stop(self, opened_s: float, closed_s: float) -> EnergyReading:
        ends: tuple[CounterTick, CounterTick] | None = None
        if self._failure is None:
            try:
                ends = wait_for_counter_tick(self._device), wait_for_counter_tick(self._device)
            except (pynvml.NVMLError, MeterUnavailable) as error:
                self._failure = str(error)
        trace = self._sampler.stop() if self._sampler else PowerTrace(error="not started")
        reading = EnergyReading(
            window_s=closed_s - opened_s,
            integral_j=trace.integrate_power_j(opened_s, closed_s),
            module_j=trace.integrate_module_power_j(opened_s, closed_s),
            idle_power_w=self._idle_w,
            trace=trace,
        )
        if ends is None or self._start is None:
            return remove_energy(reading, f"meter_lost: the energy counter could not be read: {self._failure}.")
        return self._checked_energy_reading(reading, self._start, *ends, opened_s, closed_s)

    def _checked_energy_reading(
        self,
        reading: EnergyReading,
        start: CounterTick,
        end: CounterTick,
        after: CounterTick,
        opened_s: float,
        closed_s: float,
    ) -> EnergyReading:
        if not start.energy_j <= end.energy_j <= after.energy_j:
            return remove_energy(reading, "counter_reset: the energy counter went backwards during the measurement.")
        tick_s = after.at_s - end.at_s
        tail_w = (after.energy_j - end.energy_j) / tick_s
        lead_w = self._idle_w if self._idle_w is not None else tail_w
        moved_j = end.energy_j - start.energy_j
        outside_j = tail_w * (end.at_s - closed_s) + lead_w * (opened_s - start.at_s)
        note = (
            f"the energy counter rose by {moved_j:.3f} J between two updates, {end.at_s - start.at_s:.4f} s apart; "
            f"{outside_j:.3f} J of this were used outside the window (power after the window: {tail_w:.1f} W)"
        )
        counter_j = moved_j - outside_j
        whole = replace(reading, energy_j=counter_j, counter_j=counter_j, note=note)
        return compare_counter_with_integral(drop_nonpositive_energy(check_energy_window_length(whole, tick_s)))


def wait_for_counter_tick(device: NvmlDevice) -> CounterTick:
    """Wait until the device's energy counter changes.

    Raises:
        MeterUnavailable: it does not change.
        pynvml.NVMLError: it cannot be read.
    """
    before_j = device.energy_j()
    give_up_s = time.perf_counter() + TICK_TIMEOUT_S
    while (now_j := device.energy_j()) == before_j:
        if time.perf_counter() > give_up_s:
            raise MeterUnavailable(f"the energy counter did not change for {TICK_TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)
    return CounterTick(time.perf_counter(), now_j)


def open_meter(
    choice: str, device_kind: str, uuid: str | None, pci_address: str | None, device_name: str = ""
) -> EnergyMeter:
    """Open the best meter for a device; NoMeter with the reason if there is none.

    Args:
        choice: protocol.energy.
        uuid: UUID of a CUDA device from torch.
        pci_address: address of an AMD device, such as "0000:c1:00.0"; None for NVIDIA.
        device_name: name of the device, which tells whether it shares its power reading with another one.
    """
    if choice == "none":
        return NoMeter("disabled by protocol.energy")
    try:
        if device_kind not in ("cpu", "cuda"):
            raise MeterUnavailable(f"no meter for devices of kind '{device_kind}'")
        if device_kind == "cpu":
            from dlbench.worker.meters.rapl import RaplMeter

            return RaplMeter()
        if pci_address is not None:
            two_dies = TWO_DIE_MODEL in device_name
            note = "the first die reports the power of both dies of the module" if two_dies else None
            scope = "module" if two_dies else "device"
            return SampledMeter(PowerSampler("amdsmi", pci_address), "amdsmi", note, scope)
        return _nvml_meter(uuid)
    except MeterUnavailable as error:
        return NoMeter(str(error))


def _nvml_meter(uuid: str | None) -> EnergyMeter:
    if uuid is None:
        raise MeterUnavailable("the UUID of the device is unknown, and devices are matched only by UUID")
    device = NvmlDevice(uuid)
    try:
        device.energy_j()
    except pynvml.NVMLError as error:
        note = f"sampled power, because the energy counter cannot be read: {error}"
        return SampledMeter(PowerSampler("nvml", uuid), "nvml_power", note)
    try:
        return NvmlCounterMeter(device, PowerSampler("nvml", uuid))
    except MeterUnavailable:
        return NvmlCounterMeter(device, None)
