"""From the store's rows (one per rank) to one row per attempt with every metric; nothing is measured twice, all of it
can be derived again from the raw samples.

Over ranks time is the maximum, energy the sum, memory the maximum; a flag of one rank is a flag of the attempt. What is
missing is NaN, never 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlbench.facts.peaks import find_device_peaks
from dlbench.report.analysis.metrics import METRICS, set_sample_unit
from dlbench.report.loading import intervals, sample_statistics
from dlbench.report.loading.sample_statistics import LIMIT_COLUMNS
from dlbench.report.loading.systems import is_unknown_system_id
from dlbench.results.frame_builder import as_shared_text_objects
from dlbench.results.reader import RaggedArray
from dlbench.results.records import DONE_STATUSES, SHARED_SCOPES
from dlbench.suites.case import AXES

#: What names an attempt, beside its axes; taken over from the row of its first rank, but for
#: `_combine_rank_warnings` and the confidence of its intervals, which is in the protocol.
IDENTITY_COLUMNS = (
    *("attempt_id", "case_id", "suite", "suite_version", "status", "error", "exit_code", "started_at", "finished_at"),
    *("wall_s", "system_key", "network_key", "device_name", "energy_source", "energy_scope", "energy_note"),
    *("stop_reason", "steady", "clock", "protocol", "confidence", "warnings", "throttle_reasons", "other_processes"),
    *("label", "flop_partial", "sample_unit"),
)
#: Metrics that are a fixed multiple, or a fixed fraction, of the step time: they share its interval.
#: Each metric with a confidence interval has two more columns, `<name>_low` and `<name>_high`.
PROPORTIONAL_TO_TIME = ("distance_to_bound", "distance_to_layer_bound")
INVERSE_TO_TIME = ("throughput", "item_throughput", "flop_rate", "mfu", "hfu", "share_of_measured_peak")
#: Stands for the key of a network in a record from before keys were kept.
NO_KEY_TEXT = "not recorded"
MIN_STEPS = sample_statistics.MIN_STEPS
#: Where these columns are not finite and above zero, a clock or a meter failed: the value is unknown.
_POSITIVE_COLUMNS = (
    *("window_s", "device_window_s", "energy_window_s", "idle_power_w"),
    *("energy_j", "energy_counter_j", "energy_integral_j", "energy_module_j"),
)
#: Steps are uneven where the sustained throughput is so much below that of the median step.
UNEVEN_LIMIT = 0.1

_MAX_OVER_RANKS = {
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
_MEMORY_SPLIT = ("memory_parameters", "memory_gradients", "memory_optimizer", "memory_activations")


def attempts_from_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per attempt, by time of start, from rows as `dlbench.load` gives them, one per rank.

    The columns are `IDENTITY_COLUMNS`, `AXES`, `METRICS`, `LIMIT_COLUMNS`, and `samples`: the step times [s] of the
    slowest rank in each step.
    """
    order = rows[["attempt_id", "rank"]].reset_index(drop=True).sort_values(["attempt_id", "rank"], kind="stable").index
    rows = (rows if order.is_monotonic_increasing else rows.take(order.to_numpy())).reset_index(drop=True)
    ranks = sample_statistics.RanksOfAttempts.from_attempt_ids(rows["attempt_id"].tolist())
    none = RaggedArray(np.empty(0), np.zeros(len(rows) + 1, dtype=np.int64))
    lists = {name: _column_to_ragged_array(rows[name]) if name in rows else none for name in sample_statistics.COLUMNS}
    found = sample_statistics.slowest_rank_steps(lists["step_s"], ranks)
    known = sample_statistics.sample_statistics(found, lists, ranks, rows["phase_stride"].to_numpy())
    confidences = intervals.confidence_of_each_protocol(rows["protocol"].iloc[ranks.first].tolist())
    limits = intervals.median_intervals(found.steps, confidences)
    cases = attempts_from_statistics(rows, known.assign(**dict(zip(LIMIT_COLUMNS, limits.T, strict=True))))
    steps = pd.Series([found.steps.row(i) for i in range(len(ranks.attempts))], ranks.attempts, dtype=object)
    return cases.assign(samples=cases["attempt_id"].map(steps).astype(object))


