"""From the store's rows (one per rank) to one row per attempt with every metric; nothing is measured twice, all of it
can be derived again from the raw samples.

Over ranks time is the maximum, energy the sum, memory the maximum. What is missing is NaN, never 0.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlbench import stats
from dlbench.report.metrics import METRICS
from dlbench.results.records import DONE_STATUSES
from dlbench.spec.case import AXES
from dlbench.spec.peaks import find_peaks

Samples = NDArray[np.float64]

#: What names an attempt, beside its axes; taken over from the row of its first rank.
IDENTITY = (
    "attempt_id",
    "case_id",
    "suite",
    "suite_version",
    "status",
    "error",
    "exit_code",
    "started_at",
    "finished_at",
    "wall_s",
    "system_key",
    "device_name",
    "energy_source",
    "energy_scope",
    "energy_note",
    "stop_reason",
    "steady",
    "clock",
    "protocol",
    "warnings",
    "throttle_reasons",
    "other_processes",
)
#: Metrics that are a fixed multiple, or a fixed fraction, of the step time: they share its interval.
#: Each metric with a confidence interval has two more columns, `<name>_low` and `<name>_high`.
_PROPORTIONAL = ("step_time",)
_INVERSE = ("throughput", "flop_rate", "mfu")
#: Fewer steps than these have no spread.
MIN_STEPS = 4
#: Steps are uneven where the sustained throughput is so much below that of the median step.
UNEVEN_LIMIT = 0.1

_MAXIMUM = {
    "memory_allocated": "memory_allocated_peak_bytes",
    "memory_reserved": "memory_reserved_peak_bytes",
    "memory_device": "memory_device_used_bytes",
    "memory_rss": "memory_rss_peak_bytes",
    "memory_parameters": "parameter_bytes",
    "memory_gradients": "gradient_bytes",
    "memory_optimizer": "optimizer_state_bytes",
    "memory_activations": "activation_bytes",
    "temperature_max": "temperature_max_c",
}
_SPLIT = ("memory_parameters", "memory_gradients", "memory_optimizer", "memory_activations")
_PHASES = {"forward_time": "forward_s", "backward_time": "backward_s", "optimizer_time": "optimizer_s"}


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per attempt, by time of start: identity, axes, all metrics but the intervals, and the steps themselves.

    Args:
        rows: as `dlbench.load` gives them, one per rank.

    Returns:
        The columns of `IDENTITY`, `AXES` and `METRICS`, and `samples`: step times [s] of the slowest rank in each step.
    """
    rows = rows.sort_values(["attempt_id", "rank"], kind="stable").reset_index(drop=True)
    by_attempt = rows.groupby("attempt_id", sort=False)
    first = rows.drop_duplicates("attempt_id").set_index("attempt_id", drop=False)
    derived = [_from_samples(rows), _from_extremes(by_attempt), _energy(rows)]
    cases = pd.concat([first[[*IDENTITY, *AXES]], *(d.reindex(first.index) for d in derived)], axis=1)
    _add_rates(cases, first)
    cases["step_time_half_width"] = np.nan
    cases = cases[[*IDENTITY, *AXES, *METRICS, "samples"]].reset_index(drop=True)
    return cases.sort_values(["started_at", "attempt_id"], kind="stable", ignore_index=True)


def current(cases: pd.DataFrame) -> pd.DataFrame:
    """Of each case of a suite on each system the attempt that counts: the latest with samples, else the latest of all.

    A failed attempt that never got far enough to know its system gives way to any success of the same case.
    """
    done = cases["status"].isin(DONE_STATUSES)
    lost = ~done & cases["system_key"].isna() & cases["case_id"].isin(cases.loc[done, "case_id"])
    ranked = cases[~lost].assign(_done=done).sort_values(["_done", "started_at", "attempt_id"], kind="stable")
    keys = ["suite", "suite_version", "case_id", "system_key"]
    return ranked.drop_duplicates(keys, keep="last").drop(columns="_done").sort_index()


