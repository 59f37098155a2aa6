"""Errors of an NVIDIA device before, during and after a case: ECC counts, remapped rows of its memory, Xid events.

A count is None where NVML does not give it: memory without ECC, or remapped rows before Ampere. Xids are those that the
driver reports while the case runs; NVML keeps no list of earlier ones.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from dlbench.worker.meters.amd import AmdDevice
from dlbench.worker.meters.nvml import NvmlDevice

#: Xids of the application, not of the device: a faulty kernel, or a process that was killed.
_APPLICATION_XIDS = frozenset((13, 31, 43, 45))


@dataclass(frozen=True)
class DeviceHealth:
    """Error counts of one device at one time; volatile counts start with the driver, aggregate ones are for life."""

    ecc_corrected_volatile: int | None = None
    ecc_uncorrected_volatile: int | None = None
    ecc_corrected_aggregate: int | None = None
    ecc_uncorrected_aggregate: int | None = None
    rows_remapped_corrected: int | None = None  # because of corrected errors
    rows_remapped_uncorrected: int | None = None
    remap_pending: bool | None = None  # rows are replaced at the next reset
    remap_failed: bool | None = None  # no spare row was left


def read_health(device: NvmlDevice | AmdDevice) -> DeviceHealth:
    """Read the counts of the device now."""
    counts: dict[str, Any] = {f"ecc_{kind}_{since}": count for (kind, since), count in device.ecc_errors().items()}
    rows = device.remapped_rows()
    if rows is None:
        return DeviceHealth(**counts)
    corrected, uncorrected, pending, failed = rows
    return DeviceHealth(**counts, rows_remapped_corrected=corrected, rows_remapped_uncorrected=uncorrected,
                        remap_pending=bool(pending), remap_failed=bool(failed))  # fmt: skip


def health_facts(before: DeviceHealth, after: DeviceHealth) -> dict[str, Any]:
    """Return the counts as fields of `Measurement`."""
    states = (("before", before), ("after", after))
    return {f"{name}_{when}": value for when, state in states for name, value in dataclasses.asdict(state).items()}


def health_warnings(before: DeviceHealth, after: DeviceHealth, xids: tuple[int, ...] | None) -> tuple[str, ...]:
    """Return warnings, as "code: sentence", about errors in the case and about a device that needs a repair."""
    found = []
    corrected = _count_new(before, after, "ecc_corrected_volatile")
    uncorrected = _count_new(before, after, "ecc_uncorrected_volatile")
    if corrected:
        found.append(f"ecc_corrected: ECC corrected {corrected} memory error(s) during the case.")
    if uncorrected:
        found.append(f"ecc_uncorrected: {uncorrected} memory error(s) during the case could not be corrected.")
    elif after.ecc_uncorrected_volatile:
        count = after.ecc_uncorrected_volatile
        found.append(f"ecc_uncorrected: {count} uncorrected memory error(s) since the driver was loaded.")
    rows = sum(_count_new(before, after, f"rows_remapped_{kind}") for kind in ("corrected", "uncorrected"))
    if rows:
        found.append(f"rows_remapped: {rows} memory row(s) were remapped during the case.")
    if after.remap_failed:
        found.append("rows_remapped: remapping a memory row failed; have the device replaced.")
    elif after.remap_pending:
        found.append("rows_remapped: a memory row waits to be remapped; reset the GPU.")
    if xids:
        numbers = ", ".join(map(str, xids))
        cause = " (of the application)" if set(xids) <= _APPLICATION_XIDS else ""
        found.append(f"xid: the driver reported Xid {numbers}{cause} during the case.")
    return tuple(found)


def _count_new(before: DeviceHealth, after: DeviceHealth, name: str) -> int:
    """Return how many errors came during the case; 0 if unknown, or if the counter was reset."""
    first, last = getattr(before, name), getattr(after, name)
    return 0 if first is None or last is None else max(0, last - first)