def attempts_from_statistics(rows: pd.DataFrame, statistics: pd.DataFrame) -> pd.DataFrame:
    """The same without the steps, from rows without samples (by attempt and rank) and the statistics of these.

    These are of each attempt; columns beyond `sample_statistics.STATISTICS` and `LIMIT_COLUMNS` are dropped.
    """
    rows = _fill_sample_units(_mask_impossible_values(rows))
    by_attempt = rows.groupby("attempt_id", sort=False)
    doubled = rows.duplicated("attempt_id")
    # A copy of a large store would take a gigabyte.
    first = (rows[~doubled] if doubled.any() else rows).set_index("attempt_id", drop=False)
    if len(first) < len(rows):
        first = first.assign(**_combine_rank_warnings(rows, first))
    first = _missing_rank_warnings(first, by_attempt.size())
    derived = [statistics, _max_or_min_over_ranks(by_attempt), _power_metrics(rows)]
    first = first.assign(confidence=intervals.confidence_of_each_protocol(first["protocol"].tolist()))
    cases = pd.concat([first[[*IDENTITY_COLUMNS, *AXES]], *(d.reindex(first.index) for d in derived)], axis=1)
    _add_derived_rates(cases, first)
    cases["step_time_half_width"] = (cases[LIMIT_COLUMNS[1]] - cases[LIMIT_COLUMNS[0]]) / 2 / cases["step_time"]
    # What needs more than the rows (`add_metric_intervals`, `dlbench.report.analysis.case_bounds`) is missing as yet.
    cases = cases.reindex(columns=[*IDENTITY_COLUMNS, *AXES, *METRICS, *LIMIT_COLUMNS]).reset_index(drop=True)
    order = cases[["started_at", "attempt_id"]].sort_values(["started_at", "attempt_id"], kind="stable").index
    return cases if order.is_monotonic_increasing else cases.take(order.to_numpy()).reset_index(drop=True)


def latest_attempts(cases: pd.DataFrame) -> pd.DataFrame:
    """The attempt that counts for each case of a suite on each system: the latest with samples, else the latest of all.

    A failed attempt that never got far enough to know its system gives way to any success of the same case.
    """
    done = cases["status"].isin(DONE_STATUSES)
    gone = ended_before_system_was_known(cases)
    if gone.any():
        gone[gone] = cases.loc[gone, "case_id"].isin(cases.loc[done, "case_id"].unique())
    # A report keeps systems apart by the user's names as well.
    system = "system_id" if "system_id" in cases else "system_key"
    keys = ["suite", "suite_version", "case_id", "network_key", system]
    cases = cases.assign(network_key=cases["network_key"].astype(object).fillna(""))
    ranked = cases.loc[~gone, [*keys, "started_at", "attempt_id"]].assign(_done=done)
    ranked = ranked.sort_values(["_done", "started_at", "attempt_id"], kind="stable")
    kept = ranked.drop_duplicates(keys, keep="last").index.sort_values()
    return cases if len(kept) == len(cases) else cases.loc[kept]


def make_network_names_unique(cases: pd.DataFrame, by_system: bool = False) -> pd.DataFrame:
    """`cases` in which a model's name stands for one network: where it stood for several, their keys are part of it.

    `by_system`: the name may stand for another network on each system.
    """
    keys = cases["network_key"].astype(object).fillna("")
    several = keys.groupby([cases["model"], *([cases["system_id"]] if by_system else [])]).transform("nunique") > 1
    if not several.any():
        return cases
    named = cases["model"].astype(object) + " [" + keys.replace("", NO_KEY_TEXT) + "]"
    return cases.assign(model=cases["model"].astype(object).mask(several, named))


