"""Figures of a case over several fresh processes: interval of the mean, and prediction of another run.

The median step time differs from process to process (addresses, clocks, other jobs) by more than the interval of one
window. So the process is the sample, and its value is the logarithm of its median step time. Two intervals:

- `IntervalOverProcesses.low` and `high`: of the mean of processes. This is the ± of reports, and what a rerun of the
whole campaign confirms;
- `next_low` and `next_high`: a prediction for one more process.

Coverage is measured by `benchmarks/experiments/reruns.py`; `docs/experiments/reruns.md` has the tables.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import NormalDist, fmean, geometric_mean, median, stdev

from dlbench import units
from dlbench.errors import InvalidMeasurement

#: Fewer processes than this cannot show how processes differ.
MIN_PROCESSES = 3
#: Processes measured near each other in time share conditions that a later run does not, and a few processes are much
#: slower than the others: standard errors of means are multiplied by this. The smallest of 1, 1.5, 2 and 2.5 with which
#: equal campaigns minutes apart are called different in at most 5 % of comparisons (docs/experiments/reruns.md).
DRIFT_ALLOWANCE = 2.0
#: The same for the prediction of the next process, which conditions of minutes touch less.
NEXT_ALLOWANCE = 1.5
#: Processes form two groups where the gap between these is at least this much of a step time, ...
MIN_GAP = 0.05
#: ... this many times the range of each group, and this many times the widest half-width of a window.
GAP_OVER_RANGE, GAP_OVER_WINDOW = 4.0, 2.0
#: Maximum number of recommended processes.
MAX_PROCESSES = 1000
#: Ratios beyond e to this power are cut there: no figure needs them, and no float holds much more.
_MAX_LOG = 700.0


@dataclass(frozen=True)
class ProcessMedian:
    """One process: the median step time of its window [s], and the interval of that median where it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def log_standard_error(self) -> float | None:
        """Standard error of the logarithm, as far as this window shows it; taken as of a 95 % interval."""
        if self.low is None or self.high is None or not 0 < self.low <= self.high < math.inf:
            return None
        return (math.log(self.high) - math.log(self.low)) / 2 / 1.96


@dataclass(frozen=True)
class IntervalOverProcesses:
    """The geometric mean over processes, its interval, and where the next process is expected; all in one unit."""

    value: float
    low: float
    high: float
    next_low: float
    next_high: float
    confidence: float
    num_processes: int
    #: Standard deviation of the logarithm between processes, what their windows vary by included.
    spread: float
    #: Standard error of the logarithm within a typical window.
    window_error: float

    @property
    def relative_half_width(self) -> float:
        """Half the distance from low to high, over the value: the ± of a report."""
        return (self.high - self.low) / 2 / self.value

    @property
    def relative_prediction_half_width(self) -> float:
        """Half the distance from next_low to next_high, over the value."""
        return (self.next_high - self.next_low) / 2 / self.value

    def expected_half_width(self, processes: int) -> float:
        """Return the relative half-width expected for this number of processes, if they vary as these do."""
        return half_width_of_mean(self.spread, self.window_error, processes, self.confidence)


def interval_over_processes(windows: Sequence[ProcessMedian], confidence: float = 0.95) -> IntervalOverProcesses | None:
    """Compute the interval of the mean of processes, and the prediction for one more.

    With y the logarithms of k medians and s their standard deviation, Student's t with k - 1 degrees gives

        mean y ± c · t · s / √k,        one more process: mean y ± c' · t · s · √(1 + 1/k)

    where c is `DRIFT_ALLOWANCE` and c' is `NEXT_ALLOWANCE`. s holds what windows vary by as well as what processes vary
    by. Where k medians agree by chance more closely than their windows can be read, the error of the windows is used.

    Args:
        windows: one of each process, in any order.
        confidence: between 0 and 1.

    Returns:
        None with fewer than three processes, or where they are equal to the last digit: copies, or too coarse a clock.

    Raises:
        InvalidMeasurement: a value is NaN, infinite, zero or negative.
    """
    for window in windows:
        if not 0 < window.value < math.inf:
            raise InvalidMeasurement(
                f"the median value of a process is {window.value:g}; it must be finite and above zero"
            )
    k = len(windows)
    if k < MIN_PROCESSES:
        return None
    logs = [math.log(window.value) for window in windows]
    spread = stdev(logs)
    if spread < 1e-12:
        return None
    window_error = _typical_window_error(windows)
    of_mean = half_width_of_mean(spread, window_error, k, confidence)
    of_next = of_mean * math.sqrt(k + 1) * NEXT_ALLOWANCE / DRIFT_ALLOWANCE
    middle = fmean(logs)
    low, high, next_low, next_high = (
        exp_within_float_range(middle + signed) for signed in (-of_mean, of_mean, -of_next, of_next)
    )  # fmt: skip
    return IntervalOverProcesses(
        exp_within_float_range(middle), low, high, next_low, next_high, confidence, k, spread, window_error
    )


