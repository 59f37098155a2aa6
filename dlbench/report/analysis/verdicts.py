"""What each system is worth against another, per precision and mode: the numbers of the brief.

A ratio is target over base, from one row per process. Over several cases it is the geometric mean of their ratios, with
the interval that follows from how the processes of each case differ: it holds for these cases, and says nothing of
other networks. Each mean comes with the range of its cases, and there is none over precisions or modes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from dlbench.report.analysis.comparison_statistics import DEFAULT_MARGIN, Comparison
from dlbench.report.analysis.mix import Work
from dlbench.report.analysis.projection import JOULES_PER_KWH, Prices
from dlbench.report.analysis.ranking import MEMORY_METRICS, best_known, of_one_meter
from dlbench.reruns import MIN_PROCESSES
from dlbench.suites.case import MODES, PRECISIONS, USUAL_CONFIDENCE

#: Metrics of which two runs of one program give the same value, so that no interval is needed.
_EXACT = frozenset(MEMORY_METRICS)
COST = "cost_per_image"

#: Of each case and system the logarithms of a metric, one per process.
Logs = Mapping[tuple[int, str], Sequence[float]]


@dataclass(frozen=True)
class Group:
    """A precision and a mode, with the shared cases that are in it."""

    mode: str
    precision: str
    numbers: tuple[int, ...]

    @property
    def title(self) -> str:
        """Such as "training, fp32"."""
        return f"{self.mode}, {self.precision}"


@dataclass(frozen=True)
class Ratio:
    """Target over base in something of which less is better: time, energy, memory or cost per image."""

    comparison: Comparison
    least: float  # the range of the cases
    most: float
    num_cases: int
    exact: bool = False

    @property
    def value(self) -> float:
        """The geometric mean; for a mix of work the ratio of its total times."""
        return self.comparison.ratio

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of `value`; None where the spread between processes was not measured."""
        c = self.comparison
        return None if c.low is None or c.high is None or c.basis == "assumed" else (c.low, c.high)

    @property
    def decided(self) -> bool:
        """Whether target is better or worse for certain, and by more than the margin that counts as none."""
        if self.exact:
            return not 1 / (1 + DEFAULT_MARGIN) <= self.value <= 1 + DEFAULT_MARGIN
        return self.comparison.verdict in ("faster", "slower")

    @property
    def words(self) -> str:
        """The verdict on the one scale of certainty."""
        if self.exact and not self.decided:
            return f"no difference beyond {100 * DEFAULT_MARGIN:g} %"
        if self.exact:
            return "less" if self.value < 1 else "more"
        return self.comparison.words

    def better(self) -> Ratio:
        """The same the other way round: how many times as fast the target is, with its interval and range."""
        c = self.comparison
        turned = Comparison(
            **{**vars(c), "ratio": 1 / c.ratio, "low": c.high and 1 / c.high, "high": c.low and 1 / c.low}
        )
        return Ratio(turned, 1 / self.most, 1 / self.least, self.num_cases, self.exact)


def groups(cases: pd.DataFrame, systems: Sequence[str]) -> list[Group]:
    """The precisions and modes in which all `systems` share cases; training first.

    Args:
        cases: one row per case and system, with `number`.
    """
    shared = cases[cases["system_id"].isin(systems)]
    everywhere = shared[shared.groupby("number")["system_id"].transform("nunique").eq(len(systems)).astype(bool)]
    found = []
    for mode in MODES:
        for precision in PRECISIONS:
            there = everywhere[(everywhere["mode"] == mode) & (everywhere["precision"] == precision)]
            if len(there):
                found.append(Group(mode, precision, tuple(int(n) for n in there["number"].unique())))
    return found


def metrics_of(processes: pd.DataFrame) -> dict[str, str]:
    """What systems are compared by, with the column of each: less is better in all."""
    found = {"time": "step_time", "energy": "energy_per_image", "memory": best_known(processes, MEMORY_METRICS)}
    if COST in processes:
        found["cost"] = COST
    return {name: column for name, column in found.items() if processes[column].gt(0).any()}


def with_cost(processes: pd.DataFrame, prices: Prices | None, names: Mapping[str, str]) -> pd.DataFrame:
    """`processes` with the price of an image, where one is known for the system."""
    if prices is None:
        return processes
    costs = []
    for row in processes[["system_id", "throughput", "nodes", "devices_per_node", "energy_per_image"]].to_dict(
        "records"
    ):
        own = prices.of(names.get(row["system_id"], ""))
        cost = math.nan
        if own is not None and row["throughput"] > 0:
            devices = row["nodes"] * row["devices_per_node"]
            cost = (own.per_device_hour or 0.0) * devices / 3600 / row["throughput"]
            cost += (own.per_kwh or 0.0) * own.pue * row["energy_per_image"] / JOULES_PER_KWH if own.per_kwh else 0.0
        costs.append(cost)
    return processes.assign(**{COST: costs})