def ended_before_system_was_known(cases: pd.DataFrame) -> pd.Series[bool]:
    """Which attempts ended before they could tell their system.

    What died early in a source of one system is known to be of that.
    """
    unknown = is_unknown_system_id(cases["system_id"]) if "system_id" in cases else cases["system_key"].isna()
    found: pd.Series[bool] = ~cases["status"].isin(DONE_STATUSES) & unknown
    return found


def add_metric_intervals(cases: pd.DataFrame) -> pd.DataFrame:
    """`cases` with the confidence intervals of all that follows from the median step time, beside its own."""
    low, high = (cases[name].to_numpy() for name in LIMIT_COLUMNS)
    step = cases["step_time"].to_numpy()
    added: dict[str, Any] = {}
    for name in PROPORTIONAL_TO_TIME:
        factor = cases[name].to_numpy() / step
        added |= {f"{name}_low": factor * low, f"{name}_high": factor * high}
    for name in INVERSE_TO_TIME:
        work = cases[name].to_numpy() * step
        added |= {f"{name}_low": work / high, f"{name}_high": work / low}
    # In one go: pandas warns of frames that were put together column by column.
    return pd.concat([cases, pd.DataFrame(added, index=cases.index)], axis=1)


def has_uneven_steps(cases: pd.DataFrame) -> pd.Series[bool]:
    """Which cases did notably fewer images per second over the whole window than their median step promises."""
    found: pd.Series[bool] = cases["sustained_throughput"] < (1 - UNEVEN_LIMIT) * cases["throughput"]
    return found


def _column_to_ragged_array(column: pd.Series) -> RaggedArray:
    """The arrays of a column in one; what is no array is missing."""
    arrays = [np.asarray(v, np.float64) if np.ndim(v) else np.empty(0) for v in column]
    starts = np.cumsum([0, *(a.size for a in arrays)], dtype=np.int64)
    return RaggedArray(np.concatenate(arrays) if arrays else np.empty(0), starts)


