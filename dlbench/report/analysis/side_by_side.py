"""Which cases of several systems may stand side by side, what each system reached there, and what is left out and why.

Side by side stand cases that agree in suite, suite version, protocol and every axis but the device, whose difference is
the point. The axis `repeat` tells processes of one case apart: their median counts, and how far they spread is shown.
"""

import json
import math
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from dlbench.process_statistics import MIN_PROCESSES, ProcessMedian, interval_over_processes, split_into_two_groups
from dlbench.report.analysis.comparison_matching import IDENTITY_COLUMNS, fill_missing_axes, normalize_protocol_column
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.derived_metrics import INVERSE_TO_TIME, PROPORTIONAL_TO_TIME
from dlbench.report.analysis.labels import case_axis_title, network_title, sort_networks
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.loading.intervals import read_protocol_number
from dlbench.report.loading.systems import ab_side_by_system
from dlbench.suites.ab_sides import PROTOCOL_PREFIX, Side
from dlbench.suites.case import AXES, MODES, PRECISIONS, USUAL_CONFIDENCE
from dlbench.table import Cell, Column, Table

#: What has to agree for cases to stand side by side.
MATCH_COLUMNS = tuple(name for name in IDENTITY_COLUMNS if name != "device")
_WORK_AXES = ("model", "mode", "precision", "batch_size")


@dataclass(frozen=True)
class SharedCases:
    """The cases that two or more systems have."""

    processes: pd.DataFrame  # one row per process, as `processes_of_shared_cases` gives them
    cases: pd.DataFrame  # one row per case and system, in order
    failed: dict[tuple[int, str], str]  # by number and system the status of what failed there


@lru_cache(maxsize=1)
def find_shared_cases(content: Content) -> SharedCases:
    """What the systems of a report share; empty for a single one."""
    if content.shown["system_id"].nunique() < 2:
        return SharedCases(content.shown.iloc[:0], content.shown.iloc[:0], {})
    processes = processes_of_shared_cases(content)
    if processes.empty:
        return SharedCases(processes, processes, {})
    return SharedCases(
        processes, sort_cases(summarize_processes(processes)), describe_failures_per_system(content, processes)
    )


def processes_of_shared_cases(content: Content) -> pd.DataFrame:
    """The shown cases that two or more systems have, one row per process, with the `number` of the case they share."""
    cases = add_case_numbers(content.shown)
    return cases[cases.groupby("number")["system_id"].transform("nunique").gt(1).astype(bool)]


def add_case_numbers(cases: pd.DataFrame, without: str = "") -> pd.DataFrame:
    """`cases` with a `number` that is equal where only system, device and repeat differ, and the axis `without`."""
    values = _normalize_protocol(cases)
    # Most axes have one value, and grouping by each takes as long as by one that varies.
    telling = [key for key in MATCH_COLUMNS if key != without and values[key].nunique(dropna=False) > 1]
    number = values.groupby(telling, sort=False, dropna=False).ngroup() if telling else 0
    # A copy is in one piece: pandas warns of frames that were put together column by column.
    return cases.copy().assign(number=number)


def cases_by_batch_size(content: Content) -> pd.DataFrame:
    """Per network and mode the batch sizes of one setting that most systems have, one row per batch and system."""
    cases = add_case_numbers(content.shown, without="batch_size")
    batches = cases.groupby(["number", "system_id"])["batch_size"].transform("nunique")
    cases = cases[batches.gt(1)]
    if cases.empty:
        return cases.assign(processes=[])
    return sort_cases(summarize_processes(add_case_numbers(_cases_most_systems_share(cases))))


