"""Is B slower than A? The statistics of a comparison, from the step times of fresh processes on each side.

What differs from process to process (addresses, clocks, algorithm choice, neighbours) is usually larger than what a
window can see of itself: ten thousand steps of one process give a narrow interval around that process, not around the
program. So the unit here is the process, and its value is the logarithm of its median step time (Hoefler & Belli 2015,
SC15, rules 5 to 8; Kalibera & Jones 2013, ISMM, "Rigorous Benchmarking in Reasonable Time"):

    d = mean log B - mean log A,        ratio B/A = exp d,        interval exp(d ± t · standard error)

- `compare_process_groups` of pairs: A and B ran in turns; Student's t over the differences within each pair. What
  drifts over minutes is common to both and cancels. This is the way to measure; `DEFAULT_PAIRS` says how many.
- `compare_process_groups`: independent processes; Welch's t, which lets the sides differ in variance and number. Its
  standard errors are those of `process_statistics.interval_over_processes`, `DRIFT_ALLOWANCE` included.
- Fewer than three processes on a side cannot show how processes differ. The interval is then widened by a spread that
  is assumed, and the verdict stays `not decided`: on a shared machine of two cores, 24 fresh processes of one program
  had medians from 10 to 30 ms, each with an interval of its own of ±8 %. Only who knows the spread of a machine, from
  earlier repeats, and states it (`between_processes`) gets a verdict.

Over many comparisons, `correct_p_values_by_holm` applies Holm's correction (1979, Scandinavian J. of Statistics 6(2)):
the chance of even one false "faster" or "slower" in the whole table stays below 5 %, whatever their dependence.
Benjamini-Hochberg would find a little more, but lets a share of the findings be false, and each line may be what money
is spent by.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import fmean, median, stdev
from typing import Literal

from dlbench import process_statistics, units
from dlbench.errors import InvalidMeasurement
from dlbench.process_statistics import MIN_PROCESSES, exp_within_float_range
from dlbench.stats import Interval, median_interval, relative_iqr, validate_times

#: Pairs of processes that `dlbench ab` runs unless told otherwise. With ten, a slowdown of 3 % is called slower in at
#: least 95 % of runs as long as processes differ by a standard deviation of up to 1.6 %; docs/experiments/coverage.md.
DEFAULT_PAIRS = 10
#: Relative standard deviation between processes, assumed at least where it cannot be measured.
ASSUMED_BETWEEN_PROCESSES = 0.01
#: A change of less than this counts as none.
DEFAULT_MARGIN = 0.01

Basis = Literal["pairs", "processes", "stated", "assumed"]
Verdict = Literal["faster", "slower", "same", "not decided"]
Processes = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Comparison:
    """B over A in step time: above 1 means that B is slower. Without interval and p-value nothing can be said."""

    ratio: float
    low: float | None
    high: float | None
    confidence: float
    p_value: float | None  # two-sided, of "no difference"
    adjusted_p_value: float | None  # the same until `correct_p_values_by_holm` has seen all comparisons of a table
    num_processes_a: int  # of several cases: of the case with the fewest
    num_processes_b: int
    basis: Basis
    margin: float
    standard_error: float | None = None  # of the logarithm of the ratio
    chance_b_slower: float | None = None  # that a process of B is slower than one of A: 0.5 is no difference

    @property
    def verdict(self) -> Verdict:
        """What may be said of B.

        `same` when the whole interval lies within 1/(1 + margin) and 1 + margin: even a difference that is certain is
        then too small to matter. Else `faster` or `slower` when the adjusted p-value is below 1 - confidence; without
        correction that is when the interval excludes 1. Else `not decided`, and always where the spread between
        processes is neither measured nor stated.
        """
        if self.low is None or self.high is None or self.adjusted_p_value is None or self.basis == "assumed":
            return "not decided"
        if 1 / (1 + self.margin) <= self.low and self.high <= 1 + self.margin:
            return "same"
        if self.adjusted_p_value < 1 - self.confidence:
            return "slower" if self.ratio > 1 else "faster"
        return "not decided"

    @property
    def more_processes_needed(self) -> int | None:
        """How many more processes on each side would decide, if they differ as the ones so far; 0 where it is decided.

        A verdict falls where the interval excludes 1, or lies within the margin. None where nothing shows how processes
        differ, or where more than `process_statistics.MAX_PROCESSES` would be needed.
        """
        if self.verdict != "not decided":
            return 0
        now, error = min(self.num_processes_a, self.num_processes_b), self.standard_error
        if self.basis == "assumed" or error is None or error <= 0:
            return MIN_PROCESSES - now if now < MIN_PROCESSES else None
        d, edge = abs(math.log(self.ratio)), math.log1p(self.margin)
        # For one process on each side, or for one pair.
        shares = 1.0 if self.basis == "pairs" else 1 / self.num_processes_a + 1 / self.num_processes_b
        spread = error * math.sqrt(now) if self.basis == "pairs" else error / math.sqrt(shares)
        # What the correction for a whole table asks for.
        adjusted = self.adjusted_p_value / self.p_value if self.p_value and self.adjusted_p_value else 1.0
        strict = 1 - (1 - self.confidence) / adjusted

        def would_decide_verdict(n: int) -> bool:
            degrees = n - 1 if self.basis == "pairs" else 2 * (n - 1)
            unit = spread / math.sqrt(n) if self.basis == "pairs" else spread * math.sqrt(2 / n)
            return (
                d > process_statistics.student_quantile(degrees, strict) * unit
                or d + process_statistics.student_quantile(degrees, self.confidence) * unit <= edge
            )

        found = process_statistics.processes_needed(would_decide_verdict, now + 1)
        return None if found is None else found - now

    @property
    def verdict_text(self) -> str:
        """The verdict as a reader of a page wants it, and what would decide where nothing is decided yet."""
        if self.verdict == "same":
            return f"no difference beyond {units.percent_text(self.margin)}"
        if self.verdict != "not decided":
            return self.verdict
        if self.more_processes_needed is None:
            return "not decided"
        unit = "pair" if self.basis == "pairs" else "process"
        return f"not decided (needs {units.count_text(self.more_processes_needed, f'more {unit}')})"

    @property
    def has_measured_spread(self) -> bool:
        """Whether the interval rests on a measured spread between processes, and so may be shown."""
        return self.low is not None and self.basis != "assumed"

    @property
    def interval_text(self) -> str:
        """Both ends of the interval, such as "0.0083 to 0.012"; "" where it may not be shown."""
        return f"{units.ratio_text(self.low)} to {units.ratio_text(self.high)}" if self.has_measured_spread else ""

    def swap_sides(self) -> Comparison:
        """A over B."""
        low, high = (None if limit is None else 1 / limit for limit in (self.high, self.low))
        chance = None if self.chance_b_slower is None else 1 - self.chance_b_slower
        return replace(self, ratio=1 / self.ratio, low=low, high=high, chance_b_slower=chance)

    @property
    def has_no_spread(self) -> bool:
        """Whether the processes were enough to show how they differ, and showed no difference at all."""
        return self.low is None and self.basis in ("pairs", "processes")

    @property
    def caveat_of_verdict(self) -> str:
        """What a reader has to know beside the verdict; "" when there is nothing."""
        counts = f"{self.num_processes_a} against {self.num_processes_b} processes"
        if self.has_no_spread:
            reason = "the clock is too coarse, or the step times are copies"
            return f"{counts}: no interval, because all values are equal; {reason}"
        if self.low is None or self.basis == "assumed":
            # An interval from an assumed spread is no measurement: none is shown.
            advice = f"no confidence interval; run {MIN_PROCESSES} or more processes per side"
            return f"{counts} are too few to estimate the variation between processes: {advice}"
        if self.basis == "stated":
            return f"{counts}: the spread between processes was not measured; the value of --between-processes is used"
        return ""


def compare_process_groups(
    a: Processes,
    b: Processes,
    confidence: float = 0.95,
    margin: float = DEFAULT_MARGIN,
    between_processes: float | None = None,
    single_values: bool = False,
    paired: bool = False,
) -> Comparison:
    """B against A from independent processes, or from pairs.

    Args:
        a: for each process of A its step times in order [s], or its median alone as a list of one.
        b: the same of B; the numbers may differ.
        confidence: of the interval, between 0 and 1.
        margin: relative difference that counts as none; 0 turns the verdict `same` off.
        between_processes: relative standard deviation between processes of one program on this machine, as known from
            earlier repeats; used only where a side has fewer than three.
        single_values: each process has one value that its whole window gave, such as an energy, and no steps.
        paired: they ran in turns: a[i] and b[i] next to each other, in random order.

    Raises:
        InvalidMeasurement: a side has no process, a process no step, or a time is NaN, infinite, zero or negative;
            or pairs have different numbers of processes.
    """
    if paired and len(a) != len(b):
        raise InvalidMeasurement(
            f"pairs need equal numbers of processes of A and B, not {len(a)} and {len(b)}; leave out "
            "the records of the additional processes"
        )
    logs_a, logs_b = _log_median_of_each_process(a, "A"), _log_median_of_each_process(b, "B")
    d = fmean(logs_b) - fmean(logs_a)
    if min(len(a), len(b)) < MIN_PROCESSES:
        error = _assumed_standard_error(a, b, logs_a, logs_b, between_processes, single_values)
        basis: Basis = "assumed" if between_processes is None else "stated"
        return _comparison_from_standard_error(d, error, math.inf, (len(a), len(b)), basis, confidence, margin)
    found = compare_over_weighted_cases([(logs_a, logs_b)], [1.0], confidence, margin, paired=paired)
    return replace(found, chance_b_slower=_probability_first_is_larger(logs_b, logs_a))


def compare_over_weighted_cases(
    cases: Sequence[tuple[Sequence[float], Sequence[float]]],
    weights: Sequence[float],
    confidence: float = 0.95,
    margin: float = DEFAULT_MARGIN,
    ratio: float | None = None,
    paired: bool = False,
) -> Comparison:
    """B against A over several cases, from independent processes of each, or from pairs.

    Without an interval where a side of a case has fewer than three processes.

    Args:
        cases: of each case the logarithms of A's processes and of B's.
        weights: one of each case; their sum is 1.
        confidence: of the interval, between 0 and 1.
        margin: relative difference that counts as none.
        ratio: B over A; by default the weighted geometric mean of the cases' ratios.
        paired: processes of A and B at the same place ran next to each other.
    """
    mean = sum(weight * (fmean(b) - fmean(a)) for weight, (a, b) in zip(weights, cases, strict=True))
    d = mean if ratio is None else math.log(ratio)
    counts = min(len(a) for a, _ in cases), min(len(b) for _, b in cases)
    if min(counts) < MIN_PROCESSES:
        return _comparison_from_standard_error(d, None, math.inf, counts, "assumed", confidence, margin)
    # What drifts is common to both halves of a pair.
    allowance = 1.0 if paired else process_statistics.DRIFT_ALLOWANCE
    # Welch-Satterthwaite, over the sides of all cases, or over the differences within their pairs.
    variances = [
        ((allowance * weight * stdev(sample)) ** 2 / len(sample), len(sample) - 1)
        for weight, (a, b) in zip(weights, cases, strict=True)
        for sample in ([[y - x for x, y in zip(a, b, strict=True)]] if paired else [a, b])
    ]
    total = sum(variance for variance, _ in variances)
    # Equal medians on both sides leave no variance to divide by.
    degrees = total**2 / sum(variance**2 / n for variance, n in variances) if total > 0 else math.inf
    basis: Basis = "pairs" if paired else "processes"
    return _comparison_from_standard_error(d, math.sqrt(total), degrees, counts, basis, confidence, margin)


def correct_p_values_by_holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons, their p-values adjusted by Holm for being read together; verdicts follow.

    Intervals stay as they are, each at its own confidence.
    """
    adjusted = holm_adjusted_p_values([c.p_value for c in comparisons])
    return [replace(c, adjusted_p_value=p) for c, p in zip(comparisons, adjusted, strict=True)]


