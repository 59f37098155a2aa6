"""Statistics of step times, with only the standard library.

Worker and report use the same `median_interval`: the interval that ended a window is the one in the report. All times
are in seconds, all results in seconds or without a unit; samples are in the order of measurement, which is needed to
estimate their correlation.

The coverage of these intervals is measured by `benchmarks/experiments/coverage.py`; results are in
`docs/experiments/coverage.md`.
"""

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise
from operator import mul
from statistics import NormalDist, fmean, median

from dlbench.errors import InvalidMeasurement

#: Minimum number of samples for an interval: fewer do not allow to estimate their correlation.
MIN_SAMPLES_FOR_INTERVAL = 20
#: Minimum number of samples before warm-up can end.
MIN_SAMPLES_FOR_STEADY = 6
#: Number of cosine waves that estimate the long-run variance: degrees of freedom of the interval.
NUM_WAVES = 8
#: Maximum number of cells into which samples are summed first: 16 cells per half-wave of the fastest wave.
MAX_CELLS = 16 * NUM_WAVES
#: The slowest steps, and the fastest, that are searched for clusters: one in 20, but at least 4.
TAIL_DIVISOR, MIN_TAIL = 20, 4
#: Clusters count when their inflation exceeds by this factor what correlation from step to step explains.
CLUSTER_LIMIT = 1.5


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval: [low, high] contains the true value in `confidence` of all cases."""

    value: float
    low: float
    high: float
    confidence: float

    @property
    def half_width(self) -> float:
        """Half of high - low, in the unit of the value; the interval may be asymmetric."""
        return (self.high - self.low) / 2

    @property
    def relative_half_width(self) -> float:
        """`half_width` divided by the value; limited by `protocol.target_half_width`."""
        return self.half_width / self.value


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Median of consecutive step times with an interval that allows for their autocorrelation.

    Order statistics of an effective number of samples. With s_t = +1/2 for a step above the median and -1/2 below it,
    n independent samples hold the median between the ranks (n+1)/2 ± z √n / 2 (Le Boudec 2010, "Performance Evaluation
    of Computer and Communication Systems", §2.2). Correlated samples widen this by the square root of the inflation

        g = long-run variance of s / variance of s,        ranks (n+1)/2 ± t √(n g) / 2

    where n/g is the effective number of samples. The long-run variance is the mean of the first 8 squared cosine sums
    of s, and so t is Student's with 8 degrees of freedom (Müller 2014, J. Business & Economic Statistics 32(3); Lazarus
    et al. 2018, ibid. 36(4)): the same idea as batch means (Flegal & Jones 2010, Annals of Statistics 38(2)), with
    a smaller bias. Only ranks and signs enter, so a skewed or heavy-tailed distribution costs nothing.

    Signs show too little of rare bursts of slow steps: if a window has one burst where five are usual, its signs look
    almost independent. Therefore g is also estimated with s_t = 1 for the slowest twentieth of the steps and 0 for the
    others, and likewise for the fastest: a burst makes these steps neighbours. The largest of the three values counts
    if it exceeds 1.5 (1 + r) / (1 - r), where r is the lag-one correlation of the signs, or else that of the signs.
    (1 + r) / (1 - r) is the g of a first-order series. This rule is our own; 1.5 was chosen by the measured coverage.

    Holds (measured coverage of the nominal 95 % from 93 to 97 %, first-order autocorrelation rho) from n = 30 for
    rho up to 0.5, from 100 up to 0.8, from 300 up to 0.9. Below these n, samples so correlated mostly give None, but
    those that give an interval cover less. With bursts of 15 steps that take a fifth of the time it covers 93 % or more
    from n = 300, 91 % at 150 and 82 % at 40, where many windows have no burst at all. A component much slower than a
    tenth of the window under white noise is not seen; `drift` is there for that. A window that ends at the first look
    which finds its interval narrow enough covers about 90 %, for it favours windows that look too quiet; two such looks
    in a row, the second after the window has grown by half, cover about 93 %.

    Args:
        samples: step times in the order of measurement [s].
        confidence: between 0 and 1.

    Returns:
        None when there are fewer than 20 samples, or when they are so correlated that the interval would reach beyond
        the fastest and the slowest of them: no honest interval can be given.

    Raises:
        InvalidMeasurement: a sample is NaN, infinite, zero or negative.
    """
    return _median_interval(validate_times(samples), confidence, search_clusters=True)