def _mask_impossible_values(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with NaN for windows [s], energies [J] and powers [W] that cannot be."""
    # An energy without a window of its own is that of the whole window; one whose window is impossible is of neither.
    rows = rows.assign(energy_window_s=rows["energy_window_s"].fillna(rows["window_s"]))
    values = rows[list(_POSITIVE_COLUMNS)].astype(float)
    possible = values.where((values > 0) & np.isfinite(values))
    return rows.assign(**{str(name): possible[name] for name in possible})


def _fill_sample_units(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` in which each says what its samples are: images, where a record is from before they could be others."""
    rows = rows.assign(sample_unit=as_shared_text_objects(rows["sample_unit"].fillna("img")))
    set_sample_unit(rows.loc[rows["status"].isin(DONE_STATUSES), "sample_unit"].unique())
    return rows


def _missing_rank_warnings(first: pd.DataFrame, num_ranks: pd.Series[int]) -> pd.DataFrame:
    """A warning for each measured attempt of which the store holds fewer ranks than it had."""
    wanted = first["nodes"].astype(float) * first["devices_per_node"].astype(float)
    held = num_ranks.reindex(first.index)
    short = first["status"].isin(DONE_STATUSES) & (held < wanted)
    if not short.any():
        return first
    extended = [
        [
            *(found if isinstance(found, list | tuple | np.ndarray) else ()),
            f"missing_ranks: the results contain {have} of {want:.0f} ranks; the slowest rank may be missing.",
        ]
        for found, have, want in zip(first.loc[short, "warnings"], held[short], wanted[short], strict=True)
    ]
    warnings = first["warnings"].astype(object)
    warnings[short] = pd.Series(extended, index=first.index[short], dtype=object)
    return first.assign(warnings=warnings)


def _combine_rank_warnings(rows: pd.DataFrame, first: pd.DataFrame) -> dict[str, pd.Series]:
    """What any rank of an attempt has to say against it, by attempt.

    Steady is an attempt whose ranks all are; it is missing where a rank does not say and no other denies it. Where a
    rank has no energy, there is none of the attempt: meter and note are those of the first such rank.
    """
    keys = rows["attempt_id"]
    unsteady = rows["steady"].eq(False).groupby(keys, sort=False).any()
    unknown = rows["steady"].isna().groupby(keys, sort=False).any() & ~unsteady
    others = rows["other_processes"].groupby(keys, sort=False).max()
    flags = {
        "steady": first["steady"].mask(unknown, None).mask(unsteady, False),
        "other_processes": others.reindex(first.index),
    }
    unmetered = rows[rows["energy_j"].isna()].drop_duplicates("attempt_id").set_index("attempt_id")
    metered = ~first.index.isin(unmetered.index)
    for name in ("energy_source", "energy_scope", "energy_note"):
        flags[name] = first[name].where(metered, unmetered[name].reindex(first.index))
    several = rows[rows.duplicated("attempt_id", keep=False)]
    for name in ("warnings", "throttle_reasons"):
        said = several.loc[several[name].str.len() > 0, ["attempt_id", name]].explode(name).drop_duplicates()
        every = said.groupby("attempt_id", sort=False)[name].agg(list).reindex(first.index)
        flags[name] = every.where(every.notna(), first[name])
    return flags


def _max_or_min_over_ranks(by_attempt: Any) -> pd.DataFrame:
    """Memory, temperature, start-up and clock gap as the maximum over ranks, the clock as the minimum."""
    values: pd.DataFrame = by_attempt[list(_MAX_OVER_RANKS.values())].max()
    values.columns = list(_MAX_OVER_RANKS)
    rows = by_attempt.obj
    keys = rows["attempt_id"]
    startup = rows["import_s"] + rows["build_s"] + rows["first_step_s"]
    gap = (rows["window_s"] - rows["device_window_s"]).abs() / rows["window_s"]
    disagreement = (rows["energy_integral_j"] / rows["energy_counter_j"] - 1).abs()
    values["time_to_first_step"] = startup.groupby(keys).max()
    values["clock_gap"] = gap.groupby(keys).max()
    values["energy_disagreement"] = disagreement.groupby(keys).max()
    values["window_s"] = by_attempt["window_s"].max()
    values["sm_clock_min"] = by_attempt["sm_clock_min_mhz"].min()
    static = values[list(_MEMORY_SPLIT)].sum(axis=1, min_count=1)
    rest = values["memory_allocated"] - static
    values["memory_workspace"] = rest.where(rest > 0)
    return values


def _power_metrics(rows: pd.DataFrame) -> pd.DataFrame:
    """Average, idle and module power over all meters of each attempt, each once; NaN if any rank has none or lacks."""
    shared = rows["energy_scope"].isin(SHARED_SCOPES)
    own = rows["device_uuid"].fillna(rows["rank"].astype(str))
    meter = rows["system_hostname"].fillna("") + "/" + own.where(~shared, "")
    powers = pd.DataFrame(
        {
            "average_power": rows["energy_j"] / rows["energy_window_s"],
            "idle_power": rows["idle_power_w"],
            "module_power": rows["energy_module_j"] / rows["energy_window_s"],
        }
    )
    frame = powers.assign(attempt_id=rows["attempt_id"], meter=meter)
    meters = frame.drop_duplicates(["attempt_id", "meter"]).groupby("attempt_id", sort=False)
    totals = meters[list(powers)].sum(min_count=1)
    known = meters[list(powers)].count().eq(meters.size(), axis=0)
    ranks = rows.groupby("attempt_id", sort=False)["world_size"].agg(["size", "max"])
    return totals.where(known)[ranks["size"] == ranks["max"]]


def _add_derived_rates(cases: pd.DataFrame, first: pd.DataFrame) -> None:
    """Everything that is a quotient or product of what is there already; adds its columns to `cases`."""
    devices = cases["nodes"] * cases["devices_per_node"]
    global_batch = cases["batch_size"] * devices
    inference = cases["mode"] == "inference"
    step = cases["step_time"]
    phases = cases[list(sample_statistics.PHASES)].sum(axis=1, min_count=1)
    # Inference has a forward phase at most.
    complete = inference | cases[list(sample_statistics.PHASES)].notna().all(axis=1)
    # What is not known, as activations under `compile`, is in the rest.
    split = inference | cases[list(_MEMORY_SPLIT)].notna().all(axis=1)
    cases["memory_workspace"] = cases["memory_workspace"].where(split)
    cases["rest_time"] = (step - phases).clip(lower=0).where(complete)
    cases["throughput"] = global_batch / step
    items = first["items_per_sample"].astype(float)
    cases["item_throughput"] = (cases["throughput"] * items).where(first["sample_unit"].eq("seq"))
    cases["sustained_throughput"] = global_batch * cases["steps"] / cases["window_s"]
    _add_loader_metrics(cases, first, devices)
    for name in ("latency_p50", "latency_p95", "latency_p99"):
        cases[name] = cases[name].where(inference)
    backward = first["backward_flop"].where(~inference, 0)
    cases["flop_per_image"] = (first["forward_flop"] + backward).astype(float)
    cases["flop_per_step"] = cases["flop_per_image"] * cases["batch_size"]
    cases["flop_rate"] = cases["flop_per_image"] * global_batch / step
    cases["device_peak"] = _peak_flop_rates(cases)
    cases["time_bound"] = cases["flop_per_step"] / cases["device_peak"]
    cases["distance_to_bound"] = step / cases["time_bound"]
    cases["mfu"] = cases["flop_rate"] / (cases["device_peak"] * devices)
    # Records from before recomputation was told apart say nothing of it.
    cases["executed_flop_per_image"] = first["executed_flop"].astype(float)
    repeated = cases["executed_flop_per_image"] > cases["flop_per_image"]
    cases["hfu"] = (cases["mfu"] * cases["executed_flop_per_image"] / cases["flop_per_image"]).where(repeated)
    cases["energy_per_image"] = cases["average_power"] / cases["sustained_throughput"]
    cases["module_energy_per_image"] = cases["module_power"] / cases["sustained_throughput"]
    cases["energy_per_gflop"] = cases["energy_per_image"] / (cases["flop_per_image"] / 1e9)
    cases["images_per_wh"] = 3600 / cases["energy_per_image"]


def _add_loader_metrics(cases: pd.DataFrame, first: pd.DataFrame, devices: pd.Series) -> None:
    """What loading files costs, by the first rank: all load alike."""
    batch = cases["batch_size"] * devices
    cases["loader_throughput"] = batch / first["loader_batch_s"].astype(float)
    cases["device_throughput"] = batch / first["device_step_s"].astype(float)
    cases["accelerator_utilisation"] = first["device_step_s"].astype(float) / cases["step_time"]
    cases["data_wait"] = first["data_wait_s"].astype(float) / first["window_s"].astype(float)
    cases["loader_read_time"] = first["loader_read_s"].astype(float)
    cases["loader_decode_time"] = first["loader_decode_s"].astype(float)
    cases["loader_memory"] = first["loader_memory_bytes"].astype(float)


def _peak_flop_rates(cases: pd.DataFrame) -> NDArray[np.float64]:
    device, devices = pd.factorize(cases["device_name"])
    precision, precisions = pd.factorize(cases["precision"])
    # A last row and column for those without a name.
    table = np.full((len(devices) + 1, len(precisions) + 1), np.nan)
    for i, name in enumerate(devices):
        found = find_device_peaks(str(name))
        for k, kind in enumerate(precisions) if found else ():
            peak = found.flop_per_s(str(kind)) if found else None
            table[i, k] = np.nan if peak is None else peak
    peaks: NDArray[np.float64] = table[device, precision]
    return peaks
