"""Where the level or the spread of a series changes, with a stated chance of one false alarm in the series.

Levels: the values are divided by their noise, which is taken from the differences between neighbours and so holds no
shift; isolated spikes are drawn to the median of their five neighbours. The segmentation is optimal for the sum of
squares plus a penalty for each change (PELT: Killick et al. 2012, J. American Statistical Association 107(500); the
library is `ruptures`, Truong et al. 2020, Signal Processing 167). The penalty was calibrated on series of normal noise
(`_penalty_per_change_point`). Noise that is correlated from point to point widens itself.

Spread: the absolute differences of neighbouring pairs, as normal scores, are segmented in the same way.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dlbench.report.analysis.outliers import MAD_TO_SD

#: Shorter series are not judged.
MIN_POINTS = 8
#: No level is shorter than this: a single day is a spike.
MIN_SEGMENT = 3
_SPIKE_SDS = 3.0


def find_level_changes(values: NDArray[np.float64], false_alarms: float, spreads: Sequence[int] = ()) -> list[int]:
    """The indices at which a new level begins.

    Args:
        values: in the order of time; logarithms, so that a shift is a share.
        false_alarms: chance of one or more in this series.
        spreads: where the noise changes, as `find_spread_changes` gives it: each part is judged by its own noise.
    """
    if values.size < MIN_POINTS:
        return []
    edges = [0, *spreads, values.size]
    noise = np.concatenate([np.full(b - a, noise_between_neighbours(values[a:b])) for a, b in pairwise(edges)])
    if not (noise > 0).all():
        return []
    reach = _SPIKE_SDS * noise
    middle = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(values, 2, mode="reflect"), 5), axis=1)
    cleaned = np.clip(values, middle - reach, middle + reach)
    scaled = (cleaned - np.median(cleaned)) / noise
    differences = np.diff((values - np.median(values)) / noise)
    return _change_indices(_scale_by_long_run_noise(scaled, differences), false_alarms)


def find_spread_changes(values: NDArray[np.float64], false_alarms: float) -> list[int]:
    """The indices at which the values begin to scatter more, or less."""
    from scipy import stats

    # Pairs that share no value are independent.
    distances = np.abs(values[1::2] - values[: values.size - 1 : 2])
    if distances.size < MIN_POINTS or np.unique(distances).size < distances.size // 2:
        return []
    scores = stats.norm.ppf((stats.rankdata(distances) - 0.5) / distances.size)
    return [2 * index for index in _change_indices(scores, false_alarms)]


def noise_between_neighbours(values: NDArray[np.float64]) -> float:
    """Standard deviation of the noise between neighbours; NaN for fewer than two values."""
    return float(MAD_TO_SD * np.median(np.abs(np.diff(values))) / math.sqrt(2)) if values.size > 1 else math.nan


def _scale_by_long_run_noise(scaled: NDArray[np.float64], differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """The series in units of its long-run noise, where neighbours are correlated (AR(1) with correlation rho).

    Differences of such noise have lag-one correlation -(1 - rho) / 2, and shifts hardly change it.
    """
    limit = _SPIKE_SDS * MAD_TO_SD * float(np.median(np.abs(differences)))
    clipped = np.clip(differences, -limit, limit)
    power = float(np.sum(clipped * clipped))
    rho = 1 + 2 * float(np.sum(clipped[:-1] * clipped[1:])) / power if power else 0.0
    if rho <= 2.5 / math.sqrt(scaled.size):
        return scaled
    rho = min(rho, 0.95)
    return scaled * ((1 - rho) / math.sqrt(1 + rho))


def _change_indices(scaled: NDArray[np.float64], false_alarms: float) -> list[int]:
    import ruptures

    search = ruptures.KernelCPD(kernel="linear", min_size=MIN_SEGMENT).fit(scaled.reshape(-1, 1))
    ends: list[int] = search.predict(pen=_penalty_per_change_point(scaled.size, false_alarms))
    return ends[:-1]


def _penalty_per_change_point(points: int, false_alarms: float) -> float:
    """What one more change must gain, in units of the noise's variance.

    A fit to the largest gain per change among one to four changes in 1200 to 4000 series of normal noise, from 8 to 365
    points: at 5 % that is 9 to 11.5 for every length; for smaller chances it grows faster in short series, whose noise
    is known less well.
    """
    return 11.5 + (2 + 100 / points) * math.log(0.05 / false_alarms)
