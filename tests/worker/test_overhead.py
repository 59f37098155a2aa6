"""The experiment that says what measuring costs runs, and finds no large cost even on a busy machine."""

import statistics

from benchmarks.experiments import overhead


def test_a_step_takes_as_long_in_our_loop_as_in_a_bare_one():
    bare_s, ratios = overhead.measure_ratios("lenet5", 4, "cpu", seconds=2.0, seed=1)
    assert len(ratios) >= 30
    assert 0 < bare_s < 1
    assert 0.8 < statistics.median(ratios) < 1.25


def test_the_interval_of_a_median_holds_it_and_is_wider_for_fewer_values():
    values = [float(i) for i in range(1, 102)]
    low, high = overhead.median_limits(values)
    assert low < 51 < high
    few = overhead.median_limits(values[::10])
    assert few[1] - few[0] > high - low