def half_width_of_mean(spread: float, window_error: float, num_processes: int, confidence: float) -> float:
    """Half of the interval of the mean of logarithms.

    `spread` is their standard deviation between processes, `window_error` the standard error of each by its window.
    """
    of_one = max(
        student_quantile(num_processes - 1, confidence) * spread,
        NormalDist().inv_cdf((1 + confidence) / 2) * window_error,
    )
    return DRIFT_ALLOWANCE * of_one / math.sqrt(num_processes)


def _typical_window_error(windows: Sequence[ProcessMedian]) -> float:
    """Standard error of a typical window (one with a burst is none): the median of all that have one, else 0."""
    errors = [window.log_standard_error for window in windows if window.log_standard_error is not None]
    return median(errors) if errors else 0.0


@dataclass(frozen=True)
class FastAndSlowGroups:
    """Processes of one case that fall into two groups: an average of both would be the time of neither."""

    fast: tuple[float, ...]
    slow: tuple[float, ...]

    @property
    def groups_text(self) -> str:
        """Both groups: ``2 processes at 10.0 ms and 1 at 12.0 ms``."""
        fast, slow = (units.seconds_text(geometric_mean(group)) for group in (self.fast, self.slow))
        noun = "process" if len(self.fast) == 1 else "processes"
        return f"{len(self.fast)} {noun} at {fast} and {len(self.slow)} at {slow}"


def split_into_two_groups(windows: Sequence[ProcessMedian]) -> FastAndSlowGroups | None:
    """The two groups that processes fall into; None where they form one.

    They are split at the largest gap between sorted logarithms, where it passes `MIN_GAP`, `GAP_OVER_RANGE` and
    `GAP_OVER_WINDOW`.
    """
    ordered = sorted(windows, key=lambda window: window.value)
    if len(ordered) < MIN_PROCESSES:
        return None
    logs = [math.log(window.value) for window in ordered]
    gap, at = max((b - a, i + 1) for i, (a, b) in enumerate(pairwise(logs)))
    ranges = max(logs[at - 1] - logs[0], logs[-1] - logs[at])
    if gap < max(MIN_GAP, GAP_OVER_RANGE * ranges, GAP_OVER_WINDOW * 1.96 * _typical_window_error(windows)):
        return None
    values = tuple(window.value for window in ordered)
    return FastAndSlowGroups(values[:at], values[at:])


def processes_needed(reach_is_enough: Callable[[int], bool], now: int) -> int | None:
    """Return the smallest number of processes, from `now` on, that is enough; None if `MAX_PROCESSES` are too few.

    If a number of processes is enough, every larger one must be, too.
    """
    first = max(now, MIN_PROCESSES)
    found = bisect_left(range(first, MAX_PROCESSES + 1), True, key=reach_is_enough)
    return first + found if first + found <= MAX_PROCESSES else None


@lru_cache(maxsize=4096)
def student_quantile(degrees: int, confidence: float) -> float:
    """The two-sided quantile of Student's t: |t| stays below it with probability `confidence`.

    By bisection of the finite sums of Abramowitz & Stegun 26.7.3 and 26.7.4, exact for every number of degrees.
    """
    low, high = 0.0, 1.0
    while _student_probability(high, degrees) < confidence and high < 1e12:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if _student_probability(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return high


def _student_probability(t: float, degrees: int) -> float:
    """P(|T| < t)."""
    theta = math.atan(t / math.sqrt(degrees))
    cosine, sine = math.cos(theta), math.sin(theta)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = term if degrees > 1 else 0.0
    for i in range(2 + odd, degrees - 1, 2):
        term *= cosine * cosine * (i - 1) / i
        total += term
    return 2 / math.pi * (theta + sine * total) if odd else sine * total


def exp_within_float_range(logarithm: float) -> float:
    """The ratio of a logarithm, within what a float and its inverse hold: intervals of wild processes have no end."""
    return math.exp(max(-_MAX_LOG, min(_MAX_LOG, logarithm)))
