"""One NVIDIA device through NVML, found by UUID; readings are None if driver or permissions do not allow them.

Used by the measuring process (before and after the window) and by the sampler's (during it). Imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pynvml

#: Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h), without idle: an idle device is not throttled.
THROTTLE_NAMES = {
    0x002: "applications_clocks",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake",
    0x100: "display_clocks",
    0x200: "board_limit",
    0x400: "reliability",
}

#: Kind and time of an ECC counter -> NVML's codes of them.
_ECC_COUNTERS = {
    ("corrected", "volatile"): (0, 0),
    ("uncorrected", "volatile"): (1, 0),
    ("corrected", "aggregate"): (0, 1),
    ("uncorrected", "aggregate"): (1, 1),
}
#: A device in a loop of errors must not fill the record.
MAX_XIDS = 100


class MeterUnavailable(Exception):
    """A meter without reading, with the reason. Handled internally, never shown as an error."""


@dataclass(frozen=True)
class DeviceState:
    """Clocks, temperature, limits and memory at one time; None if unknown."""

    sm_clock_mhz: float | None
    memory_clock_mhz: float | None
    sm_clock_max_mhz: float | None
    temperature_c: float | None
    power_limit_w: float | None
    throttle_bits: int | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None


class NvmlDevice:
    """The device with this `uuid`, from torch (without prefix) or NVML ("GPU-...").

    Raises:
        MeterUnavailable: no NVML, no such device, or a MIG instance (NVML measures only whole GPUs).
    """

    def __init__(self, uuid: str) -> None:
        try:
            pynvml.nvmlInit()
            self._handle = _find_handle(uuid)
            if _is_mig(self._handle):
                raise MeterUnavailable("the device is a MIG instance; NVML can only meter the whole GPU")
        except pynvml.NVMLError as error:
            raise MeterUnavailable(f"NVML: {error} (device {uuid})") from error

    def energy_j(self) -> float:
        """Read the energy of the device since the driver was loaded [J]; NVMLError if it cannot be read."""
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3

    def power_w(self) -> float:
        """Read the power now [W]: the instantaneous field; the plain one averages 1 s from Ampere on (not GA100)."""
        instant_w = self._read_power_field(pynvml.NVML_POWER_SCOPE_GPU)
        return instant_w if instant_w is not None else float(pynvml.nvmlDeviceGetPowerUsage(self._handle)) / 1e3

    def module_power_w(self) -> float | None:
        """Read the power of the whole module with its CPU [W]; None except on superchips."""
        return self._read_power_field(pynvml.NVML_POWER_SCOPE_MODULE)

    def read_state(self) -> DeviceState:
        handle = self._handle
        memory = read_or_none(pynvml.nvmlDeviceGetMemoryInfo, handle)
        limit_mw = read_or_none(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        return DeviceState(
            sm_clock_mhz=self.sm_clock_mhz(),
            memory_clock_mhz=read_or_none(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
            sm_clock_max_mhz=read_or_none(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
            temperature_c=self.temperature_c(),
            power_limit_w=None if limit_mw is None else limit_mw / 1e3,
            throttle_bits=self.throttle_bits(),
            memory_used_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
        )

    def sm_clock_mhz(self) -> float | None:
        clock_mhz: float | None = read_or_none(pynvml.nvmlDeviceGetClockInfo, self._handle, pynvml.NVML_CLOCK_SM)
        return clock_mhz

    def temperature_c(self) -> float | None:
        celsius: float | None = read_or_none(pynvml.nvmlDeviceGetTemperature, self._handle, pynvml.NVML_TEMPERATURE_GPU)
        return celsius

    def throttle_bits(self) -> int | None:
        bits: int | None = read_or_none(pynvml.nvmlDeviceGetCurrentClocksEventReasons, self._handle)
        if bits is None:
            # Older name of the same call, the only one in drivers before 535.
            bits = read_or_none(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, self._handle)
        return bits

    def ecc_errors(self) -> dict[tuple[str, str], int | None]:
        """Read the total of ECC errors by kind (corrected, uncorrected) and time (volatile, aggregate)."""
        read = pynvml.nvmlDeviceGetTotalEccErrors
        return {(k, t): read_or_none(read, self._handle, *codes) for (k, t), codes in _ECC_COUNTERS.items()}

    def remapped_rows(self) -> tuple[int, int, int, int] | None:
        """Read rows remapped because of corrected and of uncorrected errors, and whether one is pending or failed."""
        rows: tuple[int, int, int, int] | None = read_or_none(pynvml.nvmlDeviceGetRemappedRows, self._handle)
        return rows

    def xid_events(self) -> XidEvents | None:
        """Watch for Xid events from now on; None where the driver or its permissions do not allow it."""
        try:
            return XidEvents(self._handle)
        except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError):
            return None

    def power_limit_range_w(self) -> tuple[float, float] | None:
        """Read the lowest and highest power limit that the device accepts [W]."""
        limits = read_or_none(pynvml.nvmlDeviceGetPowerManagementLimitConstraints, self._handle)
        return None if limits is None else (limits[0] / 1e3, limits[1] / 1e3)

    def power_limit_w(self) -> float:
        """Read the power limit that was set last [W]; NVMLError if it cannot be read."""
        return float(pynvml.nvmlDeviceGetPowerManagementLimit(self._handle)) / 1e3

    def set_power_limit(self, limit_w: float) -> None:
        """Set the power limit [W]; NVMLError without permission."""
        pynvml.nvmlDeviceSetPowerManagementLimit(self._handle, round(1e3 * limit_w))

    def sm_clock_range_mhz(self) -> tuple[float, float] | None:
        """Read the lowest and highest SM clock that the device accepts [MHz]."""
        memory_mhz = read_or_none(pynvml.nvmlDeviceGetMaxClockInfo, self._handle, pynvml.NVML_CLOCK_MEM)
        clocks = (
            read_or_none(pynvml.nvmlDeviceGetSupportedGraphicsClocks, self._handle, memory_mhz) if memory_mhz else None
        )
        return (min(clocks), max(clocks)) if clocks else None

    def lock_sm_clock(self, mhz: int) -> None:
        """Hold the SM clock at `mhz` at most and at least; NVMLError without permission."""
        pynvml.nvmlDeviceSetGpuLockedClocks(self._handle, mhz, mhz)

    def unlock_sm_clock(self) -> None:
        """Let the device choose its SM clock again."""
        pynvml.nvmlDeviceResetGpuLockedClocks(self._handle)

    def process_ids(self) -> list[int] | None:
        """Return the processes with a context on the device, as host process ids (differ inside a container)."""
        processes = read_or_none(pynvml.nvmlDeviceGetComputeRunningProcesses, self._handle)
        return None if processes is None else [int(p.pid) for p in processes]

    def has_nvlink(self) -> bool:
        """Whether a link to another GPU is active."""
        links = range(pynvml.NVML_NVLINK_MAX_LINKS)
        return any(read_or_none(pynvml.nvmlDeviceGetNvLinkState, self._handle, link) for link in links)

    def _read_power_field(self, scope: int) -> float | None:
        values = read_or_none(
            pynvml.nvmlDeviceGetFieldValues, self._handle, [(pynvml.NVML_FI_DEV_POWER_INSTANT, scope)]
        )
        if not values or values[0].nvmlReturn != pynvml.NVML_SUCCESS:
            return None
        return float(values[0].value.uiVal) / 1e3


class XidEvents:
    """Xid numbers that the driver reports about one device, from the making of this object on."""

    def __init__(self, handle: Any) -> None:
        self._events = pynvml.nvmlEventSetCreate()
        self._numbers: list[int] = []
        try:
            pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, self._events)
        except pynvml.NVMLError:
            pynvml.nvmlEventSetFree(self._events)
            raise

    def read(self) -> tuple[int, ...]:
        """Return all numbers so far, in order; does not wait."""
        while (event := read_or_none(pynvml.nvmlEventSetWait_v2, self._events, 0)) is not None:
            self._numbers.append(int(event.eventData))
            if len(self._numbers) >= MAX_XIDS:
                break
        return tuple(self._numbers)


def read_or_none(read: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of `read`; None if NVML refuses it or the driver is too old."""
    try:
        return read(*arguments)
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError):
        return None