def with_intervals(cases: pd.DataFrame) -> pd.DataFrame:
    """`cases` with the confidence interval of the median step time, and of all that follows from it.

    Apart from `tidy` because an interval costs a thousand times as much as a median: ask for those that are shown.
    """
    bounds = np.full((len(cases), 2), np.nan)
    for i, (samples, protocol) in enumerate(zip(cases["samples"], cases["protocol"], strict=True)):
        confidence = json.loads(protocol or "{}").get("confidence", 0.95)
        interval = stats.median_interval(samples.tolist(), confidence)
        if interval is not None:
            bounds[i] = interval.low, interval.high
    step = cases["step_time"].to_numpy()
    added: dict[str, Any] = {"step_time_half_width": (bounds[:, 1] - bounds[:, 0]) / 2 / step}
    for name in _PROPORTIONAL:
        added |= {f"{name}_low": bounds[:, 0], f"{name}_high": bounds[:, 1]}
    for name in _INVERSE:
        work = cases[name].to_numpy() * step
        added |= {f"{name}_low": work / bounds[:, 1], f"{name}_high": work / bounds[:, 0]}
    return cases.assign(**added)


def uneven(cases: pd.DataFrame) -> pd.Series[bool]:
    """Which cases did notably fewer images per second over the whole window than their median step promises."""
    found: pd.Series[bool] = cases["sustained_throughput"] < (1 - UNEVEN_LIMIT) * cases["throughput"]
    return found


def _from_samples(rows: pd.DataFrame) -> pd.DataFrame:
    """Statistics of each attempt's samples, over ranks the slowest."""
    columns = {name: rows[name].to_numpy() for name in ("step_s", *_PHASES.values())}
    groups = rows.groupby("attempt_id", sort=False).indices
    derived = [_statistics({name: [v[i] for i in ranks] for name, v in columns.items()}) for ranks in groups.values()]
    return pd.DataFrame(derived, index=list(groups), columns=_STATISTICS)


_STATISTICS = [
    *("samples", "steps", "step_time", *_PHASES, "latency_p50", "latency_p95", "latency_p99"),
    *("cv", "iqr", "autocorrelation", "outliers"),
]


def _statistics(ranks: dict[str, list[Any]]) -> dict[str, Any]:
    steps, slowest = _slowest(ranks["step_s"])
    if steps.size == 0:
        return {"samples": steps}
    ordered = np.sort(steps)
    p25, p50, p75, p95, p99 = (_at(ordered, share) for share in (0.25, 0.5, 0.75, 0.95, 0.99))
    far = 3 * (p75 - p25)
    values = {
        "samples": steps,
        "steps": steps.size,
        "step_time": p50,
        "latency_p50": p50,
        "latency_p95": p95,
        "latency_p99": p99,
        "outliers": np.count_nonzero((steps < p25 - far) | (steps > p75 + far)),
    }
    if steps.size >= MIN_STEPS:
        values["iqr"] = (p75 - p25) / p50
    if steps.size > 1:
        values["cv"] = steps.std(ddof=1) / steps.mean()
        values["autocorrelation"] = _autocorrelation(steps)
    return values | {name: _phase(ranks[column], slowest) for name, column in _PHASES.items()}


def _slowest(ranks: list[Any]) -> tuple[Samples, NDArray[np.intp]]:
    """Per step the time of the slowest rank, and which rank it was; nothing if any rank's times cannot be right."""
    arrays = [_array(rank) for rank in ranks]
    num_steps = min(a.size for a in arrays)
    table = np.stack([a[:num_steps] for a in arrays])
    if num_steps == 0 or not (np.isfinite(table).all() and (table > 0).all()):
        return np.empty(0), np.empty(0, dtype=np.intp)
    return table.max(axis=0), table.argmax(axis=0)


def _phase(ranks: list[Any], slowest: NDArray[np.intp]) -> float:
    """Median time of a phase, of each step in the rank that was slowest in it; NaN where a rank lacks it."""
    arrays = [_array(rank) for rank in ranks]
    if min(a.size for a in arrays) < slowest.size:
        return np.nan
    table = np.stack([a[: slowest.size] for a in arrays])
    return _at(np.sort(table[slowest, np.arange(slowest.size)]), 0.5)


