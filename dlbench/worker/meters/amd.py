"""One AMD device through amdsmi, found by its PCI address; readings are None where amdsmi does not give them.

Written against the documented interface of amdsmi 6 and 7, and untried on a device. Imports no torch.
"""

from collections.abc import Callable
from typing import Any

from dlbench.worker.meters.nvml import DeviceState, MeterUnavailable, XidEvents

#: On a module of two dies the first reports the power of both, and the second none.
TWO_DIE_MODEL = "MI250"


class AmdDevice:
    """The device at this `pci_address` ("0000:c1:00.0"). Raises MeterUnavailable without amdsmi or such a device."""

    def __init__(self, pci_address: str) -> None:
        try:
            import amdsmi
        except (ImportError, OSError, KeyError) as error:  # it looks for its library when it is imported
            raise MeterUnavailable(f"amdsmi: {error}") from error
        self._smi: Any = amdsmi
        try:
            amdsmi.amdsmi_init()
            handles = {amdsmi.amdsmi_get_gpu_device_bdf(h).lower(): h for h in amdsmi.amdsmi_get_processor_handles()}
        except Exception as error:  # its own classes, which differ between versions
            raise MeterUnavailable(f"amdsmi: {error}") from error
        if pci_address.lower() not in handles:
            found = ", ".join(handles) or "none"
            raise MeterUnavailable(f"amdsmi has no device at {pci_address}; devices: {found}")
        self._handle = handles[pci_address.lower()]

    def power_w(self) -> float | None:
        """Read the power now [W]; None on the second die of a module.

        MI300 returns the current power and "N/A" for the average; older devices the reverse.
        """
        info = self._call_amdsmi("amdsmi_get_power_info") or {}
        powers = [_number_or_none(info.get(name)) for name in ("current_socket_power", "average_socket_power")]
        return next((power for power in powers if power), None)

    def read_state(self) -> DeviceState:
        """Read clocks, temperature, power limit and memory in use."""
        memory = self._call_amdsmi("amdsmi_get_gpu_vram_usage") or {}
        limit_uw = _number_or_none((self._call_amdsmi("amdsmi_get_power_cap_info") or {}).get("power_cap"))
        used_mb, total_mb = (_number_or_none(memory.get(name)) for name in ("vram_used", "vram_total"))
        return DeviceState(
            sm_clock_mhz=self.sm_clock_mhz(),
            memory_clock_mhz=self._read_clock_mhz("MEM", "clk"),
            sm_clock_max_mhz=self._read_clock_mhz("GFX", "max_clk"),
            temperature_c=self.temperature_c(),
            power_limit_w=None if limit_uw is None else limit_uw / 1e6,
            throttle_bits=None,
            memory_used_bytes=None if used_mb is None else int(used_mb * 2**20),
            memory_total_bytes=None if total_mb is None else int(total_mb * 2**20),
        )

    def sm_clock_mhz(self) -> float | None:
        return self._read_clock_mhz("GFX", "clk")

    def temperature_c(self) -> float | None:
        """Read the temperature of the hottest spot, or of the edge where there is no such sensor [°C]."""
        metric = self._amdsmi_constant("AmdSmiTemperatureMetric", "CURRENT")
        for kind in ("HOTSPOT", "EDGE"):
            sensor = self._amdsmi_constant("AmdSmiTemperatureType", kind)
            if (celsius := _number_or_none(self._call_amdsmi("amdsmi_get_temp_metric", sensor, metric))) is not None:
                return celsius
        return None

    def process_ids(self) -> list[int] | None:
        """Return the processes that use the device."""
        found = self._call_amdsmi("amdsmi_get_gpu_process_list")
        return None if found is None else [int(one["pid"]) for one in found if isinstance(one, dict) and "pid" in one]

    def ecc_errors(self) -> dict[tuple[str, str], int | None]:
        """Read the ECC errors since the driver was loaded."""
        counts = self._call_amdsmi("amdsmi_get_gpu_total_ecc_count") or {}
        names = {"corrected": "correctable_count", "uncorrected": "uncorrectable_count"}
        found = {kind: _number_or_none(counts.get(name)) for kind, name in names.items()}
        return {(kind, "volatile"): None if count is None else int(count) for kind, count in found.items()}

    def remapped_rows(self) -> tuple[int, int, int, int] | None:
        """Return None: AMD retires pages, not rows."""
        return None

    def xid_events(self) -> XidEvents | None:
        """Return None: Xids are NVIDIA's."""
        return None

    def _read_clock_mhz(self, kind: str, name: str) -> float | None:
        found = self._call_amdsmi("amdsmi_get_clock_info", self._amdsmi_constant("AmdSmiClkType", kind)) or {}
        return _number_or_none(found.get(name))

    def _amdsmi_constant(self, kind: str, name: str) -> Any:
        """Return a constant of amdsmi; None in a version without it."""
        return getattr(getattr(self._smi, kind, None), name, None)

    def _call_amdsmi(self, function: str, *arguments: Any) -> Any:
        """Return what a function of amdsmi gives for the device; None if it refuses or is missing."""
        call: Callable[..., Any] | None = getattr(self._smi, function, None)
        try:
            return None if call is None else call(self._handle, *arguments)
        except Exception:  # its own classes, which differ between versions
            return None


def _number_or_none(value: object) -> float | None:
    """Return a number as such; amdsmi gives "N/A" for what it does not know."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
