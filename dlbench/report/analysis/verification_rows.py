"""Checks of one measured row: each gives what is wrong, "" where nothing is, None where it does not apply."""

import itertools
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlbench import units
from dlbench.errors import DlbenchError
from dlbench.facts.peaks import find_device_peaks
from dlbench.suites.case import AXES, Case, Protocol, make_protocol
from dlbench.suites.catalog import CATALOG

#: A measured row: its columns, and its lists of numbers as arrays.
Row = Mapping[str, Any]
AXES_OF_A_CASE = tuple(axis for axis in AXES if axis != "repeat")
#: Fewer steps than this say little of themselves.
MIN_STEPS_TO_JUDGE = 20
#: Sums of samples differ from the window by rounding alone; a host's window holds the calls around it as well.
_SUM, _HOST = 1e-3, 0.05
#: Datasheet peaks are rounded, and boards may run above their limit for a moment.
_ABOVE_PEAK, _ABOVE_LIMIT = 1.02, 1.10
#: Sampled power misses the edges of a window.
_TRACE_TOLERANCE = 0.2
#: So many steps in a row are never equal to those of another place by chance.
_BLOCK_STEPS = 12
#: Clocks of two machines may be apart by this.
_MAX_CLOCK_OFFSET = timedelta(minutes=10)


def check_case_id(row: Row) -> str | None:
    """An axis or the protocol was edited: the id is their hash."""
    try:
        values = {axis: row[axis] for axis in AXES if row.get(axis) is not None}
        case = Case.from_dict({**values, "protocol": json.loads(row["protocol"])})
    except (DlbenchError, ValueError, TypeError):
        return None  # of a newer dlbench
    return "" if case.id == row["case_id"] else f"axes and protocol give case id {case.id}; recorded: {row['case_id']}"


def check_window_duration(row: Row) -> str | None:
    """Steps must sum to the window."""
    steps, device_s, host_s = row["step_s"], row["device_window_s"], row["window_s"]
    if not steps.size or not _are_numbers(device_s, host_s):
        return None
    total = float(steps.sum())
    if not _is_close(total, device_s, _SUM):
        return (
            f"the {steps.size} steps sum to {units.seconds_text(total)}, but the window is "
            f"{units.seconds_text(device_s)}"
        )
    if total > host_s * (1 + _HOST):
        return (
            f"the steps sum to {units.seconds_text(total)}, more than the window of "
            f"{units.seconds_text(host_s)} by the host's clock"
        )
    return ""


def check_peak_flop_rate(row: Row) -> str | None:
    """No pass is faster than its FLOP over the peak."""
    peaks = find_device_peaks(row["device_name"]) if row["device_name"] else None
    peak = peaks.flop_per_s(row["precision"]) if peaks else None
    flop = row["forward_flop"]
    backward = row["backward_flop"] if row["mode"] == "training" else 0
    if not row["step_s"].size or peak is None or flop is None or backward is None:
        return None
    rate = (flop + backward) * row["batch_size"] / float(np.median(row["step_s"]))
    if rate <= _ABOVE_PEAK * peak:
        return ""
    return (
        f"{units.rate_text(rate, 'FLOP/s')} is above the peak of "
        f"{units.rate_text(peak, 'FLOP/s')} ({row['device_name']})"
    )


def check_energy(row: Row) -> str | None:
    """Energy, its sources, sampled power and power limit must agree."""
    energy_j, window_s = row["energy_j"], row["energy_window_s"] or row["window_s"]
    if not _are_numbers(energy_j, window_s) or energy_j <= 0 or window_s <= 0:
        return None
    for name in ("energy_counter_j", "energy_integral_j"):
        if _are_numbers(row[name]) and not _is_close(energy_j, row[name], 0.5):
            return f"the record has energy_j = {energy_j:.1f} J, but {name} = {row[name]:.1f} J"
    sources = [row[name] for name in ("energy_counter_j", "energy_integral_j") if _are_numbers(row[name])]
    if sources and not any(_is_close(energy_j, value, 0.01) for value in sources):
        return (
            f"the recorded energy, {energy_j:.1f} J, agrees neither with the device's energy counter nor with its "
            f"sampled power"
        )
    power_w = energy_j / window_s
    if (
        row["energy_scope"] == "device"
        and _are_numbers(row["power_limit_w"])
        and power_w > _ABOVE_LIMIT * row["power_limit_w"]
    ):
        return f"the mean power of {power_w:.0f} W is above the power limit of {row['power_limit_w']:.0f} W"
    trace = row["power_w"]
    if trace.size >= MIN_STEPS_TO_JUDGE and not _is_close(power_w, float(trace.mean()), _TRACE_TOLERANCE):
        return f"the mean power is {power_w:.0f} W, but the mean of the power samples is {trace.mean():.0f} W"
    return ""


