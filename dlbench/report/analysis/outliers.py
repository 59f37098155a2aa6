"""Which of many like units is an outlier, with a stated chance of one false alarm in the whole fleet.

The centre is the median and the scale the median absolute deviation (MAD), which no outlier moves. The limit is the
quantile of Student's t at the false-alarm rate divided among all tests (Šidák 1967, J. American Statistical Association
62(318)), with 0.4 degrees of freedom per unit: so much a MAD of n normal values is worth (Rousseeuw & Croux 1993, ibid.
88(424); efficiency 37 %). From 50 units on the slow half is judged by itself: its own scale counts where it is larger,
and the limit is that of a t distribution with tails as heavy as those of the slow half, plus one standard error. Units
beyond a gap (`_GAP`) are a group of their own and count for no tail: many faults would hide each other. Fewer than 50
units do not show their tails: the rate then assumes normal spread, and `looks_nonnormal` says where that is doubtful.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Fewer units than this do not show what is usual.
MIN_UNITS = 4
#: The chance of one false alarm or more in a fleet without faults, unless told otherwise.
FALSE_ALARMS = 0.05
#: Degrees of freedom that a MAD has for each value.
_DEGREES_PER_UNIT = 0.4
#: A median absolute deviation times this estimates a normal standard deviation.
MAD_TO_SD = 1.4826
#: From this number of units on the tails are looked at.
MIN_UNITS_FOR_TAILS = 50
#: Standard error, times √n, of how much further the 97.5th percentile is from the median than the 75th one.
_TAILS_ERROR = 5.0
#: Two slow units or more that are so many times further from the median than the next one lie beyond a gap; looked for
#: among this share of the slow half. Of t with 3 degrees of freedom, one fleet in 60 has such a gap by chance.
_GAP, _FAR_SHARE = 2.0, 0.5
#: The spread counts as not normal where the test of Shapiro & Wilk (1965, Biometrika 52(3)) gives less.
_NORMALITY_P = 0.05


@dataclass(frozen=True)
class FleetSpread:
    """How a fleet's units differ in one figure, in logarithms: 0.01 is 1 %."""

    centre: float
    scale: float  # robust standard deviation; 0 where at least half of the units are equal
    limit: float  # an outlier is further from the centre than so many scales

    @property
    def outlier_distance(self) -> float:
        """The distance from the centre at which a unit becomes an outlier."""
        return self.limit * self.scale


def estimate_spread(values: NDArray[np.float64], false_alarms: float, tests: int) -> FleetSpread | None:
    """The spread of one finite value per unit; None for fewer than `MIN_UNITS`.

    Args:
        false_alarms: chance of one or more among all tests.
        tests: of the whole fleet, over all its figures.
    """
    if values.size < MIN_UNITS:
        return None
    centre = float(np.median(values))
    distances = np.abs(values - centre)
    scale = float(MAD_TO_SD * np.median(distances))
    slow = _slow_half_distances(values)
    if values.size >= MIN_UNITS_FOR_TAILS and slow.size:
        # Slow units often differ more than fast ones.
        scale = max(scale, float(MAD_TO_SD * np.median(slow)))
    return FleetSpread(centre, scale, outlier_limit(values, false_alarms, tests))


def looks_nonnormal(values: NDArray[np.float64], reach: float) -> bool:
    """Whether fewer than `MIN_UNITS_FOR_TAILS` units, without the outliers, have a spread that is not normal."""
    from scipy import stats

    usual = values[values - np.median(values) <= reach]
    if values.size >= MIN_UNITS_FOR_TAILS or usual.size < MIN_UNITS or np.ptp(usual) == 0:
        return False
    return bool(stats.shapiro(usual).pvalue < _NORMALITY_P)


def outlier_limit(values: NDArray[np.float64], false_alarms: float, tests: int) -> float:
    """How many robust standard deviations from the median a healthy unit stays, on one side."""
    from scipy import stats

    chance = -math.expm1(math.log1p(-false_alarms) / max(1, tests))
    degrees = _DEGREES_PER_UNIT * values.size
    tails = _tail_degrees_of_freedom(values)
    if tails is None or tails >= degrees:
        return float(stats.t.isf(chance, degrees))
    # The scale stands for the middle half, which of such a distribution is narrower than its tails tell.
    return float(stats.t.isf(chance, tails) * stats.norm.ppf(0.75) / stats.t.ppf(0.75, tails))


def _slow_half_distances(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the units of the slow half are from the median, the nearest first, up to a gap."""
    distances = np.sort(values[values > np.median(values)] - np.median(values))
    first = int((1 - _FAR_SHARE) * distances.size)
    gaps = np.flatnonzero(distances[first + 1 : -1] > _GAP * distances[first:-2])
    return distances[: first + 1 + gaps[0]] if gaps.size else distances


def _tail_degrees_of_freedom(values: NDArray[np.float64]) -> float | None:
    """Degrees of freedom of a t distribution with the tail of the slow half; None where that is as light as normal."""
    from scipy import optimize, stats

    slow = _slow_half_distances(values)
    if values.size < MIN_UNITS_FOR_TAILS or not slow.size:
        return None
    middle, high = np.percentile(slow, (50, 95))
    ratio = float(high / middle) + _TAILS_ERROR / math.sqrt(values.size)

    def quantile_ratio_error(degrees: float) -> float:
        return float(stats.t.ppf(0.975, degrees) / stats.t.ppf(0.75, degrees)) - ratio

    if quantile_ratio_error(1000.0) >= 0:
        return None
    return 1.0 if quantile_ratio_error(1.0) < 0 else float(optimize.brentq(quantile_ratio_error, 1.0, 1000.0))