def _median_interval(times: list[float], confidence: float, *, search_clusters: bool) -> Interval | None:
    n = len(times)
    if n < MIN_SAMPLES_FOR_INTERVAL:
        return None
    ordered = sorted(times)
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    t = student_quantile((1 + confidence) / 2, NUM_WAVES)
    inflation = _variance_inflation(times, ordered, middle, search_clusters=search_clusters)
    # Steps that alternate around the median leave no power in the waves, which must not give a zero interval.
    reach = t * math.sqrt(max(1.0, n * inflation)) / 2
    # Counted from 0; the formula counts ranks from 1.
    low_rank, high_rank = (n - 1) / 2 - reach, (n - 1) / 2 + reach
    if low_rank < 0:
        return None
    low, high = (_interpolate_at_rank(ordered, rank) for rank in (low_rank, high_rank))
    return Interval(middle, low, high, confidence)


def reason_without_interval(num_samples: float, confidence: float) -> str:
    """Describe why so many samples have no `median_interval`: there are too few, or they are too correlated.

    At levels close to 1 even independent samples need more than 20: the interval must end before the fastest sample,
    (n - 1) / 2 >= t √n / 2.
    """
    t = student_quantile((1 + confidence) / 2, NUM_WAVES)
    least = max(MIN_SAMPLES_FOR_INTERVAL, math.ceil(((t + math.sqrt(t * t + 4)) / 2) ** 2))
    return f"fewer than {least} steps" if num_samples < least else "step times drifted during the window"


