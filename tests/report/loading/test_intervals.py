"""The intervals of many windows at once are those of each by itself, to the last bit."""

import itertools

import numpy as np
import pytest

from dlbench import stats
from dlbench.report.loading import intervals
from dlbench.results.reader import RaggedArray


def lists(windows):
    return RaggedArray(np.concatenate([np.empty(0), *windows]), np.cumsum([0, *map(len, windows)]))


def plainly(windows, levels):
    found = [stats.median_interval(w.tolist(), c) for w, c in zip(windows, levels, strict=True)]
    return np.array([(np.nan, np.nan) if i is None else (i.low, i.high) for i in found]).reshape(-1, 2)


def drawn(rng, n, rho, coarse):
    """Times [s] that are correlated, of few different values, or all equal."""
    noise = rng.normal(size=n)
    for i in range(1, n):
        noise[i] += rho * noise[i - 1]
    times = 0.01 * np.exp(0.05 * noise)
    return np.round(times, coarse) if coarse else times


@pytest.mark.parametrize("at_once", [1, 500, 10**7])
def test_they_are_those_of_single_windows_to_the_last_bit(monkeypatch, at_once):
    monkeypatch.setattr(intervals, "_STEPS_AT_ONCE", at_once)
    rng = np.random.default_rng(3)
    lengths = (0, 1, 19, 20, 21, 30, 30, 31, 100, 255, 256, 257, 1000)
    kinds = itertools.product(lengths, (0.0, 0.5, 0.95, -0.9), (0, 3, 2))
    windows = [drawn(rng, *kind) for kind in kinds]
    windows += [np.full(40, 0.01), np.resize([0.01, 0.02], 60), np.resize([0.01, 0.02], 61), np.arange(1, 200) * 1e-3]
    # The slowest or the fastest steps in a cluster.
    for n, change in itertools.product((20, 40, 150, 400), (1.5, 0.5)):
        burst = drawn(rng, n, 0.0, 0)
        burst[n // 3 : n // 3 + max(4, n // 20)] *= change
        windows.append(burst)
    order = rng.permutation(len(windows))
    windows = [windows[i] for i in order]
    levels = rng.choice([0.5, 0.9, 0.95, 0.99, 0.9999], len(windows))
    found = intervals.median_intervals(lists(windows), levels)
    expected = plainly(windows, levels)
    assert 20 < np.isnan(expected).any(axis=1).sum() < len(windows) - 50
    np.testing.assert_array_equal(found, expected)


def test_no_window_has_no_interval():
    assert intervals.median_intervals(lists([]), np.empty(0)).shape == (0, 2)
