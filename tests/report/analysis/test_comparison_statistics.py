"""What may be said of B against A, and how often it is false."""

from __future__ import annotations

import math
import random
from functools import partial

import pytest

from dlbench.errors import InvalidMeasurement
from dlbench.process_statistics import ProcessMedian, interval_over_processes, student_quantile
from dlbench.report.analysis.comparison_statistics import (
    DEFAULT_PAIRS,
    compare_process_groups,
    correct_p_values_by_holm,
    holm_adjusted_p_values,
)

compare_pairs = partial(compare_process_groups, paired=True)


def process(median_s: float, rng: random.Random, steps: int = 60) -> list[float]:
    """The step times of one process around its own median, with 1 % noise."""
    return [median_s * (1 + 0.01 * rng.gauss(0, 1)) for _ in range(steps)]


def medians(count: int, spread: float, rng: random.Random, factor: float = 1.0) -> list[list[float]]:
    """Processes given by their medians alone, which differ by the relative standard deviation `spread`."""
    return [[0.01 * factor * math.exp(spread * rng.gauss(0, 1))] for _ in range(count)]


@pytest.mark.parametrize("function", [compare_process_groups, compare_pairs])
@pytest.mark.parametrize("count", [3, 5, DEFAULT_PAIRS])
def test_at_most_5_percent_of_comparisons_of_a_with_itself_are_called_different(function, count):
    rng = random.Random(f"{count}")
    trials = 1500
    different = sum(
        function(medians(count, 0.01, rng), medians(count, 0.01, rng)).verdict in ("faster", "slower")
        for _ in range(trials)
    )
    assert different / trials <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


def test_the_standard_error_of_independent_processes_is_that_of_the_interval_of_each_side():
    rng = random.Random(11)
    a, b = medians(3, 0.01, rng), medians(3, 0.01, rng)
    found = compare_process_groups(a, b)
    sides = [interval_over_processes([ProcessMedian(value) for (value,) in side]) for side in (a, b)]
    errors = [math.log(side.high / side.low) / 2 / student_quantile(2, 0.95) for side in sides]
    assert found.standard_error == pytest.approx(math.hypot(*errors))


def test_processes_in_two_modes_or_with_disturbed_neighbours_bring_no_false_verdicts():
    rng = random.Random(1)

    def odd(count: int) -> list[list[float]]:
        return [
            [0.01 * (1.03 if rng.random() < 0.3 else 1.0) * (2.0 if rng.random() < 0.1 else 1.0)] for _ in range(count)
        ]

    different = sum(compare_pairs(odd(10), odd(10)).verdict in ("faster", "slower") for _ in range(800))
    assert different / 800 <= 0.07


def test_a_slowdown_of_3_percent_is_found_in_95_percent_of_runs_with_the_default_pairs():
    rng = random.Random(2)
    verdicts = [
        compare_pairs(medians(DEFAULT_PAIRS, 0.015, rng), medians(DEFAULT_PAIRS, 0.015, rng, 1.03)).verdict
        for _ in range(500)
    ]
    assert verdicts.count("slower") / 500 >= 0.95
    assert "faster" not in verdicts


def test_a_drift_of_the_machine_hides_a_slowdown_from_independent_processes_but_not_from_pairs():
    rng = random.Random(3)
    speeds = [1 + 0.05 * i for i in range(10)]
    a = [process(0.01 * s, rng) for s in speeds]
    b = [process(0.0103 * s, rng) for s in speeds]
    assert compare_pairs(a, b).verdict == "slower"
    assert compare_process_groups(a, b).verdict == "not decided"


def test_swapping_the_sides_turns_ratio_interval_and_verdict_around():
    rng = random.Random(4)
    a, b = medians(6, 0.005, rng), medians(7, 0.005, rng, 1.05)
    forth, back = compare_process_groups(a, b), compare_process_groups(b, a)
    assert (forth.verdict, back.verdict) == ("slower", "faster")
    assert forth.ratio * back.ratio == pytest.approx(1)
    assert forth.low * back.high == pytest.approx(1)
    assert forth.p_value == pytest.approx(back.p_value)
    assert forth.chance_b_slower == 1 - back.chance_b_slower


