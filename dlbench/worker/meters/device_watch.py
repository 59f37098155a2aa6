"""State of the device before, during and after the window, and resulting warnings."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dlbench.results.records import CHOSEN_CLOCK_REASONS, POWER_CAP_REASON
from dlbench.worker.meters import nvml
from dlbench.worker.meters.amd import AmdDevice
from dlbench.worker.meters.device_health import UNKNOWN_HEALTH, health_facts, health_warnings, read_health
from dlbench.worker.meters.power_sampler import SampleRow

#: The watch of this process, for the record of a case that fails.
_current_watch: DeviceWatch | None = None


def health_of_watched_device() -> dict[str, Any]:
    """Return the errors of the watched device, as `DeviceWatch.current_health`; empty without a watch."""
    return {} if _current_watch is None else _current_watch.current_health()


class DeviceWatch:
    """Watch of one device around the window; all values are None without NVML or amdsmi.

    Create it after selecting the device but before using it.
    """

    def __init__(self, uuid: str | None, amd_address: str | None = None) -> None:
        global _current_watch
        _current_watch = self
        self._before: nvml.DeviceState | None = None
        self._after: nvml.DeviceState | None = None
        self._reasons: Counter[str] = Counter()
        self._num_looks = 0
        self._others: int | None = None
        self._device: nvml.NvmlDevice | AmdDevice | None = None
        self._xids: tuple[int, ...] | None = None
        self._health = self._health_after = UNKNOWN_HEALTH
        if uuid is not None or amd_address is not None:
            try:
                self._device = AmdDevice(amd_address) if amd_address else nvml.NvmlDevice(uuid or "")
            except nvml.MeterUnavailable:
                return
            self._processes_before = self._device.process_ids()
            self._xid_events = self._device.xid_events()
            self._health = self._health_after = read_health(self._device)

    def read_before_window(self) -> None:
        """Read the state right before the window."""
        if self._device is not None:
            self._before = self._device.read_state()

    def read_after_window(self) -> None:
        """Read the state right after the window."""
        if self._device is not None:
            self._after = self._device.read_state()
            self._others = nvml.count_other_processes(self._processes_before, self._device.process_ids())
            self._read_health(self._device)

    def temperature_c(self) -> float | None:
        """Read the temperature now; None without NVML."""
        return None if self._device is None else self._device.temperature_c()

    def current_health(self) -> dict[str, Any]:
        """Return the device's errors until now as fields of `Measurement`, with warnings: for a case that failed."""
        if self._device is None:
            return {}
        self._read_health(self._device)
        return {**self._health_facts(), "warnings": self._health_warnings()}

    def _read_health(self, device: nvml.NvmlDevice | AmdDevice) -> None:
        self._health_after = read_health(device)
        self._xids = self._xid_events.read() if self._xid_events else None

    def _health_facts(self) -> dict[str, Any]:
        return {**health_facts(self._health, self._health_after), "xid_events": self._xids}

    def _health_warnings(self) -> tuple[str, ...]:
        return health_warnings(self._health, self._health_after, self._xids)

    def window_facts(self, rows: list[SampleRow]) -> dict[str, Any]:
        """Return fields of `Measurement` from both states and the sampler's `rows` in the window."""
        before, after = self._before, self._after
        if before is None or after is None:
            return {}
        clocks = [row[3] for row in rows if row[3] is not None]
        read = (before.temperature_c, after.temperature_c, *(row[4] for row in rows))
        temperatures = [celsius for celsius in read if celsius is not None]
        # The device is idle before the window: throttle reasons then do not apply to the window.
        looks = [
            nvml.throttle_names(bits) for bits in (*(row[5] for row in rows), after.throttle_bits) if bits is not None
        ]
        self._num_looks = len(looks)
        self._reasons = Counter(name for names in looks for name in names)
        return {
            "sm_clock_before_mhz": before.sm_clock_mhz,
            "sm_clock_min_mhz": min(clocks, default=None),
            "sm_clock_after_mhz": after.sm_clock_mhz,
            "sm_clock_max_mhz": after.sm_clock_max_mhz,
            "memory_clock_mhz": after.memory_clock_mhz,
            "temperature_before_c": before.temperature_c,
            "temperature_max_c": max(temperatures, default=None),
            "temperature_after_c": after.temperature_c,
            "power_limit_w": after.power_limit_w,
            "throttle_reasons": tuple(name for name in nvml.THROTTLE_NAMES.values() if name in self._reasons),
            "other_processes": self._others,
            "memory_device_used_bytes": after.memory_used_bytes,
            "memory_device_total_bytes": after.memory_total_bytes,
            **self._health_facts(),
        }

    def warnings(self) -> tuple[str, ...]:
        """Return warnings as "code: sentence"; call after `facts`."""
        warnings = []
        slowed = [name for name in self._reasons if name not in CHOSEN_CLOCK_REASONS]
        for code, names in (
            ("throttled", [name for name in slowed if name != POWER_CAP_REASON]),
            ("power_capped", [name for name in slowed if name == POWER_CAP_REASON]),
        ):
            if names:
                shares = [f"{name} in {self._reasons[name]} of {self._num_looks} samples" for name in names]
                warnings.append(f"{code}: {', '.join(shares)}.")
        if self._others:
            warnings.append(f"shared_device: {self._others} other process(es) used the device.")
        return (*warnings, *self._health_warnings())
