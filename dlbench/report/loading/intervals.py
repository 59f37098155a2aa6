"""Confidence intervals of the median step times of many attempts at once: those of `dlbench.stats`, to the last bit.

A million windows of 30 steps take some seconds this way, and ten minutes one after the other. Each operation on floats
is done in the order in which `stats.median_interval` does it: whoever looks up a single window finds the same interval.
"""

import json
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dlbench import stats
from dlbench.results.reader import RaggedArray
from dlbench.suites.case import Protocol

Floats = NDArray[np.float64]

#: Windows are looked at together until they have about so many steps.
_STEPS_AT_ONCE = 2_000_000


def median_intervals(steps: RaggedArray, confidence: Floats) -> Floats:
    """The lower and upper limit [s] of each row's median; NaN where `stats.median_interval` gives None.

    `steps` are the times of each row [s], finite and above zero; its `confidence` is between 0 and 1.
    """
    limits = np.full((confidence.size, 2), np.nan)
    lengths = steps.row_lengths
    by_length = np.argsort(lengths, kind="stable")
    begins = np.searchsorted(lengths[by_length], np.unique(lengths))
    for rows in np.split(by_length, begins[1:]) if by_length.size else ():
        n = int(lengths[rows[0]])
        if n < stats.MIN_SAMPLES_FOR_INTERVAL:
            continue
        for some in np.split(rows, range(max(1, _STEPS_AT_ONCE // n), rows.size, max(1, _STEPS_AT_ONCE // n))):
            times = steps.values[steps.starts[some, np.newaxis] + np.arange(n)]
            limits[some] = _median_interval_limits(times, _student_quantiles(confidence[some]))
    return limits


def confidence_of_each_protocol(protocols: Sequence[str | None]) -> Floats:
    """The confidence that each protocol, as JSON text, asks for; NaN of one that is none."""
    return np.array([read_protocol_number(text, "confidence") for text in protocols], dtype=np.float64)


@lru_cache(maxsize=10_000)
def read_protocol_number(protocol: str | None, key: str) -> float:
    """The number that a protocol, as JSON text, has for a key, or its default; NaN if the text is no protocol."""
    try:
        return float(json.loads(protocol or "{}").get(key, getattr(Protocol, key)))
    except (ValueError, TypeError, AttributeError):
        return math.nan


def _student_quantiles(confidence: Floats) -> Floats:
    levels, places = np.unique(confidence, return_inverse=True)
    quantiles = [
        stats.student_quantile((1 + level) / 2, stats.NUM_WAVES) if 0 < level < 1 else math.nan
        for level in levels.tolist()
    ]
    return np.array(quantiles)[places]


def _median_interval_limits(times: Floats, t: Floats) -> Floats:
    """The limits of windows of one length: a row of `times` each."""
    n = times.shape[1]
    ordered = np.sort(times, axis=1)
    middle = (ordered[:, (n - 1) // 2] + ordered[:, n // 2]) / 2
    reach = t * np.sqrt(np.maximum(1.0, n * _variance_inflation(times, ordered, middle))) / 2
    # From 0 on, where the formula counts ranks from 1.
    ranks = np.stack(((n - 1) / 2 - reach, (n - 1) / 2 + reach), axis=1)
    known = ranks[:, 0] >= 0
    limits = np.full(ranks.shape, np.nan)
    limits[known] = _interpolate_at_ranks(ordered[known], ranks[known])
    return limits


def _interpolate_at_ranks(ordered: Floats, ranks: Floats) -> Floats:
    """The values at fractional ranks counted from 0, interpolated linearly between neighbours."""
    last = ordered.shape[1] - 1
    below = np.minimum(np.floor(ranks).astype(np.int64), last)
    low = np.take_along_axis(ordered, below, axis=1)
    high = np.take_along_axis(ordered, np.minimum(below + 1, last), axis=1)
    values: Floats = low + (ranks - below) * (high - low)
    return values


def _variance_inflation(times: Floats, ordered: Floats, middle: Floats) -> Floats:
    """`stats._variance_inflation` of each row."""
    n = times.shape[1]
    more, less = times > middle[:, np.newaxis], times < middle[:, np.newaxis]
    above, below = more.sum(axis=1), less.sum(axis=1)
    # Twice the signs: whole numbers.
    signs = more.astype(np.int8) - less.astype(np.int8)
    mean = (above - below) / 2 / n
    over, under = 0.5 - mean, 0.5 + mean
    squares = above * (over * over) + below * (under * under) + (n - above - below) * (mean * mean)
    variance = squares / n
    num_cells = min(n, stats.MAX_CELLS)
    edges = np.arange(num_cells + 1) * n // num_cells
    # A row for each cell, whose windows lie next to each other then.
    sums = np.ascontiguousarray(np.add.reduceat(signs, edges[:-1], axis=1, dtype=np.int32).T)
    power = _sum_squared_cosine_amplitudes(sums * 0.5 - np.diff(edges)[:, np.newaxis] * mean, n)
    ends = (signs[:, 0].astype(np.int32) + signs[:, -1]) / 2
    products = (signs[:, :-1] * signs[:, 1:]).sum(axis=1, dtype=np.int64) / 4
    with np.errstate(divide="ignore", invalid="ignore"):
        lag1 = (products - mean * ((above - below) - ends) + (n - 1) * (mean * mean)) / squares
        inflation: Floats = power / stats.NUM_WAVES / variance / _cosine_power_ratio_per_correlation(lag1, n)
    clustered = _cluster_variance_inflation(times, ordered, edges)
    r = np.maximum(0.0, lag1)
    counts = clustered * (1 - r) > stats.CLUSTER_LIMIT * (1 + r)
    inflation = np.where(counts, np.maximum(inflation, clustered), inflation)
    return np.where(variance < 1e-12, 1.0, inflation)


def _cluster_variance_inflation(times: Floats, ordered: Floats, edges: NDArray[np.int64]) -> Floats:
    """`stats._cluster_variance_inflation` of each row."""
    n = times.shape[1]
    size = max(stats.MIN_TAIL, n // stats.TAIL_DIVISOR)
    largest = np.zeros(times.shape[0])
    for marks in (times >= ordered[:, n - size, np.newaxis], times <= ordered[:, size - 1, np.newaxis]):
        num_marks = marks.sum(axis=1)
        # Short windows have a cell for each step.
        cells = marks if edges.size == n + 1 else np.add.reduceat(marks, edges[:-1], axis=1, dtype=np.int32)
        variance = num_marks * (n - num_marks) / n / n
        with np.errstate(divide="ignore", invalid="ignore"):
            inflation = (
                _sum_squared_cosine_amplitudes(np.ascontiguousarray(cells.T, dtype=np.float64), n)
                / stats.NUM_WAVES
                / variance
            )
        largest = np.where(variance > 0, np.maximum(largest, inflation), largest)
    return largest


def _sum_squared_cosine_amplitudes(cells: Floats, n: int) -> Floats:
    """2/n times the sum of the 8 squared cosine sums of each window; `cells` has a row for each cell."""
    num_cells, num_rows = cells.shape
    totals = np.zeros((stats.NUM_WAVES, num_rows))
    heights = np.array(stats.cosine_waves(n, num_cells)).T[:, :, np.newaxis]
    for cell, height in zip(cells, heights, strict=True):
        totals += cell * height
    power = np.zeros(num_rows)
    for total in totals:
        power += total * total
    return power * 2 / n


def _cosine_power_ratio_per_correlation(lag1: Floats, n: int) -> Floats:
    # NumPy's sine need not be that of the standard library; windows of one length have few different correlations.
    values, places = np.unique(lag1, return_inverse=True)
    return np.array([stats.cosine_power_ratio(v, n) if np.isfinite(v) else np.nan for v in values.tolist()])[places]