def test_sides_that_do_not_overlap_at_all_have_a_chance_of_one():
    comparison = compare_process_groups([[0.010], [0.011], [0.012]], [[0.020], [0.021], [0.022]])
    assert comparison.chance_b_slower == 1
    assert comparison.verdict == "slower"
    assert comparison.low > 1


def test_a_difference_that_is_certain_but_below_the_margin_is_called_same():
    rng = random.Random(5)
    a, b = medians(10, 0.001, rng), medians(10, 0.001, rng, 1.004)
    assert compare_process_groups(a, b).p_value < 0.01
    assert compare_process_groups(a, b).verdict == "same"
    assert compare_process_groups(a, b, margin=0.0).verdict == "slower"


def test_a_wide_interval_around_one_is_not_decided_and_not_same():
    rng = random.Random(6)
    assert compare_process_groups(medians(3, 0.05, rng), medians(3, 0.05, rng)).verdict == "not decided"


def test_one_process_a_side_is_never_a_verdict_however_many_steps_it_has():
    rng = random.Random(7)
    comparison = compare_process_groups([process(0.010, rng, 5000)], [process(0.015, rng, 5000)])
    assert comparison.basis == "assumed"
    assert comparison.verdict == "not decided"
    assert "run 3 or more processes per side" in comparison.caveat_of_verdict
    # The windows alone would claim ±0.05 %.
    assert comparison.high / comparison.low > 1.05


def test_a_stated_spread_between_processes_allows_a_verdict_and_is_marked():
    rng = random.Random(8)
    a, b, far = process(0.010, rng, 1000), process(0.0101, rng, 1000), process(0.011, rng, 1000)
    assert compare_process_groups([a], [b], between_processes=0.005).verdict == "not decided"
    found = compare_process_groups([a], [far], between_processes=0.005)
    assert found.verdict == "slower"
    assert "the value of --between-processes" in found.caveat_of_verdict


def test_two_processes_that_disagree_widen_the_interval_beyond_what_is_assumed():
    rng = random.Random(9)
    quiet = compare_process_groups([process(0.01, rng) for _ in range(2)], [process(0.01, rng) for _ in range(2)])
    torn = compare_process_groups([process(0.01, rng), process(0.03, rng)], [process(0.01, rng) for _ in range(2)])
    assert math.log(torn.high / torn.low) > 5 * math.log(quiet.high / quiet.low)


def test_a_single_step_a_side_gives_a_ratio_and_nothing_else():
    comparison = compare_process_groups([[0.01]], [[0.02]])
    assert comparison.ratio == pytest.approx(2)
    assert (comparison.low, comparison.high, comparison.p_value) == (None, None, None)
    assert comparison.verdict == "not decided"
    assert "too few to estimate" in comparison.caveat_of_verdict


@pytest.mark.parametrize("function", [compare_process_groups, compare_pairs])
@pytest.mark.parametrize("factor", [1.0, 1.02])
def test_processes_without_any_spread_show_a_coarse_clock_and_nothing_else(function, factor):
    comparison = function([[0.01]] * 5, [[0.01 * factor]] * 5)
    assert comparison.ratio == pytest.approx(factor)
    assert (comparison.low, comparison.high, comparison.p_value) == (None, None, None)
    assert comparison.verdict == "not decided"
    assert "the clock is too coarse, or the step times are copies" in comparison.caveat_of_verdict


def test_a_single_value_adds_nothing_to_a_spread_that_is_stated():
    comparison = compare_process_groups([[1.0]], [[1.2]], between_processes=0.01, single_values=True)
    assert comparison.verdict == "slower"
    assert math.log(comparison.high / 1.2) == pytest.approx(1.96 * math.sqrt(2) * 0.01, rel=1e-3)
    # Of a single step, or of a few, the median is not known well enough.
    assert compare_process_groups([[1.0]], [[1.2]], between_processes=0.01).low is None
    assert compare_process_groups([[1.0, 1.1]], [[1.2, 1.3]], between_processes=0.01).low is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_a_time_that_is_none_is_refused(bad):
    with pytest.raises(InvalidMeasurement, match="finite and above zero"):
        compare_process_groups([[0.01]] * 3, [[0.01], [0.01], [bad]])


