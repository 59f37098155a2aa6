"""Systems against each other, per precision and mode: the numbers of the brief.

A ratio is target over base, from one row per process. Over several cases it is the geometric mean of their ratios, with
the interval that follows from how the processes of each case differ: it holds for these cases, and says nothing of
other networks. Each mean comes with the range of its cases, and there is none over precisions or modes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import pandas as pd

from dlbench import units
from dlbench.report.analysis.comparison_matching import ran_back_to_back
from dlbench.report.analysis.comparison_statistics import (
    Comparison,
    compare_over_weighted_cases,
    correct_p_values_by_holm,
)
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.projection import Prices
from dlbench.report.analysis.ranking import MEMORY_METRICS, keep_common_energy_scope, most_available_metric
from dlbench.report.analysis.side_by_side import find_shared_cases
from dlbench.report.analysis.workload_mix import WorkShare
from dlbench.suites.case import MODES, PRECISIONS

COST_COLUMN = "cost_per_image"
TIME_COLUMN = "time_per_image"
_COST_COLUMNS = ["system_id", "throughput", "nodes", "devices_per_node", "energy_per_image"]

#: The logarithms of a metric, one per process, by case and system.
LogSamples = Mapping[tuple[int, str], Sequence[float]]


@dataclass(frozen=True)
class PrecisionModeGroup:
    """A precision and a mode, with the shared cases that are in it."""

    mode: str
    precision: str
    numbers: tuple[int, ...]

    @property
    def name(self) -> str:
        """Such as "fp32 training"."""
        return f"{self.precision} {self.mode}"


@dataclass(frozen=True)
class SystemRatio:
    """Target over base in something of which less is better: time, energy, memory or cost per image."""

    comparison: Comparison
    least: float  # the range of the cases
    most: float
    num_cases: int

    @property
    def value(self) -> float:
        """The geometric mean; for a mix of work the ratio of its total times."""
        return self.comparison.ratio

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of `value`; None where the spread between processes was not measured."""
        c = self.comparison
        return None if c.low is None or c.high is None else (c.low, c.high)

    @property
    def text(self) -> str:
        """The value with its interval: "1.25 [1.24, 1.26]"."""
        ends = f" [{', '.join(map(units.ratio_text, self.interval))}]" if self.interval else ""
        return f"{units.ratio_text(self.value)}{ends}"

    @property
    def is_decided(self) -> bool:
        """Whether target is better or worse for certain, and by more than the margin that counts as none."""
        return self.comparison.verdict in ("faster", "slower")

    def swap_sides(self) -> SystemRatio:
        """The same the other way round: how many times as fast the target is, with its interval and range."""
        return SystemRatio(self.comparison.swap_sides(), 1 / self.most, 1 / self.least, self.num_cases)


@dataclass(frozen=True)
class LeadingSystem:
    """The best system of a group, the next, and how far apart they are."""

    group: PrecisionModeGroup
    best: str
    second: str
    ratio: SystemRatio  # best over second in time, energy or cost
    what: str


@dataclass(frozen=True)
class SystemComparison:
    """What the brief is written from."""

    names: Mapping[str, str]  # of the systems that share cases, by `system_id`
    base: str
    groups: Sequence[PrecisionModeGroup]
    cases: pd.DataFrame
    logs: Mapping[str, LogSamples]  # by what is compared: time, energy, memory, cost
    attempts: Mapping[tuple[int, str], Sequence[str]]  # by number and system
    paired: bool = False  # the two sides of `dlbench ab`: logarithms at the same place ran next to each other

    def other_systems(self) -> list[str]:
        """Every system but the baseline."""
        return [system for system in self.names if system != self.base]

    def ratio(self, what: str, base: str, target: str, numbers: Iterable[int]) -> SystemRatio | None:
        """Target over base in `what`, as the geometric mean over the cases that both have; None without any."""
        return geometric_mean_ratio(self.logs.get(what, {}), base, target, numbers, self.paired)

    def leading_systems(self, what: str) -> list[LeadingSystem]:
        """Per precision and mode the best system by time, energy or cost, where two or more are known."""
        found = []
        for group in self.groups:
            ranked = rank_systems(self.logs[what], list(self.names), group.numbers)
            if len(ranked) > 1:
                apart = self.ratio(what, ranked[1], ranked[0], group.numbers)
                assert apart
                found.append(LeadingSystem(group, ranked[0], ranked[1], apart, what))
        # Read together, so that one false "faster" in all of them stays improbable.
        corrected = correct_p_values_by_holm([one.ratio.comparison for one in found])
        return [replace(one, ratio=replace(one.ratio, comparison=c)) for one, c in zip(found, corrected, strict=True)]