def is_steady(samples: Sequence[float], tolerance: float = 0.002) -> bool:
    """Whether warm-up may end: the later block of steps is no longer faster than the earlier one beyond noise.

    Only the later half of all steps counts, so that a slow start is dropped as warm-up goes on. Its two halves
    are compared by the one-sided Mann-Whitney test at 5 % (1947, Annals of Mathematical Statistics 18(1)); based on
    ranks, it is robust against outliers. Two conditions make it unsteady: the later block is significantly faster, and
    its median is lower by more than `tolerance`, for in 10 000 steps even 0.01 % would be significant. Correlated
    steps look unsteady a little more often than they are; that costs some steps of warm-up, not a wrong number.

    Args:
        samples: all step times of the warm-up so far [s].
        tolerance: relative speed-up from block to block that does not matter.

    Returns:
        False as well when there are fewer than 6 samples.

    Raises:
        InvalidMeasurement: a sample is NaN, infinite, zero or negative.
    """
    times = validate_times(samples)
    if len(times) < MIN_SAMPLES_FOR_STEADY:
        return False
    tail = times[-max(MIN_SAMPLES_FOR_STEADY, len(times) // 2) :]
    earlier, later = tail[: len(tail) // 2], tail[len(tail) // 2 :]
    if median(later) >= median(earlier) * (1 - tolerance):
        return True
    return _mann_whitney_p(later, earlier) > 0.05


def step_time_drift(samples: Sequence[float], confidence: float = 0.99) -> float | None:
    """Relative change of the median step time from the first half of a window to the second, None if not significant.

    Positive means slower. Significant is a change larger than √(h₁² + h₂²), where h₁ and h₂ are the half-widths of the
    two halves' intervals; by default at 99 %, so that at most about 1 of 100 quiet windows is flagged. These intervals
    are those of `median_interval` without the search for clusters, for a drift makes the fastest steps neighbours, too.
    None, too, where a half has no interval. Raises InvalidMeasurement if a sample is NaN, infinite, zero or negative.
    """
    times = validate_times(samples)
    half = len(times) // 2
    first, second = (_median_interval(part, confidence, search_clusters=False) for part in (times[:half], times[half:]))
    if first is None or second is None:
        return None
    change = second.value - first.value
    if abs(change) <= math.hypot(first.half_width, second.half_width):
        return None
    return change / first.value


def percentile(samples: Sequence[float], q: float) -> float:
    """The `q`-th percentile (0 to 100) of step times [s], interpolated linearly (type 7 of Hyndman & Fan 1996).

    Raises InvalidMeasurement if there are no samples, or one is NaN, infinite, zero or negative.
    """
    assert 0 <= q <= 100, q
    times = sorted(validate_times(samples))
    if not times:
        raise InvalidMeasurement(f"cannot compute the {q:g}th percentile without samples")
    return _interpolate_at_rank(times, q / 100 * (len(times) - 1))


# From here on for single windows and as the reference of `report.data.samples`, which does the same for whole stores.


def relative_iqr(samples: Sequence[float]) -> float | None:
    """Relative interquartile range, robust against outliers: (75th - 25th percentile) / median; None below two samples.

    For a normal distribution it is 1.35 times the coefficient of variation.
    """
    if len(samples) < 2:
        return None
    times = sorted(validate_times(samples))
    last = len(times) - 1
    return (_interpolate_at_rank(times, 0.75 * last) - _interpolate_at_rank(times, 0.25 * last)) / median(times)


def validate_times(samples: Sequence[float]) -> list[float]:
    """Return `samples` as floats, each finite and above zero.

    Raises InvalidMeasurement with position and value of one that is not.
    """
    times = list(map(float, samples))
    # NaN or infinity in a sample shows in the sum; only then every sample is checked.
    if not times or (min(times) > 0 and math.isfinite(sum(times))) or all(0 < x < math.inf for x in times):
        return times
    place, value = next((i, x) for i, x in enumerate(times) if not 0 < x < math.inf)
    raise InvalidMeasurement(
        f"sample {place + 1} of {len(times)} is {value:g} s; times must be finite and above zero: check the clock"
    )


def _variance_inflation(times: list[float], ordered: list[float], middle: float, *, search_clusters: bool) -> float:
    """Long-run variance over variance of the signs around the median, or of the marks of the slowest or fastest steps
    if these come in clusters: number of steps that count as one independent step."""
    n = len(times)
    signs = [0.5 if x > middle else -0.5 if x < middle else 0.0 for x in times]
    below, above = bisect_left(ordered, middle), n - bisect_right(ordered, middle)
    # Ties with the median can unbalance the signs.
    mean = (above - below) / 2 / n
    over, under = 0.5 - mean, 0.5 + mean
    squares = above * (over * over) + below * (under * under) + (n - above - below) * (mean * mean)
    variance = squares / n
    if variance < 1e-12:
        return 1.0
    # Sum over cells, not samples: the slow waves hardly change within a cell.
    num_cells = min(n, MAX_CELLS)
    edges = [i * n // num_cells for i in range(num_cells + 1)]
    cells = [sum(signs[a:b]) - (b - a) * mean for a, b in pairwise(edges)]
    waves = cosine_waves(n, num_cells)
    power = 0.0
    for wave in waves:
        # Plain sum in this order (Python 3.12 compensates `sum`), to match the vectorized version exactly.
        total = 0.0
        for cell, height in zip(cells, wave, strict=True):
            total += cell * height
        power += total * total
    power = power * 2 / n
    # Products of deviations from the mean, expanded: products of signs are fast.
    ends = signs[0] + signs[-1]
    products: float = sum(map(mul, signs, islice(signs, 1, None)))
    lag1 = (products - mean * ((above - below) - ends) + (n - 1) * (mean * mean)) / squares
    inflation = power / NUM_WAVES / variance / cosine_power_ratio(lag1, n)
    if not search_clusters:
        return inflation
    clustered = _cluster_variance_inflation(times, ordered, waves)
    r = max(0.0, lag1)
    return max(inflation, clustered) if clustered * (1 - r) > CLUSTER_LIMIT * (1 + r) else inflation


def _cluster_variance_inflation(times: list[float], ordered: list[float], waves: list[list[float]]) -> float:
    """Long-run variance over variance of the marks of the slowest steps or of the fastest, whichever is larger."""
    n, num_cells = len(times), len(waves[0])
    size = max(MIN_TAIL, n // TAIL_DIVISOR)
    high, low = ordered[-size], ordered[size - 1]
    largest = 0.0
    # Ties can make a tail longer, up to the whole window.
    for tail in ([i for i, x in enumerate(times) if x >= high], [i for i, x in enumerate(times) if x <= low]):
        if len(tail) == n:
            continue
        variance = len(tail) * (n - len(tail)) / n / n
        # A wave sums to zero over the window: the mean of the marks need not be subtracted.
        cells = Counter(((i + 1) * num_cells - 1) // n for i in tail)
        power = 0.0
        for wave in waves:
            total = 0.0
            for cell, count in cells.items():
                total += count * wave[cell]
            power += total * total
        largest = max(largest, power * 2 / n / NUM_WAVES / variance)
    return largest


@lru_cache(maxsize=64)
def cosine_waves(n: int, num_cells: int) -> list[list[float]]:
    """The cosine waves over a window of `n` samples, each at the middles of its cells."""
    edges = [i * n // num_cells for i in range(num_cells + 1)]
    middles = [(a + b) / 2 / n for a, b in pairwise(edges)]
    return [[math.cos(math.pi * wave * u) for u in middles] for wave in range(1, NUM_WAVES + 1)]


def cosine_power_ratio(lag1: float, n: int) -> float:
    """Mean power of the 8 cosine waves over the power at frequency zero, if the steps were of first order (AR(1)).

    The power at frequency zero is wanted, but only the waves can be measured: they underestimate it if correlation
    lasts for a large part of the window. The spectrum of AR(1) is f(ω) / f(0) = (1 - ρ)² / (1 - 2ρ cos ω + ρ²); the
    signs of a normal process have lag-one correlation 2/π arcsin ρ. The estimated lag-one correlation r is freed of
    its bias of -(1 + 3r)/n (Kendall 1954, Biometrika 41) and raised by one standard error, to err on the wide side.
    """
    unbiased = (n * lag1 + 1) / (n - 3)
    cautious = unbiased + math.sqrt(max(0.0, 1 - unbiased * unbiased) / n)
    rho = math.sin(math.pi / 2 * min(max(cautious, 0.0), 0.99))
    omegas = [math.pi * wave / n for wave in range(1, NUM_WAVES + 1)]
    return fmean((1 - rho) ** 2 / (1 - 2 * rho * math.cos(w) + rho * rho) for w in omegas)


def _mann_whitney_p(later: list[float], earlier: list[float]) -> float:
    """One-sided p-value of Mann-Whitney's U, normal approximation with continuity correction."""
    ordered = sorted(earlier)
    m, n = len(earlier), len(later)
    slower_earlier = sum(m - (bisect_left(ordered, x) + bisect_right(ordered, x)) / 2 for x in later)
    z = (slower_earlier - m * n / 2 - 0.5) / math.sqrt(m * n * (m + n + 1) / 12)
    return 1 - NormalDist().cdf(z)


def _interpolate_at_rank(ordered: list[float], rank: float) -> float:
    """Return the value at a fractional rank (from 0), interpolated linearly."""
    below = min(math.floor(rank), len(ordered) - 1)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (rank - below) * (ordered[above] - ordered[below])


def student_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t by its expansion in 1/degrees (Abramowitz & Stegun 26.7.5).

    From 8 degrees on the error is below 0.01 % up to a probability of 0.995, below 0.1 % up to 0.9995.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / float(degrees) ** power for power, term in enumerate(terms))
