"""The statistics of many attempts at once are those of each by itself, as the definitions say."""

import math

import numpy as np
import pytest

from dlbench import stats
from dlbench.report.loading import sample_statistics
from dlbench.results.reader import RaggedArray
from tests.fakes import dispersion


def lists(arrays):
    """Rows of numbers as a store gives them; None is a missing list."""
    arrays = [np.array(a if a is not None else [], dtype=float) for a in arrays]
    return RaggedArray(np.concatenate([np.empty(0), *arrays]), np.cumsum([0, *map(len, arrays)]))


def described(attempts, stride=None):
    """The statistics of attempts, each given as ranks, each of these as step, forward, backward and optimizer times."""
    rows = [(str(i), rank) for i, ranks in enumerate(attempts) for rank in ranks]
    columns = {name: lists([rank[k] for _, rank in rows]) for k, name in enumerate(sample_statistics.COLUMNS)}
    ranks = sample_statistics.RanksOfAttempts.from_attempt_ids([attempt for attempt, _ in rows])
    every = np.ones(len(rows)) if stride is None else np.array(stride, dtype=float)
    return sample_statistics.sample_statistics(
        sample_statistics.slowest_rank_steps(columns["step_s"], ranks), columns, ranks, every
    )


def plainly(ranks):
    """The same of one attempt, step by step from the definitions."""
    steps = [rank[0] if rank[0] is not None else [] for rank in ranks]
    count = min(map(len, steps))
    used = [t for rank in steps for t in rank[:count]]
    if count == 0 or not all(0 < t < math.inf for t in used):
        return {}
    which = [max(range(len(ranks)), key=lambda r: steps[r][i]) for i in range(count)]
    times = [steps[r][i] for i, r in enumerate(which)]
    found = {
        "steps": count,
        "step_time": stats.percentile(times, 50),
        "latency_p50": stats.percentile(times, 50),
        "latency_p95": stats.percentile(times, 95),
        "latency_p99": stats.percentile(times, 99),
        "cv": dispersion.coefficient_of_variation(times),
        "iqr": stats.relative_iqr(times) if count >= 4 else None,
        "autocorrelation": dispersion.autocorrelation(times),
        "outliers": dispersion.count_outliers(times),
    }
    for k, name in enumerate(sample_statistics.PHASES, 1):
        phases = [rank[k] if rank[k] is not None else [] for rank in ranks]
        if all(len(phase) >= count and all(0 < t < math.inf for t in phase) for phase in phases):
            found[name] = stats.percentile([phases[r][i] for i, r in enumerate(which)], 50)
    return found


def measured(rng, count):
    steps = 0.01 * np.exp(rng.normal(0, 0.3, count))
    steps[rng.random(count) < 0.03] *= 20
    return [steps, 0.3 * steps, 0.6 * steps * rng.uniform(0.9, 1.0, count), 0.05 * steps]


def attempts_of_all_kinds():
    rng = np.random.default_rng(7)
    equal = [np.full(30, 0.01)] * 4
    made = [[measured(rng, n)] for n in (1, 2, 3, 4, 5, 19, 30, 200, 3000)]
    made += [[equal], [[None] * 4], [[[], [], [], []]]]
    made += [[measured(rng, 40 - r) for r in range(ranks)] for ranks in (2, 3, 8)]
    made += [[measured(rng, 30), [None] * 4], [measured(rng, 30), equal]]
    for bad in (math.nan, math.inf, 0.0, -0.01):
        spoilt = measured(rng, 30)
        spoilt[0][7] = bad
        made += [[spoilt], [measured(rng, 30), spoilt]]
        spoilt = measured(rng, 30)
        spoilt[1][29] = spoilt[3][0] = bad
        made += [[spoilt], [measured(rng, 30), spoilt, measured(rng, 30)]]
    without_backward = measured(rng, 25)
    without_backward[2] = None
    made += [[without_backward], [measured(rng, 25), without_backward]]
    order = rng.permutation(len(made))
    return [made[i] for i in order]


def test_all_at_once_is_the_same_as_one_by_one():
    attempts = attempts_of_all_kinds()
    found = described(attempts)
    assert list(found.columns) == list(sample_statistics.STATISTICS)
    for ranks, row in zip(attempts, found.to_dict("records"), strict=True):
        expected = plainly(ranks)
        for name in sample_statistics.STATISTICS:
            if expected.get(name) is None:
                assert math.isnan(row[name]), name
            else:
                assert row[name] == pytest.approx(expected[name], rel=1e-10, abs=1e-12), name


def test_nothing_and_only_empty_attempts_have_no_statistics():
    assert described([]).empty
    found = described([[[None] * 4], [[[], None, None, None]]])
    assert len(found) == 2
    assert found.isna().all(axis=None)


def test_phases_taken_in_every_third_step_are_those_of_the_rank_slowest_in_that_step():
    fast, slow = [0.01] * 7, [0.02] * 7
    slow[3] = 0.005
    ranks = [[fast, [1.0, 2.0, 3.0], [1.0], None], [slow, [10.0, 20.0, 30.0], [1.0], None]]
    found = described([ranks], stride=[3, 3]).iloc[0]
    # Steps 0, 3 and 6: the second rank is slowest in the first and the last, the first rank in the fourth.
    assert found["forward_time"] == 10.0
    assert math.isnan(found["backward_time"])
    assert math.isnan(described([ranks], stride=[3, 2]).iloc[0]["forward_time"])


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -0.01])
def test_a_phase_with_a_time_that_cannot_be_is_missing_and_the_others_are_not(bad):
    good, spoilt = [0.1] * 5, [0.1, 0.1, bad, 0.1, 0.1]
    found = described([[[good, good, good, good]], [[good, spoilt, good, good]], [[good, good, good, good]]])
    assert found["forward_time"].isna().tolist() == [False, True, False]
    assert found["backward_time"].tolist() == [0.1, 0.1, 0.1]


def test_the_steps_of_each_attempt_are_those_of_its_slowest_rank():
    rows = lists([[1.0, 5.0, 2.0], [3.0, 4.0], [7.0], [8.0, math.nan]])
    found = sample_statistics.slowest_rank_steps(
        rows, sample_statistics.RanksOfAttempts.from_attempt_ids(["a", "a", "b", "c"])
    )
    assert [list(found.steps.row(i)) for i in range(3)] == [[3.0, 5.0], [7.0], []]
    assert list(found.rank) == [1, 0, 0]