def throttle_names(bits: int | None) -> tuple[str, ...]:
    """Return the names of the throttle reasons in `bits`, in order."""
    return tuple(name for bit, name in THROTTLE_NAMES.items() if bits is not None and bits & bit)


def count_other_processes(before: list[int] | None, after: list[int] | None) -> int | None:
    """Count other processes on the device, from the lists before and after this process created its context.

    If the own id is not in the later list (container ids differ from host ids), one process of each list counts as
    this one: selecting a device creates a context at once, so that both lists may contain this process.
    """
    if before is None or after is None:
        return None
    if os.getpid() in after:
        return max(len(set(pids) - {os.getpid()}) for pids in (before, after))
    return max(0, len(before) - 1, len(after) - 1)


def driver_version() -> str | None:
    """Return the version of the NVIDIA driver; None without driver."""
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def vbios_version(uuid: str) -> str | None:
    """Return the version of the device's firmware; None where NVML does not name it."""
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlDeviceGetVbiosVersion(_find_handle(uuid)))
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError):
        return None


def _find_handle(uuid: str) -> Any:
    if uuid.startswith(("GPU-", "MIG-")):
        return pynvml.nvmlDeviceGetHandleByUUID(uuid)
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument):
        return pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")


def _is_mig(handle: Any) -> bool:
    """Whether the device is a MIG instance, or a GPU divided into instances."""
    if read_or_none(pynvml.nvmlDeviceIsMigDeviceHandle, handle):
        return True
    mode = read_or_none(pynvml.nvmlDeviceGetMigMode, handle)
    return mode is not None and mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE
