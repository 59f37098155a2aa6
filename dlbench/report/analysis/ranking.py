"""The best system of each case by each metric, by how much, and how sure.

The statistics and the scale are those of `comparison_statistics`. `better`: several processes on each side, and the
difference holds at 95 % for all rows of a metric together. `same`: the whole interval lies within 1 %. `not decided`:
all else, such as fewer than three processes on a side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from dlbench import units
from dlbench.process_statistics import MIN_PROCESSES
from dlbench.report.analysis.comparison_statistics import (
    DEFAULT_MARGIN,
    Comparison,
    compare_process_groups,
    correct_p_values_by_holm,
)
from dlbench.report.analysis.metrics import METRICS

BETTER, SAME, NOT_DECIDED = "better", "same", "not decided"
#: What stands for a share of the bound, and for memory: the metric that most cases have, the first of equals.
BOUND_METRICS = ("share_of_measured_peak", "mfu")
MEMORY_METRICS = ("memory_allocated", "memory_device", "memory_rss")
#: Memory is what a program asks for: two runs of one program ask for the same, and no interval is needed.
_EXACT_METRICS = frozenset(MEMORY_METRICS)


@dataclass(frozen=True)
class CaseWinner:
    """The best system in one case by one metric, and what may be said of its distance to the next."""

    number: int
    metric: str
    best: str  # system_id
    value: float
    runner_up: str
    runner_up_value: float
    ratio: float  # best over runner-up
    low: float | None = None  # interval of the ratio, where it is measured
    high: float | None = None
    outcome: str = SAME
    comparison: Comparison | None = None

    @property
    def outcome_text(self) -> str:
        """What the outcome is called where no system is better."""
        if self.outcome == NOT_DECIDED and self.comparison and self.comparison.verdict == NOT_DECIDED:
            return self.comparison.verdict_text
        return f"no difference beyond {units.percent_text(DEFAULT_MARGIN, 1)}" if self.outcome == SAME else self.outcome

    @property
    def lead_with_interval(self) -> str:
        """How far ahead, with the interval where there is one: ``+34 % [+31, +37]``."""
        text = f"{_signed_percent(self.ratio)} %"
        if self.low is None or self.high is None:
            return text
        return f"{text} [{_signed_percent(self.low)}, {_signed_percent(self.high)}]"


def ranking_metrics(cases: pd.DataFrame) -> list[str]:
    """The metrics by which systems are ranked: throughput, energy per image, memory, share of the bound."""
    found = [most_available_metric(cases, alike) for alike in (MEMORY_METRICS, BOUND_METRICS)]
    return ["throughput", "energy_per_image", *found]


def most_available_metric(cases: pd.DataFrame, metrics: Sequence[str]) -> str:
    """The metric that most cases have, among those that stand for the same thing."""
    return max(metrics, key=lambda name: int(cases[[name]].notna().to_numpy().sum()))


def find_case_winners(cases: pd.DataFrame, metric: str) -> list[CaseWinner]:
    """The best system of each case by `metric`; cases in which fewer than two systems have a value are passed over.

    `cases` has one row per process, as `side_by_side.processes_of_shared_cases` gives them.
    """
    found = []
    for number, case in cases[cases[metric].gt(0)].groupby("number", sort=False):
        if metric == "energy_per_image":
            case = keep_common_energy_scope(case)
        medians = case.groupby("system_id", sort=False)[metric].median()
        if len(medians) > 1:
            found.append(_find_winner_of_case(int(str(number)), case, medians, metric))
    tested = [s for s in found if s.comparison and s.comparison.has_measured_spread]
    corrected = dict(
        zip(map(id, tested), correct_p_values_by_holm([s.comparison for s in tested if s.comparison]), strict=True)
    )
    return [_set_outcome_from_comparison(s, corrected.get(id(s), s.comparison)) for s in found]


def keep_common_energy_scope(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases whose energy has the scope that most systems have: what a device used is no rival of a whole node's."""
    scopes = cases.groupby("energy_scope", sort=True)["system_id"].nunique()
    return cases if len(scopes) < 2 else cases[cases["energy_scope"] == scopes.idxmax()]


def speedup(base: pd.DataFrame, target: pd.DataFrame) -> Comparison:
    """Target over base, one row per process each: above 1 means that the target is faster."""
    few = min(len(base), len(target)) < MIN_PROCESSES
    sides = [
        [steps.tolist() if few else [float(middle)] for steps, middle in zip(s["samples"], s["step_time"], strict=True)]
        for s in (base, target)
    ]
    return compare_process_groups(sides[0], sides[1]).swap_sides()


def _find_winner_of_case(number: int, case: pd.DataFrame, medians: pd.Series[float], metric: str) -> CaseWinner:
    order = medians.sort_values(ascending=METRICS[metric].better == "lower", kind="stable")
    best, second = str(order.index[0]), str(order.index[1])
    value, other = float(order.iloc[0]), float(order.iloc[1])
    standing = CaseWinner(number, metric, best, value, second, other, value / other)
    if metric in _EXACT_METRICS:
        return standing
    base, target = (case[case["system_id"] == system] for system in (second, best))
    if metric == "throughput":
        return replace(standing, comparison=speedup(base, target))
    # With few processes the steps have to show what they can, but a share of a peak has another peak on each side.
    if metric in BOUND_METRICS and min(len(base), len(target)) < MIN_PROCESSES:
        # The comparison of the step times, moved to the ratio of the shares.
        steps = speedup(base, target)
        shift = float(target[metric].median() / base[metric].median()) / steps.ratio
        low, high = (None if limit is None else limit * shift for limit in (steps.low, steps.high))
        return replace(standing, comparison=replace(steps, ratio=steps.ratio * shift, low=low, high=high))
    values = [[[float(value)] for value in side[metric]] for side in (base, target)]
    return replace(standing, comparison=compare_process_groups(values[0], values[1]))


def _set_outcome_from_comparison(standing: CaseWinner, found: Comparison | None) -> CaseWinner:
    if found is None:
        small = 1 / (1 + DEFAULT_MARGIN) <= standing.ratio <= 1 + DEFAULT_MARGIN
        return replace(standing, outcome=SAME if small else BETTER)
    # Medians and geometric means may disagree about which side is better: then neither is.
    same_way = (found.ratio > 1) == (standing.ratio > 1)
    if not found.has_measured_spread:
        return replace(standing, outcome=NOT_DECIDED, comparison=found)
    outcome = SAME if found.verdict == "same" else NOT_DECIDED
    if found.verdict in ("faster", "slower") and same_way:
        outcome = BETTER
    return replace(standing, outcome=outcome, ratio=found.ratio, low=found.low, high=found.high, comparison=found)


def _signed_percent(ratio: float) -> str:
    if not math.isfinite(ratio):
        return units.MISSING
    change = 100 * (ratio - 1)
    return f"{'+' if change >= 0 else '−'}{units.number_text(abs(change), 2 if abs(change) < 100 else 3)}"