def compare_systems(content: Content) -> SystemComparison | None:
    """The numbers behind the brief; None where systems share no case."""
    shared = find_shared_cases(content)
    if shared.cases.empty:
        return None
    there = set(shared.cases["system_id"])
    names = {system: name for system, name in content.system_names.items() if system in there}
    base = content.baseline_id(names)
    processes = add_cost_per_image(shared.processes, content.prices, names)
    # The sides of an A/B experiment may differ in the batch: their times are per sample.
    processes = processes.assign(**{TIME_COLUMN: 1 / processes["throughput"]})
    columns = compared_metrics(processes)
    logs = {what: log_metric_per_process(processes, column, bool(content.sides)) for what, column in columns.items()}
    attempts: dict[tuple[int, str], list[str]] = {}
    for number, system, attempt in processes[["number", "system_id", "attempt_id"]].itertuples(index=False):
        attempts.setdefault((int(number), str(system)), []).append(str(attempt))
    groups = group_by_precision_and_mode(shared.cases, list(names))
    return SystemComparison(names, base, groups, shared.cases, logs, attempts, bool(content.sides))


def group_by_precision_and_mode(cases: pd.DataFrame, systems: Sequence[str]) -> list[PrecisionModeGroup]:
    """The precisions and modes in which all `systems` share cases (a row per case and system); training first.

    Where the sides of an A/B experiment differ in precision, that of the group is such as "fp32 → tf32".
    """
    shared = cases[cases["system_id"].isin(systems)]
    everywhere = shared[shared.groupby("number")["system_id"].transform("nunique").eq(len(systems)).astype(bool)]
    place = {system: i for i, system in enumerate(systems)}
    in_order = everywhere.sort_values("system_id", key=lambda ids: ids.map(place), kind="stable")
    precisions = in_order.groupby("number")["precision"].agg(lambda values: " → ".join(dict.fromkeys(values)))
    modes = everywhere.groupby("number")["mode"].first()
    numbers = everywhere["number"].unique()
    found = []
    for mode in MODES:
        for precision in sort_precisions(precisions):
            there = tuple(int(n) for n in numbers if (modes[n], precisions[n]) == (mode, precision))
            if there:
                found.append(PrecisionModeGroup(mode, precision, there))
    return found


def sort_precisions(names: Iterable[str]) -> list[str]:
    """Precisions, and what they change to such as "fp32 → tf32", in the usual order."""
    order = {name: i for i, name in enumerate(PRECISIONS)}
    return sorted(set(names), key=lambda name: [order.get(part, len(order)) for part in name.split(" → ")])


def compared_metrics(processes: pd.DataFrame) -> dict[str, str]:
    """What systems are compared by, with the column of each: less is better in all."""
    found = {
        "time": TIME_COLUMN,
        "energy": "energy_per_image",
        "memory": most_available_metric(processes, MEMORY_METRICS),
    }
    if COST_COLUMN in processes:
        found["cost"] = COST_COLUMN
    return {name: column for name, column in found.items() if processes[column].gt(0).any()}


def add_cost_per_image(processes: pd.DataFrame, prices: Prices | None, names: Mapping[str, str]) -> pd.DataFrame:
    """`processes` with the price of an image, where one is known for the system."""
    if prices is None:
        return processes
    costs = []
    for row in processes[_COST_COLUMNS].to_dict("records"):
        own = prices.prices_of_system(names.get(row["system_id"], ""))
        cost = None
        if own is not None and row["throughput"] > 0:
            device_hours = row["nodes"] * row["devices_per_node"] / 3600 / row["throughput"]
            cost = own.cost(device_hours, row["energy_per_image"] if row["energy_per_image"] > 0 else None)
        costs.append(math.nan if cost is None else cost)
    return processes.assign(**{COST_COLUMN: costs})