def _at(ordered: Samples, share: float) -> float:
    """The value below which `share` of the ordered samples lie, interpolated linearly; numpy.percentile is slower."""
    place = share * (ordered.size - 1)
    below = int(place)
    above = min(below + 1, ordered.size - 1)
    return float(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


def _array(values: Any) -> Samples:
    return np.empty(0) if values is None else np.asarray(values, dtype=np.float64)


def _autocorrelation(steps: Samples) -> float:
    deviations = steps - steps.mean()
    total = float(deviations @ deviations)
    # As in dlbench.stats: what rounding leaves of equal samples is no variation.
    if steps.size < 3 or total <= steps.size * (1e-12 * steps.mean()) ** 2:
        return np.nan
    return float(deviations[:-1] @ deviations[1:]) / total


def _from_extremes(by_attempt: Any) -> pd.DataFrame:
    """Memory, temperature, start-up and clock gap as the maximum over ranks, the clock as the minimum."""
    values: pd.DataFrame = by_attempt[list(_MAXIMUM.values())].max()
    values.columns = list(_MAXIMUM)
    rows = by_attempt.obj
    keys = rows["attempt_id"]
    startup = rows["import_s"] + rows["build_s"] + rows["first_step_s"]
    gap = (rows["window_s"] - rows["device_window_s"]).abs() / rows["window_s"]
    disagreement = (rows["energy_counter_j"] / rows["energy_integral_j"] - 1).abs()
    values["time_to_first_step"] = startup.groupby(keys).max()
    values["clock_gap"] = gap.groupby(keys).max()
    values["energy_disagreement"] = disagreement.groupby(keys).max()
    values["window_s"] = by_attempt["window_s"].max()
    values["sm_clock_min"] = by_attempt["sm_clock_min_mhz"].min()
    static = values[list(_SPLIT)].sum(axis=1, min_count=1)
    rest = values["memory_allocated"] - static
    values["memory_workspace"] = rest.where(rest > 0)
    return values


def _energy(rows: pd.DataFrame) -> pd.DataFrame:
    """Average and idle power over all meters of each attempt, each meter once; NaN if any rank has none."""
    shared = rows["energy_scope"].isin(("package", "node"))
    own = rows["device_uuid"].fillna(rows["rank"].astype(str))
    meter = rows["system_hostname"].fillna("") + "/" + own.where(~shared, "")
    power = rows["energy_j"] / rows["energy_window_s"].fillna(rows["window_s"])
    frame = pd.DataFrame({"attempt_id": rows["attempt_id"], "meter": meter, "average_power": power})
    frame["idle_power"] = rows["idle_power_w"]
    meters = frame.drop_duplicates(["attempt_id", "meter"]).groupby("attempt_id", sort=False)
    totals = meters[["average_power", "idle_power"]].sum(min_count=1)
    known = meters[["average_power", "idle_power"]].count().eq(meters.size(), axis=0)
    return totals.where(known)


def _add_rates(cases: pd.DataFrame, first: pd.DataFrame) -> None:
    """Everything that is a quotient or product of what is there already; adds its columns to `cases`."""
    devices = cases["nodes"] * cases["devices_per_node"]
    global_batch = cases["batch_size"] * devices
    inference = cases["mode"] == "inference"
    step = cases["step_time"]
    phases = cases[list(_PHASES)].sum(axis=1, min_count=1)
    cases["rest_time"] = (step - phases).clip(lower=0)
    cases["throughput"] = global_batch / step
    cases["sustained_throughput"] = global_batch * cases["steps"] / cases["window_s"]
    for name in ("latency_p50", "latency_p95", "latency_p99"):
        cases[name] = cases[name].where(inference)
    backward = first["backward_flop"].where(~inference, 0)
    cases["flop_per_image"] = (first["forward_flop"] + backward).astype(float)
    cases["flop_per_step"] = cases["flop_per_image"] * cases["batch_size"]
    cases["flop_rate"] = cases["flop_per_image"] * global_batch / step
    cases["device_peak"] = _device_peaks(cases)
    cases["time_bound"] = cases["flop_per_step"] / cases["device_peak"]
    cases["distance_to_bound"] = step / cases["time_bound"]
    cases["mfu"] = cases["flop_rate"] / (cases["device_peak"] * devices)
    cases["energy_per_image"] = cases["average_power"] / cases["sustained_throughput"]
    cases["energy_per_gflop"] = cases["energy_per_image"] / (cases["flop_per_image"] / 1e9)
    cases["images_per_wh"] = 3600 / cases["energy_per_image"]


def _device_peaks(cases: pd.DataFrame) -> list[float]:
    peaks = []
    for name, precision in zip(cases["device_name"], cases["precision"], strict=True):
        found = find_peaks(name if isinstance(name, str) else None)
        peak = found.flop_per_s(precision) if found else None
        peaks.append(np.nan if peak is None else peak)
    return peaks
