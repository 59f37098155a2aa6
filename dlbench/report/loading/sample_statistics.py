"""Statistics of the samples of many attempts at once: each array holds the steps of all, one attempt after the other.

A hundred thousand attempts take about a second this way, and minutes when each is looked at by itself. Of each step the
slowest rank counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlbench.results.case_figures import LONGEST_STEP_S, SHORTEST_STEP_S
from dlbench.results.reader import RaggedArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: The columns of the phases' samples, by metric.
PHASES = {"forward_time": "forward_s", "backward_time": "backward_s", "optimizer_time": "optimizer_s"}
#: The columns that `sample_statistics` needs.
COLUMNS = ("step_s", *PHASES.values())
STATISTICS = (
    *("steps", "step_time", *PHASES, "latency_p50", "latency_p95", "latency_p99"),
    *("cv", "iqr", "autocorrelation", "outliers"),
)
#: Fewer steps than these have no spread.
MIN_STEPS = 4


@dataclass(frozen=True)
class RanksOfAttempts:
    """Which rows belong to which attempt: the rows of one follow each other, by rank."""

    attempts: list[str]
    first: Ints  # row of each attempt's first rank
    count: Ints  # of its ranks

    @staticmethod
    def from_attempt_ids(attempt_ids: Sequence[str]) -> RanksOfAttempts:
        """From the attempt of each row."""
        ids = np.asarray(attempt_ids, dtype=object)
        first = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1]))) if ids.size else np.empty(0, np.int64)
        return RanksOfAttempts(list(ids[first]), first, np.diff(np.append(first, ids.size)))


@dataclass(frozen=True)
class SlowestRankSteps:
    """The time of every step [s] of each attempt in its slowest rank, and which rank that was (from 0, by rows)."""

    steps: RaggedArray
    rank: NDArray[np.int32]


def slowest_rank_steps(steps: RaggedArray, ranks: RanksOfAttempts) -> SlowestRankSteps:
    """The steps that all ranks of an attempt have; none for an attempt with a time that cannot be right."""
    counts = _shortest_list_lengths(steps, ranks)
    begins = np.cumsum(counts) - counts
    times = steps.values
    if not has_one_rank_per_attempt(ranks):
        times = times[_indices_in_segments(steps.starts[ranks.first], counts)]
    rank = np.zeros(times.size, np.int32)
    good = is_possible_time(times)
    for number in range(1, int(ranks.count.max(initial=1))):
        has = np.flatnonzero(ranks.count > number)
        here = _indices_in_segments(begins[has], counts[has])
        own = steps.values[_indices_in_segments(steps.starts[ranks.first[has] + number], counts[has])]
        good[here] &= is_possible_time(own)
        slower = own > times[here]
        times[here[slower]] = own[slower]
        rank[here[slower]] = number
    if not good.all():
        owner = np.repeat(np.arange(counts.size), counts)
        spoilt = np.isin(np.arange(counts.size), owner[~good])
        kept = ~spoilt[owner]
        times, rank, counts = times[kept], rank[kept], np.where(spoilt, 0, counts)
    return SlowestRankSteps(RaggedArray(times, np.concatenate(([0], np.cumsum(counts)))), rank)


def sample_statistics(
    found: SlowestRankSteps, lists: Mapping[str, RaggedArray], ranks: RanksOfAttempts, stride: NDArray[Any]
) -> pd.DataFrame:
    """The metrics of `STATISTICS`, one row per attempt; NaN where there are too few samples.

    Args:
        found: the steps.
        lists: of each row the samples of the phases [s].
        stride: of each row; its phases were taken in every so many-th step, from the first on. NaN is every step.
    """
    every = np.where(stride > 1, stride, 1).astype(np.int64)
    values = _step_time_statistics(found.steps)
    for name, column in PHASES.items():
        values[name] = _median_phase_of_slowest_rank(lists[column], ranks, found, every)
    return pd.DataFrame(values, index=ranks.attempts, columns=list(STATISTICS))


def slowest_rank_median(steps: RaggedArray, ranks: RanksOfAttempts) -> Floats:
    """The largest median step [s] of the ranks of each attempt; NaN where a rank has no steps that can be right."""
    rows = RanksOfAttempts([], np.arange(steps.row_lengths.size), np.ones(steps.row_lengths.size, np.int64))
    own = slowest_rank_steps(steps, rows).steps
    full = np.flatnonzero(own.row_lengths)
    n, starts = own.row_lengths[full], own.starts[full]
    medians = _scatter_to_positions(
        _quantile_per_attempt(_sort_each_segment(own.values, starts, n), starts, n, 0.5), full, own.row_lengths.size
    )
    largest: Floats = np.maximum.reduceat(medians, ranks.first) if ranks.first.size else medians
    return largest


def _step_time_statistics(steps: RaggedArray) -> dict[str, Floats]:
    counts = steps.row_lengths
    full = np.flatnonzero(counts)
    n, starts, values = counts[full], steps.starts[full], steps.values
    ordered = _sort_each_segment(values, starts, n)
    p25, p50, p75, p95, p99 = (
        _quantile_per_attempt(ordered, starts, n, share) for share in (0.25, 0.5, 0.75, 0.95, 0.99)
    )
    far = 3 * (p75 - p25)
    outside = (values < np.repeat(p25 - far, n)) | (values > np.repeat(p75 + far, n))
    mean = np.add.reduceat(values, starts) / n if n.size else np.empty(0)
    deviations = values - np.repeat(mean, n)
    products = np.zeros(values.size)
    products[:-1] = deviations[:-1] * deviations[1:]
    products[starts + n - 1] = 0  # the last step of an attempt and the first of the next are no neighbours
    squares, lagged, outliers = (_segment_sums(x, starts) for x in (deviations**2, products, outside))
    # As in dlbench.stats: what rounding leaves of equal samples is no variation.
    varied = (n >= 3) & (squares > n * (1e-12 * mean) ** 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "steps": n.astype(float),
            "step_time": p50,
            "latency_p50": p50,
            "latency_p95": p95,
            "latency_p99": p99,
            "cv": np.where(n > 1, np.sqrt(squares / (n - 1)) / mean, np.nan),
            "iqr": np.where(n >= MIN_STEPS, (p75 - p25) / p50, np.nan),
            "autocorrelation": np.where(varied, lagged / squares, np.nan),
            "outliers": outliers,
        }
    return {name: _scatter_to_positions(some, full, counts.size) for name, some in found.items()}


def _median_phase_of_slowest_rank(
    samples: RaggedArray, ranks: RanksOfAttempts, found: SlowestRankSteps, stride: Ints
) -> Floats:
    """Median time of a phase, in each step of the rank that was slowest in it.

    NaN where a rank lacks it or has a time that cannot be right: every phase of a step is work of its own.
    """
    if ranks.first.size == 0:
        return np.empty(0)
    num_steps = found.steps.row_lengths
    every = np.maximum.reduceat(stride, ranks.first)
    taken = -(-num_steps // every)
    alike = every == np.minimum.reduceat(stride, ranks.first)
    bad = np.concatenate(([0], np.cumsum(~is_possible_time(samples.values))))[samples.starts]
    spoilt = bad[ranks.first + ranks.count] > bad[ranks.first]
    known = np.flatnonzero((num_steps > 0) & alike & (_shortest_list_lengths(samples, ranks) >= taken) & ~spoilt)
    n = taken[known]
    if has_one_rank_per_attempt(ranks):
        values, starts = samples.values, samples.starts[known]
    else:
        index = _indices_in_segments(np.zeros_like(n), n)
        step = np.repeat(found.steps.starts[known], n) + index * np.repeat(every[known], n)
        row = np.repeat(ranks.first[known], n) + found.rank[step]
        values = samples.values[samples.starts[row] + index]
        starts = np.cumsum(n) - n
    return _scatter_to_positions(
        _quantile_per_attempt(_sort_each_segment(values, starts, n), starts, n, 0.5), known, num_steps.size
    )


def has_one_rank_per_attempt(ranks: RanksOfAttempts) -> bool:
    """Whether each attempt has one rank: its samples are taken as they lie then."""
    return int(ranks.count.max(initial=1)) == 1


def is_possible_time(times: Floats) -> NDArray[np.bool_]:
    """Which times [s] can be right."""
    return (times >= SHORTEST_STEP_S) & (times <= LONGEST_STEP_S)


def _shortest_list_lengths(lists: RaggedArray, ranks: RanksOfAttempts) -> Ints:
    """The length of the shortest list of each attempt's ranks."""
    if ranks.first.size == 0:
        return np.empty(0, np.int64)
    shortest: Ints = np.minimum.reduceat(lists.row_lengths, ranks.first)
    return shortest


