"""Errors of an NVIDIA device before, during and after a case: ECC counts, remapped rows of its memory, Xid events.

A count is None where NVML does not give it: memory without ECC, or remapped rows before Ampere. Xids are those that the
driver reports while the case runs; NVML keeps no list of earlier ones.
"""

from collections.abc import Mapping
from typing import Any

from dlbench.worker.meters.amd import AmdDevice
from dlbench.worker.meters.nvml import NvmlDevice

#: Error counts of one device at one time, by the name of the column of `Measurement` without "_before" or "_after".
DeviceHealth = Mapping[str, int | bool | None]

#: Volatile counts start with the driver, aggregate ones are for life.
_ECC_NAMES = tuple(
    f"ecc_{kind}_{since}" for kind in ("corrected", "uncorrected") for since in ("volatile", "aggregate")
)
_ROW_NAMES = ("rows_remapped_corrected", "rows_remapped_uncorrected", "remap_pending", "remap_failed")
#: Before a device was read.
UNKNOWN_HEALTH: DeviceHealth = dict.fromkeys((*_ECC_NAMES, *_ROW_NAMES))
#: Xids of the application, not of the device: a faulty kernel, or a process that was killed.
_APPLICATION_XIDS = frozenset((13, 31, 43, 45))


def read_health(device: NvmlDevice | AmdDevice) -> DeviceHealth:
    """Read the counts of the device now."""
    counts = {f"ecc_{kind}_{since}": count for (kind, since), count in device.ecc_errors().items()}
    corrected, uncorrected, pending, failed = device.remapped_rows() or (None,) * 4
    flags = (None if pending is None else bool(pending), None if failed is None else bool(failed))
    return {**UNKNOWN_HEALTH, **counts, **dict(zip(_ROW_NAMES, (corrected, uncorrected, *flags), strict=True))}


def health_facts(before: DeviceHealth, after: DeviceHealth) -> dict[str, Any]:
    """Return the counts as fields of `Measurement`."""
    states = (("before", before), ("after", after))
    return {f"{name}_{when}": value for when, state in states for name, value in state.items()}


def health_warnings(before: DeviceHealth, after: DeviceHealth, xids: tuple[int, ...] | None) -> tuple[str, ...]:
    """Return warnings, as "code: sentence", about errors in the case and about a device that needs a repair."""
    found = []
    corrected = _count_new_errors(before, after, "ecc_corrected_volatile")
    uncorrected = _count_new_errors(before, after, "ecc_uncorrected_volatile")
    if corrected:
        found.append(f"ecc_corrected: ECC corrected {corrected} memory error(s) during the case.")
    if uncorrected:
        found.append(f"ecc_uncorrected: {uncorrected} memory error(s) during the case could not be corrected.")
    elif count := after["ecc_uncorrected_volatile"]:
        found.append(f"ecc_uncorrected: {count} uncorrected memory error(s) since the driver was loaded.")
    rows = sum(_count_new_errors(before, after, f"rows_remapped_{kind}") for kind in ("corrected", "uncorrected"))
    if rows:
        found.append(f"rows_remapped: {rows} memory row(s) were remapped during the case.")
    if after["remap_failed"]:
        found.append("rows_remapped: remapping a memory row failed; have the device replaced.")
    elif after["remap_pending"]:
        found.append("rows_remapped: a memory row waits to be remapped; reset the GPU.")
    if xids:
        numbers = ", ".join(map(str, xids))
        cause = " (of the application)" if set(xids) <= _APPLICATION_XIDS else ""
        found.append(f"xid: the NVIDIA driver reported Xid error {numbers}{cause} during the case.")
    return tuple(found)


def _count_new_errors(before: DeviceHealth, after: DeviceHealth, name: str) -> int:
    """Return how many errors came during the case; 0 if unknown, or if the counter was reset."""
    first, last = before[name], after[name]
    return 0 if first is None or last is None else max(0, last - first)