def log_metric_per_process(
    processes: pd.DataFrame, metric: str, paired: bool = False
) -> dict[tuple[int, str], list[float]]:
    """The logarithm of a metric in each process, by case and system; energies of one kind of meter only.

    `paired`: only of whole pairs, which have the same `repeat` on both systems, and in their order.
    """
    known = processes[processes[metric].gt(0)]
    if metric == "energy_per_image":
        known = keep_common_energy_scope(known)
    if paired:
        known = _keep_complete_pairs(known)
    found: dict[tuple[int, str], list[float]] = {}
    for number, system, value in known[["number", "system_id", metric]].itertuples(index=False):
        found.setdefault((int(number), str(system)), []).append(math.log(value))
    return found


def _keep_complete_pairs(processes: pd.DataFrame) -> pd.DataFrame:
    """The processes whose other half ran right before or after, by number and pair."""
    kept = []
    for _, halves in processes.sort_values(["number", "repeat"], kind="stable").groupby(["number", "repeat"]):
        rows = halves.to_dict("records")
        if len(rows) == 2 and ran_back_to_back(*rows):
            kept += halves.index.tolist()
    return processes.loc[kept]


def geometric_mean_ratio(
    logs: LogSamples, base: str, target: str, numbers: Iterable[int], paired: bool = False
) -> SystemRatio | None:
    """Target over base as the geometric mean over the cases that both have; None without any."""
    pairs = [(logs[n, base], logs[n, target]) for n in numbers if (n, base) in logs and (n, target) in logs]
    return _combine_case_ratios(pairs, [1 / len(pairs)] * len(pairs), paired=paired) if pairs else None


def workload_mix_ratio(
    logs: LogSamples, base: str, target: str, weights: Mapping[int, float], paired: bool = False
) -> SystemRatio | None:
    """The time of a mix of work on target over that on base, of which each case has its weight as share."""
    known = {n: w for n, w in weights.items() if (n, base) in logs and (n, target) in logs}
    if not known:
        return None
    pairs = [(logs[n, base], logs[n, target]) for n in known]
    times = [w * math.exp(fmean(b) - fmean(a)) for (a, b), w in zip(pairs, known.values(), strict=True)]
    total = sum(times) / sum(known.values())
    # By the delta method each case weighs by its share of the time on target.
    return _combine_case_ratios(pairs, [time / sum(times) for time in times], total, paired)


def weigh_cases_by_mix(mix: Sequence[WorkShare], cases: pd.DataFrame) -> tuple[dict[int, float], list[WorkShare]]:
    """The share of each case, that of a kind of work spread evenly over its cases; and the work that has no case."""
    shares: dict[int, float] = {}
    missing = []
    rows = cases.drop_duplicates("number").to_dict("records")
    for work in mix:
        numbers = [int(case["number"]) for case in rows if work.matches_case(case)]
        if not numbers:
            missing.append(work)
        for number in numbers:
            shares[number] = shares.get(number, 0.0) + work.share / len(numbers)
    return shares, missing


def rank_systems(logs: LogSamples, systems: Sequence[str], numbers: Sequence[int]) -> list[str]:
    """The systems that have all these cases, the best (least) first."""
    means = {s: fmean(fmean(logs[n, s]) for n in numbers) for s in systems if all((n, s) in logs for n in numbers)}
    return sorted(means, key=lambda system: means[system])


def _combine_case_ratios(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]],
    weights: Sequence[float],
    value: float | None = None,
    paired: bool = False,
) -> SystemRatio:
    """The ratio over cases, and their range."""
    ratios = [math.exp(fmean(b) - fmean(a)) for a, b in pairs]
    return SystemRatio(
        compare_over_weighted_cases(pairs, weights, ratio=value, paired=paired), min(ratios), max(ratios), len(pairs)
    )