def check_step_times_vary(row: Row) -> str | None:
    """Real samples vary, and do not repeat in blocks."""
    steps = row["step_s"]
    if steps.size < MIN_STEPS_TO_JUDGE:
        return None
    if np.ptp(steps) == 0:
        return f"all {steps.size} steps took {units.seconds_text(float(steps[0]))} exactly"
    place = _find_repeated_block(steps)
    if place is None:
        return ""
    return f"{_BLOCK_STEPS} steps, beginning with step {place + 1}, have the same times as an earlier block of steps"


def _find_repeated_block(steps: NDArray[np.float64]) -> int | None:
    """Where a block of steps begins that stood earlier; blocks of few different values do not count."""
    blocks = np.lib.stride_tricks.sliding_window_view(steps, min(_BLOCK_STEPS, steps.size))
    seen: dict[bytes, int] = {}
    for place in range(len(blocks)):
        first = seen.setdefault(blocks[place].tobytes(), place)
        if place - first >= _BLOCK_STEPS and np.unique(blocks[place]).size > _BLOCK_STEPS // 2:
            return place
    return None


def check_clocks_and_timestamps(row: Row) -> str | None:
    """Clocks of the device below its highest; begin, end and the attempt's name in order."""
    highest = row["sm_clock_max_mhz"]
    for name in ("sm_clock_before_mhz", "sm_clock_min_mhz", "sm_clock_after_mhz"):
        if _are_numbers(highest, row[name]) and row[name] > highest * 1.01:
            return f"{name} is {row[name]:.0f} MHz, above the device's highest, {highest:.0f} MHz"
    begin, end = row["started_at"], row["finished_at"]
    if end is not None and row["wall_s"] is not None:
        if end < begin:
            return f"the attempt ended at {end:%F %T}, before its start at {begin:%F %T}"
        if _are_numbers(row["window_s"]) and row["window_s"] > row["wall_s"] + 1:
            return f"the window of {row['window_s']:.0f} s is longer than the whole attempt, {row['wall_s']:.0f} s"
        if abs((end - begin).total_seconds() - row["wall_s"]) > max(60.0, 0.5 * row["wall_s"]):
            return (
                f"start and end are {(end - begin).total_seconds():.0f} s apart, but the attempt took "
                f"{row['wall_s']:.0f} s"
            )
    stamp = row["attempt_id"].partition("-")[0]
    named = _parse_time(stamp)
    if named is not None and abs(begin - named) > _MAX_CLOCK_OFFSET:
        return f"the attempt started at {begin:%F %T}, but its id contains the time {named:%F %T}"
    return ""


def _parse_time(stamp: str) -> datetime | None:
    try:
        return datetime.strptime(stamp, "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def check_catalogue_counts(row: Row) -> str | None:
    """A network of the catalogue has its parameters and MACs."""
    model = CATALOG.get(row["model"])
    if model is None or row["network_key"] or row["parameters"] is None:
        return None
    known = {model.parameters, model.num_inference_parameters}
    if row["parameters"] not in known:
        return f"{row['parameters']} parameters are stored, but {model.title} has {model.parameters}"
    macs = row["forward_macs"]
    auxiliary = row["mode"] == "training" and model.auxiliary_parameters
    if macs is not None and macs != model.forward_macs and not auxiliary:
        return f"{macs} MACs per image are stored, but a count of {model.title} gives {model.forward_macs}"
    return ""


def check_protocol_is_met(row: Row) -> str | None:
    """An attempt that is ok met its protocol."""
    try:
        values = json.loads(row["protocol"])
        known = Protocol.__dataclass_fields__
        rules = make_protocol({key: value for key, value in values.items() if key in known})
    except (DlbenchError, ValueError, TypeError, AttributeError):
        return None
    steps = row["step_s"].size
    if row["status"] != "ok" or not steps:
        return None
    if steps < rules.min_steps:
        return f"only {steps} timed steps, but the protocol requires at least {rules.min_steps}"
    if _are_numbers(row["window_s"]) and row["window_s"] < 0.95 * rules.min_time_s:
        return f"a measurement window of {row['window_s']:.2f} s, but the protocol requires {rules.min_time_s:g} s"
    if row["warmup_steps"] is not None and row["warmup_steps"] < rules.warmup_min_steps:
        return f"{row['warmup_steps']} warm-up steps, but the protocol requires {rules.warmup_min_steps}"
    return ""


def check_memory(row: Row) -> str | None:
    """Peaks: allocated within reserved, reserved within the device."""
    order = ("memory_allocated_peak_bytes", "memory_reserved_peak_bytes", "memory_device_total_bytes")
    known = [(name, row[name]) for name in order if row[name]]
    if len(known) < 2:
        return None
    for (smaller, low), (larger, high) in itertools.pairwise(known):
        if low > high:
            return (
                f"{smaller} ({units.bytes_text(low)}) is larger than {larger} "
                f"({units.bytes_text(high)}), which is impossible"
            )
    return ""


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)


def _is_close(value: float, other: float, share: float) -> bool:
    return abs(value - other) <= share * max(abs(value), abs(other))
