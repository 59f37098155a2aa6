"""The interval that a rerun confirms, and how many processes it takes."""

from __future__ import annotations

import math
import random
from statistics import NormalDist, fmean

import pytest

from dlbench import process_statistics
from dlbench.errors import InvalidMeasurement
from dlbench.process_statistics import (
    MIN_PROCESSES,
    ProcessMedian,
    interval_over_processes,
    processes_needed,
    split_into_two_groups,
    student_quantile,
)


def windows(*medians: float) -> list[ProcessMedian]:
    return [ProcessMedian(median) for median in medians]


@pytest.mark.parametrize(
    ("degrees", "confidence", "quantile"),
    # Abramowitz & Stegun, table 26.10.
    [(1, 0.95, 12.706), (2, 0.95, 4.303), (3, 0.95, 3.182), (4, 0.99, 4.604), (9, 0.95, 2.262), (30, 0.98, 2.457)],
)
def test_students_quantile_is_that_of_the_tables(degrees, confidence, quantile):
    assert student_quantile(degrees, confidence) == pytest.approx(quantile, abs=6e-4)


def test_three_processes_have_an_interval_around_their_geometric_mean():
    found = interval_over_processes(windows(0.010, 0.0102, 0.0099))
    assert found.value == pytest.approx((0.010 * 0.0102 * 0.0099) ** (1 / 3))
    spread = math.sqrt(sum((math.log(x) - math.log(found.value)) ** 2 for x in (0.010, 0.0102, 0.0099)) / 2)
    assert math.log(found.high / found.value) == pytest.approx(2 * 4.3027 * spread / math.sqrt(3), rel=1e-4)
    assert math.log(found.next_high / found.value) == pytest.approx(1.5 * 4.3027 * spread * math.sqrt(4 / 3), rel=1e-4)


@pytest.mark.parametrize("medians", [(), (0.01,), (0.01, 0.011), (0.01, 0.01, 0.01)])
def test_too_few_processes_or_copies_of_one_have_no_interval(medians):
    assert interval_over_processes(windows(*medians)) is None


def test_the_windows_count_where_medians_agree_by_chance():
    close = (0.0100000, 0.0100001, 0.0100002)
    alone = interval_over_processes(windows(*close))
    read = interval_over_processes([ProcessMedian(value, value * 0.98, value * 1.02) for value in close])
    assert read.relative_half_width > 100 * alone.relative_half_width
    assert read.relative_half_width >= 0.02 / math.sqrt(3)


def test_a_median_that_is_no_time_is_an_error():
    with pytest.raises(InvalidMeasurement, match="nan"):
        interval_over_processes(windows(0.01, math.nan, 0.01))


@pytest.mark.parametrize("correlation", [0.0, 0.3])
def test_a_rerun_lies_inside_in_about_95_percent_also_where_conditions_drift(correlation):
    rng, trials, held, held_next = random.Random(3), 2000, 0, 0
    for _ in range(trials):
        y = [rng.gauss(0, 1)]
        for _ in range(12):
            y.append(correlation * y[-1] + math.sqrt(1 - correlation**2) * rng.gauss(0, 1))
        found = interval_over_processes(windows(*(math.exp(0.02 * value) for value in y[:3])))
        held += found.low <= math.exp(0.02 * fmean(y[3:])) <= found.high
        held_next += found.next_low <= math.exp(0.02 * y[3]) <= found.next_high
    assert held / trials >= 0.93
    assert held_next / trials >= 0.95


def test_two_groups_of_processes_are_named():
    found = split_into_two_groups(windows(0.0100, 0.0120, 0.0101, 0.0121))
    assert found.fast == (0.0100, 0.0101)
    assert found.slow == (0.0120, 0.0121)


def test_processes_spread_evenly_form_one_group_and_so_do_close_ones():
    assert split_into_two_groups(windows(0.0100, 0.0105, 0.0110, 0.0115)) is None
    assert split_into_two_groups(windows(0.0100, 0.01001, 0.0103)) is None
    assert split_into_two_groups(windows(0.0100, 0.0120)) is None


def test_a_gap_that_the_windows_cannot_resolve_makes_no_groups():
    wide = [ProcessMedian(value, value * 0.9, value * 1.1) for value in (0.0100, 0.0101, 0.0112)]
    assert split_into_two_groups(wide) is None


def test_the_number_of_processes_for_a_target_brings_the_interval_there():
    rng = random.Random(5)
    values = [math.exp(0.01 * NormalDist().inv_cdf(rng.random())) for _ in range(4)]
    found = interval_over_processes(windows(*values))

    def needed(target):
        return processes_needed(lambda k: found.expected_half_width(k) <= target, found.num_processes)

    total = needed(0.01)
    assert total is not None
    assert total > found.num_processes
    reach = [
        process_statistics.DRIFT_ALLOWANCE * student_quantile(k - 1, 0.95) * found.spread / math.sqrt(k)
        for k in (total - 1, total)
    ]
    assert reach[1] <= 0.01 < reach[0]
    assert needed(10.0) == found.num_processes
    assert needed(1e-9) is None
    assert MIN_PROCESSES == 3