def holm_adjusted_p_values(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values: the k-th smallest of m times m - k + 1, never below one before it, never above 1.

    None stays None and is not counted: nothing was tested there.
    """
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = largest
    return adjusted


def _comparison_from_standard_error(
    d: float,
    error: float | None,
    degrees: float,
    counts: tuple[int, int],
    basis: Basis,
    confidence: float,
    margin: float,
) -> Comparison:
    """The comparison that follows from a difference of logarithms, its standard error and degrees of freedom."""
    low = high = p_value = None
    # Processes that do not differ at all show a clock too coarse for them, or copies of one value: no certainty.
    if error is not None and error > 0:
        # It takes some time to import (all of scipy.stats a second), and most reports compare no systems.
        from scipy.special import stdtr, stdtrit

        reach = float(stdtrit(degrees, (1 + confidence) / 2)) * error
        low, high = exp_within_float_range(d - reach), exp_within_float_range(d + reach)
        p_value = float(2 * stdtr(degrees, -abs(d) / error))
    return Comparison(
        ratio=exp_within_float_range(d),
        low=low,
        high=high,
        confidence=confidence,
        p_value=p_value,
        adjusted_p_value=p_value,
        num_processes_a=counts[0],
        num_processes_b=counts[1],
        basis=basis,
        margin=margin,
        standard_error=error,
    )


def _log_median_of_each_process(processes: Processes, side: str) -> list[float]:
    if not processes:
        raise InvalidMeasurement(f"side {side} of the comparison has no measured process")
    for number, steps in enumerate(processes, 1):
        if len(steps) == 0:
            raise InvalidMeasurement(f"process {number} of side {side} has no steps; leave out failed processes")
    return [math.log(median(validate_times(steps))) for steps in processes]


def _assumed_standard_error(
    a: Processes, b: Processes, logs_a: list[float], logs_b: list[float], stated: float | None, single_values: bool
) -> float | None:
    """Standard error of the difference: a spread between processes, stated or assumed, and what each window shows.

    Assumed is that processes differ as much as the steps within one (interquartile range / 1.35, the standard
    deviation of a normal distribution), and by `ASSUMED_BETWEEN_PROCESSES` at least. An observed spread that is larger
    than either counts instead. A single value, such as an energy, adds nothing to a stated spread, which holds what
    its window varies by. Else None when a process has too few steps to show anything of itself.
    """
    sides = [[_spread_within_process(tuple(steps)) for steps in side] for side in (a, b)]
    within = [iqr / 1.35 for side in sides for iqr, _ in side]
    observed = [stdev(logs) for logs in (logs_a, logs_b) if len(logs) >= 2]
    between = max([ASSUMED_BETWEEN_PROCESSES, *within, *observed] if stated is None else [stated, *observed])
    variance = between**2 * (1 / len(a) + 1 / len(b))
    if stated is not None and single_values:
        return math.sqrt(variance)
    for side in sides:
        for _, interval in side:
            if interval is None:
                return None
            variance += (interval.relative_half_width / 1.96) ** 2 / len(side) ** 2
    return math.sqrt(variance)


@lru_cache(maxsize=64)  # in a table of systems each process is held against many
def _spread_within_process(steps: tuple[float, ...]) -> tuple[float, Interval | None]:
    """What one window shows of itself: the relative interquartile range, 0 of a single step, and the interval."""
    return relative_iqr(steps) or 0.0, median_interval(steps, 0.95)


def _probability_first_is_larger(these: list[float], those: list[float]) -> float:
    """Vargha & Delaney's A (2000): the share of all pairs in which the first is larger, ties counting half."""
    ordered = sorted(those)
    wins = sum(bisect_left(ordered, x) + bisect_right(ordered, x) for x in these) / 2
    return wins / (len(these) * len(those))