def logs_of(processes: pd.DataFrame, metric: str) -> dict[tuple[int, str], list[float]]:
    """Of each case and system the logarithm of a metric in each process; energies of one kind of meter only."""
    known = processes[processes[metric].gt(0)]
    if metric == "energy_per_image":
        known = of_one_meter(known)
    found: dict[tuple[int, str], list[float]] = {}
    for number, system, value in known[["number", "system_id", metric]].itertuples(index=False):
        found.setdefault((int(number), str(system)), []).append(math.log(value))
    return found


def ratio(logs: Logs, base: str, target: str, numbers: Iterable[int], metric: str = "") -> Ratio | None:
    """Target over base as the geometric mean over the cases that both have; None without any."""
    pairs = [(logs[n, base], logs[n, target]) for n in numbers if (n, base) in logs and (n, target) in logs]
    return _combined(pairs, [1 / len(pairs)] * len(pairs), metric in _EXACT) if pairs else None


def mix_ratio(logs: Logs, base: str, target: str, weights: Mapping[int, float]) -> Ratio | None:
    """The time of a whole mix of work on target over that on base.

    Args:
        weights: of each case its share of the time on base.
    """
    known = {n: w for n, w in weights.items() if (n, base) in logs and (n, target) in logs}
    if not known:
        return None
    pairs = [(logs[n, base], logs[n, target]) for n in known]
    times = [w * math.exp(fmean(b) - fmean(a)) for (a, b), w in zip(pairs, known.values(), strict=True)]
    total = sum(times) / sum(known.values())
    # By the delta method each case weighs by its share of the time on target.
    found = _combined(pairs, [time / sum(times) for time in times], exact=False)
    shift = total / found.comparison.ratio
    c = found.comparison
    moved = {"ratio": total, "low": c.low and c.low * shift, "high": c.high and c.high * shift}
    return Ratio(Comparison(**{**vars(c), **moved}), found.least, found.most, found.num_cases)


def weights_of(mix: Sequence[Work], cases: pd.DataFrame) -> tuple[dict[int, float], list[Work]]:
    """The share of each case, that of a kind of work spread evenly over its cases; and the work that has no case."""
    shares: dict[int, float] = {}
    missing = []
    rows = cases.drop_duplicates("number").to_dict("records")
    for work in mix:
        numbers = [int(case["number"]) for case in rows if work.covers(case)]
        if not numbers:
            missing.append(work)
        for number in numbers:
            shares[number] = shares.get(number, 0.0) + work.share / len(numbers)
    return shares, missing


def order(logs: Logs, systems: Sequence[str], numbers: Sequence[int]) -> list[str]:
    """The systems that have all these cases, the best (least) first."""
    means = {s: fmean(fmean(logs[n, s]) for n in numbers) for s in systems if all((n, s) in logs for n in numbers)}
    return sorted(means, key=lambda system: means[system])


def _combined(pairs: Sequence[tuple[Sequence[float], Sequence[float]]], weights: list[float], exact: bool) -> Ratio:
    """The weighted mean of the differences of logarithms; its standard error from the processes of each case."""
    differences = [fmean(b) - fmean(a) for a, b in pairs]
    d = sum(w * x for w, x in zip(weights, differences, strict=True))
    fewest = min(min(len(a), len(b)) for a, b in pairs)
    variance, denominator = 0.0, 0.0
    if fewest >= MIN_PROCESSES:
        for weight, sides in zip(weights, pairs, strict=True):
            for side in sides:
                share = weight**2 * stdev(side) ** 2 / len(side)
                variance += share
                denominator += share**2 / (len(side) - 1)
    comparison = _comparison(d, math.sqrt(variance), variance**2 / denominator if denominator else 0.0, fewest)
    return Ratio(comparison, math.exp(min(differences)), math.exp(max(differences)), len(pairs), exact)


def _comparison(d: float, error: float, degrees: float, fewest: int) -> Comparison:
    low = high = p_value = None
    if error > 0:
        # It takes some time to import, and most reports compare no systems.
        from scipy.special import stdtr, stdtrit

        reach = float(stdtrit(degrees, (1 + USUAL_CONFIDENCE) / 2)) * error
        low, high, p_value = math.exp(d - reach), math.exp(d + reach), float(2 * stdtr(degrees, -abs(d) / error))
    common: dict[str, Any] = {"confidence": USUAL_CONFIDENCE, "margin": DEFAULT_MARGIN, "chance_b_slower": None}
    return Comparison(
        ratio=math.exp(d),
        low=low,
        high=high,
        p_value=p_value,
        adjusted_p_value=p_value,
        num_processes_a=fewest,
        num_processes_b=fewest,
        basis="processes" if fewest >= MIN_PROCESSES else "assumed",
        standard_error=error or None,
        **common,
    )