def test_missing_processes_steps_and_partners_are_named():
    with pytest.raises(InvalidMeasurement, match="side B of the comparison has no measured process"):
        compare_process_groups([[0.01]], [])
    with pytest.raises(InvalidMeasurement, match="process 2 of side A has no steps"):
        compare_process_groups([[0.01], [], [0.01]], [[0.01]] * 3)
    with pytest.raises(InvalidMeasurement, match="not 3 and 4"):
        compare_pairs([[0.01]] * 3, [[0.01]] * 4)


def test_holm_gives_the_textbook_values():
    assert holm_adjusted_p_values([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_adjusted_p_values([0.6, 0.9]) == [1.0, 1.0]
    assert holm_adjusted_p_values([]) == []


def test_holm_leaves_out_what_was_not_tested():
    assert holm_adjusted_p_values([None, 0.02, 0.03]) == [None, 0.04, 0.04]


def test_correction_keeps_false_findings_out_of_a_table_of_84_comparisons():
    rng = random.Random(10)
    tables_with_a_false_finding = uncorrected = 0
    for _ in range(40):
        table = [compare_pairs(medians(10, 0.01, rng), medians(10, 0.01, rng), margin=0.0) for _ in range(84)]
        uncorrected += any(c.verdict in ("faster", "slower") for c in table)
        tables_with_a_false_finding += any(c.verdict in ("faster", "slower") for c in correct_p_values_by_holm(table))
    assert uncorrected >= 35
    assert tables_with_a_false_finding <= 6


def test_correction_keeps_a_clear_finding():
    rng = random.Random(11)
    table = [compare_pairs(medians(10, 0.005, rng), medians(10, 0.005, rng)) for _ in range(83)]
    table.append(compare_pairs(medians(10, 0.005, rng), medians(10, 0.005, rng, 1.05)))
    corrected = correct_p_values_by_holm(table)
    assert corrected[-1].verdict == "slower"
    assert corrected[-1].adjusted_p_value == pytest.approx(84 * table[-1].p_value)
    assert (corrected[-1].low, corrected[-1].high) == (table[-1].low, table[-1].high)


def test_processes_that_differ_beyond_all_reason_have_an_interval_without_end():
    found = compare_pairs([[1e-200], [1.0], [1e200]], [[1e200], [1.0], [1e-200]])
    assert found.low < 1e-300
    assert found.high > 1e300
    assert math.isfinite(1 / found.low)
    assert found.verdict == "not decided"


@pytest.mark.parametrize("function", [compare_process_groups, compare_pairs])
def test_as_many_more_runs_as_it_says_decide_in_most_cases(function):
    rng = random.Random(7)
    decided = asked = 0
    for _ in range(300):
        a, b = medians(4, 0.01, rng), medians(4, 0.01, rng, 1.02)
        more = function(a, b).more_processes_needed
        if more:
            asked += 1
            again = function(a + medians(more, 0.01, rng), b + medians(more, 0.01, rng, 1.02))
            decided += again.verdict != "not decided"
    assert asked > 50
    assert decided / asked > 0.5


def test_nothing_more_is_needed_where_a_verdict_has_fallen():
    rng = random.Random(8)
    found = compare_process_groups(medians(5, 0.001, rng), medians(5, 0.001, rng, 1.2))
    assert (found.verdict, found.more_processes_needed, found.verdict_text) == ("slower", 0, "slower")
    same = compare_process_groups(medians(9, 0.001, rng), medians(9, 0.001, rng))
    assert same.verdict_text == "no difference beyond 1.0 %"


def test_one_process_on_a_side_needs_two_more():
    rng = random.Random(9)
    found = compare_process_groups([process(0.01, rng)], [process(0.0101, rng)])
    assert (found.more_processes_needed, found.verdict_text) == (2, "not decided (needs 2 more processes)")


def test_more_runs_are_needed_where_a_whole_table_is_corrected():
    rng = random.Random(10)
    found = compare_process_groups(medians(4, 0.01, rng), medians(4, 0.01, rng, 1.01))
    assert found.verdict == "not decided"
    together = correct_p_values_by_holm([found] * 20)[0]
    assert together.more_processes_needed >= found.more_processes_needed


def test_copies_without_spread_are_decided_by_no_number_of_runs():
    found = compare_process_groups([[0.01]] * 4, [[0.01]] * 4)
    assert (found.more_processes_needed, found.verdict_text) == (None, "not decided")