def _indices_in_segments(starts: Ints, counts: Ints) -> Ints:
    """Where the elements of stretches lie, stretch after stretch."""
    before = np.cumsum(counts) - counts
    places: Ints = np.arange(counts.sum()) + np.repeat(starts - before, counts)
    return places


def _sort_each_segment(values: Floats, starts: Ints, counts: Ints) -> Floats:
    ordered = values.copy()
    # Stretches of one length are rows of a matrix, which are sorted in a fraction of the time of one after the other.
    for length in np.unique(counts).tolist():
        places = starts[counts == length, np.newaxis] + np.arange(length)
        ordered[places] = np.sort(values[places], axis=1)
    return ordered


def _quantile_per_attempt(ordered: Floats, starts: Ints, counts: Ints, share: float) -> Floats:
    """The value below which `share` of each attempt's sorted samples lie, interpolated linearly."""
    place = share * (counts - 1)
    below = place.astype(np.int64)
    above = np.minimum(below + 1, counts - 1)
    low = ordered[starts + below]
    value: Floats = low + (place - below) * (ordered[starts + above] - low)
    return value


def _segment_sums(values: NDArray[np.float64] | NDArray[np.bool_], starts: Ints) -> Floats:
    return np.add.reduceat(values, starts, dtype=np.float64) if starts.size else np.empty(0)


def _scatter_to_positions(some: Floats, places: Ints, size: int) -> Floats:
    """`some` at their places among `size`, NaN elsewhere."""
    values = np.full(size, np.nan)
    values[places] = some
    return values


#: The confidence interval of the median step time [s].
LIMIT_COLUMNS = ("step_time_low", "step_time_high")