def summarize_processes(cases: pd.DataFrame, names: Sequence[str] = tuple(METRICS)) -> pd.DataFrame:
    """One row per case and system: the median over its processes of every metric, and how far they spread.

    Args:
        cases: one row per process, as `add_case_numbers` gives them.
        names: the columns to take the median of, all metrics unless told otherwise.

    Returns:
        The axes, `number`, `system_id`, `processes`, `status` ("ok" where the interval over processes is as narrow as
        the protocol asks for, or, without such an interval, where each process is), the medians, and `<name>_low` and
        `<name>_high`: of one process the interval within its run, where it has one; of two the lowest and the highest
        end of theirs. From
        `MIN_PROCESSES` on, what follows from the step time is the geometric mean over processes with the interval of
        `reruns.interval_over_processes`, and anything else has the range of its values. Further `half_width`, that
        interval's
        relative half-width, `next_run`, that of the prediction for one more process, and `groups`, the two groups that
        processes fall into, in words; all missing where there is no such interval.
    """
    if cases.empty:
        return cases.assign(processes=[])
    groups = cases.groupby(["number", "system_id"], sort=False)
    first = groups[[*AXES, "suite", "suite_version", "protocol", *_SHOWN_FACTS]].first()
    processes = groups.size().rename("processes")
    worst = cases["status"].ne("ok").groupby([cases["number"], cases["system_id"]], sort=False).any()
    status = worst.map({True: "unstable", False: "ok"}).rename("status")
    medians = groups[list(names)].median()
    # One process has its own interval, where there is one; several have the range of theirs.
    limits = [f"{name}_{end}" for name in names for end in ("low", "high")]
    own = groups[[name for name in limits if name in cases]].first()
    keys = [cases["number"], cases["system_id"]]
    lows, highs = (
        _outermost_interval_ends(cases, names, "low", np.fmin),
        _outermost_interval_ends(cases, names, "high", np.fmax),
    )
    ranges = lows.groupby(keys, sort=False).min().join(highs.groupby(keys, sort=False).max())[limits]
    unknown = own.isna().reindex(columns=limits, fill_value=False)
    ranges = ranges.where(processes.ge(MIN_PROCESSES), ranges.mask(unknown), axis=0)
    spread = own.reindex(columns=limits).where(processes.eq(1), ranges, axis=0)
    found = pd.concat([first, processes, status, medians, spread], axis=1)
    found = _add_process_intervals(found, cases, names).reset_index()
    targets = [read_protocol_number(text, "target_half_width") for text in found["protocol"]]
    judged = pd.Series(np.where(found["half_width"] <= targets, "ok", "unstable"), found.index)
    found["status"] = found["status"].where(found["half_width"].isna(), judged)
    # The median stands for all repeats.
    return found.assign(repeat=0)


def _add_process_intervals(found: pd.DataFrame, cases: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """`found`, by number and system, with the interval over processes for all that follows from the step time."""
    chosen = [name for name in ("step_time", *PROPORTIONAL_TO_TIME, *INVERSE_TO_TIME) if name in names]
    ends = [f"{name}{end}" for name in chosen for end in ("", "_low", "_high")]
    # Arrays: to set single cells of a frame takes a hundred times as long.
    values = {name: found[name].to_numpy(dtype=float, copy=True) for name in ends}
    values |= {name: np.full(len(found), np.nan) for name in ("half_width", "next_run")}
    words: list[str | None] = [None] * len(found)
    places = {key: place for place, key in enumerate(found.index)}
    for key, own in cases.groupby(["number", "system_id"], sort=False):
        if len(own) < MIN_PROCESSES or not own["step_time"].gt(0).all():
            continue
        windows = process_values_with_intervals(own)
        level = float(own["confidence"].iloc[0]) if "confidence" in own else USUAL_CONFIDENCE
        interval = interval_over_processes(windows, level)
        groups = split_into_two_groups(windows)
        place = places[key]
        if groups is not None:
            words[place] = groups.groups_text
        if interval is None:
            continue
        values["half_width"][place] = interval.relative_half_width
        values["next_run"][place] = interval.relative_prediction_half_width
        for name in chosen:
            value = float(np.exp(np.log(own[name].astype(float)).mean()))
            limits = interval.low / interval.value, interval.high / interval.value
            low, high = limits if name not in INVERSE_TO_TIME else (1 / limits[1], 1 / limits[0])
            values[name][place] = value
            values[f"{name}_low"][place], values[f"{name}_high"][place] = value * low, value * high
    return found.assign(**values, groups=pd.Series(words, found.index, dtype=object))


@dataclass(frozen=True)
class MetricEstimate:
    """A figure of one case; the limits are None where nothing is known of them."""

    value: float
    low: float | None
    high: float | None


def estimate_metric(processes: pd.DataFrame, metric: str, confidence: float = USUAL_CONFIDENCE) -> MetricEstimate:
    """A metric, above 0, over the processes of one case, a row each.

    Of three or more the mean with the interval of `interval_over_processes`, of one its own interval, else the
    median without.
    """
    windows = process_values_with_intervals(processes, metric)
    over = interval_over_processes(windows, confidence)
    if over is not None:
        return MetricEstimate(over.value, over.low, over.high)
    if len(windows) == 1:
        return MetricEstimate(windows[0].value, windows[0].low, windows[0].high)
    return MetricEstimate(float(processes[metric].median()), None, None)


def process_values_with_intervals(processes: pd.DataFrame, metric: str = "step_time") -> list[ProcessMedian]:
    """The value of each process with the interval within its run, where it has one."""
    names = (metric, f"{metric}_low", f"{metric}_high")
    columns = (processes[name].astype(float) if name in processes else [math.nan] * len(processes) for name in names)
    return [
        ProcessMedian(value, *(limits if all(limit > 0 for limit in limits) else ()))
        for value, *limits in zip(*columns, strict=True)
    ]


def _outermost_interval_ends(cases: pd.DataFrame, names: Sequence[str], end: str, outer: np.ufunc) -> pd.DataFrame:
    """Of each process and name the outer one of its value and of that end of its interval, where it has one."""
    found = {}
    for name in names:
        value, limit = cases[name].astype(float), f"{name}_{end}"
        found[limit] = outer(value, cases[limit].astype(float)) if limit in cases else value
    return pd.DataFrame(found, index=cases.index)


def select_median_processes(cases: pd.DataFrame) -> pd.DataFrame:
    """Of each case on each system the process with the median step time (of two in the middle the faster)."""
    ordered = add_case_numbers(cases).reset_index(drop=True).sort_values("step_time", kind="stable")
    groups = ordered.groupby(["number", "system_id"], sort=False, dropna=False)["attempt_id"]
    middle = groups.cumcount() == (groups.transform("size") - 1) // 2
    return cases.iloc[ordered.index[middle].sort_values()]


def select_representative_cases(cases: pd.DataFrame) -> pd.DataFrame:
    """Of each network and mode the case that most systems have, of these the one with the highest throughput."""
    return cases if cases.empty else sort_cases(_cases_most_systems_share(cases))


def _cases_most_systems_share(cases: pd.DataFrame) -> pd.DataFrame:
    """The rows of one number for each network and mode: that of most systems, of these the one that is fastest."""
    groups = cases.groupby(["number", "model", "mode"])
    reach = groups.agg(systems=("system_id", "nunique"), best=("throughput", "max")).reset_index()
    best = reach.sort_values(["systems", "best"], ascending=False, kind="stable").drop_duplicates(["model", "mode"])
    return cases[cases["number"].isin(best["number"])]


def axes_equal_across_systems(cases: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """Those of the axes in which the systems agree in every case; the sides of an A/B experiment differ in some."""
    different = cases.groupby("number")[list(axes)].nunique().gt(1).any()
    return [axis for axis in axes if not different[axis]]


def sort_cases(cases: pd.DataFrame, by: Sequence[str] = (*_WORK_AXES, "number")) -> pd.DataFrame:
    """Cases in the order of networks, modes and precisions, and then by batch."""
    order = {name: i for i, name in enumerate([*sort_networks(cases["model"]), *MODES, *PRECISIONS])}
    return cases.sort_values(
        list(by),
        key=lambda c: c.map(lambda v: order.get(v, v)) if c.name in _NAMING_AXES else c,
        kind="stable",
    )


_NAMING_AXES = ("model", "mode", "precision")


def describe_failures_per_system(content: Content, cases: pd.DataFrame) -> dict[tuple[int, str], str]:
    """How a case of `cases` (see `processes_of_shared_cases`) ended on the systems that have no result for it."""
    if content.failed.empty or cases.empty:
        return {}
    parts = [table[_REQUIRED_COLUMNS] for table in (content.shown, content.failed)]
    both = add_case_numbers(pd.concat(parts, ignore_index=True))
    number = dict(zip(both["attempt_id"], both["number"], strict=True))
    ours = {number[attempt]: case for attempt, case in zip(cases["attempt_id"], cases["number"], strict=True)}
    failed = both.iloc[len(content.shown) :]
    return {
        (ours[n], system): status
        for n, system, status in zip(failed["number"], failed["system_id"], failed["status"], strict=True)
        if n in ours
    }


_SHOWN_FACTS = ("device_name", "energy_source", "energy_scope", "energy_note", "flop_partial")
_REQUIRED_COLUMNS = ["attempt_id", "system_id", "status", "label", *MATCH_COLUMNS]


def unshared_cases_table(content: Content) -> Table:
    """What stands beside nothing, by network, mode, system and reason, with the number of cases."""
    counts = Counter(
        (str(case["model"]), str(case["mode"]), content.system_names.get(case["system_id"], "unknown"), reason)
        for case, reason in _unshared_cases(content)
    )
    place = {name: i for i, name in enumerate(sort_networks(key[0] for key in counts))}
    order = {name: i for i, name in enumerate(content.system_names.values())}
    columns = [Column("model", "Network"), Column("mode", "Mode"), Column("system", "Measured on")]
    columns += [Column("cases", "Cases"), Column("reason", "Left out because")]
    rows: list[list[Cell]] = [
        [network_title(model), mode, system, counts[model, mode, system, reason], reason]
        for model, mode, system, reason in sorted(
            counts, key=lambda k: (place[k[0]], MODES.index(k[1]), order.get(k[2], len(order)), k[3])
        )
    ]
    return Table(columns, rows)


def _unshared_cases(content: Content) -> Iterator[tuple[Mapping[Hashable, Any], str]]:
    """Each measured case that only one system has, with the reason why it stands beside nothing."""
    parts = [table[_REQUIRED_COLUMNS] for table in (content.shown, content.failed) if len(table)]
    if not parts:
        return
    both = add_case_numbers(pd.concat(parts, ignore_index=True))
    both[list(MATCH_COLUMNS)] = _normalize_protocol(both)
    measured = both.iloc[: len(content.shown)].drop_duplicates(["number", "system_id"])
    failed = both.iloc[len(content.shown) :]
    ended = {n: list(zip(f["system_id"], f["status"], strict=True)) for n, f in failed.groupby("number")}
    alone = measured[~measured.duplicated("number", keep=False)]
    alike = {key: group.to_dict("records") for key, group in measured.groupby(list(_WORK_AXES))}
    for case in alone.to_dict("records"):
        elsewhere = [(s, status) for s, status in ended.get(case["number"], []) if s != case["system_id"]]
        others = [c for c in alike[tuple(case[a] for a in _WORK_AXES)] if c["system_id"] != case["system_id"]]
        if elsewhere:
            where = [f"on {content.system_names.get(s, 'an unknown system')}: {status}" for s, status in elsewhere]
            yield case, f"no result {', '.join(dict.fromkeys(where))}"
        elif others:
            yield case, _difference_to_nearest_case(case, others, content.system_names)
        else:
            yield case, "measured on no other system"


def _difference_to_nearest_case(
    case: Mapping[Hashable, Any], others: list[dict[Hashable, Any]], names: dict[str, str]
) -> str:
    """In what the nearest case of another system differs."""
    near = min(others, key=lambda other: sum(case[k] != other[k] for k in MATCH_COLUMNS))
    there = names.get(near["system_id"], "an unknown system")
    said = []
    for key in MATCH_COLUMNS:
        if case[key] == near[key]:
            continue
        if key == "protocol":
            here, other = json.loads(case[key]), json.loads(near[key])
            differing = [k for k in here | other if here.get(k) != other.get(k)]
            said += [f"protocol differs: {k} is {here.get(k)} here and {other.get(k)} on {there}" for k in differing]
        else:
            said.append(f"{case_axis_title(key).lower()} differs: {case[key]} here and {near[key]} on {there}")
    return "; ".join(said)


def _normalize_protocol(cases: pd.DataFrame) -> pd.DataFrame:
    """What has to agree, so that it is equal where the measuring was."""
    values = fill_missing_axes(cases[list(MATCH_COLUMNS)].assign(protocol=normalize_protocol_column(cases["protocol"])))
    sides = list(ab_side_by_system(cases).values())
    return _remove_ab_side_settings(values, sides) if sides else values


def _remove_ab_side_settings(values: pd.DataFrame, sides: Sequence[Side]) -> pd.DataFrame:
    """The values of the two sides of an A/B experiment, equal where only their settings differ."""
    changed = set().union(*(side.changed_keys for side in sides))
    keys = [key.removeprefix(PROTOCOL_PREFIX) for key in changed if key.startswith(PROTOCOL_PREFIX)]
    protocols = {text: {k: v for k, v in json.loads(text).items() if k not in keys} for text in set(values["protocol"])}
    texts = {text: json.dumps(protocol, sort_keys=True) for text, protocol in protocols.items()}
    same = dict.fromkeys((name for name in MATCH_COLUMNS if name in changed), "")
    return values.assign(suite=sides[0].experiment, protocol=values["protocol"].map(texts), **same)
