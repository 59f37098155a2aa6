"""The page that says where each rule of measuring is met."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dlbench.report.analysis.content import read_content
from dlbench.report.chapters.method import measurement_rules_table
from dlbench.suites.case import Case, Protocol
from tests.fakes import records as fakes


@pytest.mark.parametrize(
    ("wrong", "state", "words"), [(0, "met", "2 of 2"), (1, "partly", "1 of 2"), (2, "no", "0 of 2")]
)
def test_counts_that_disagree_with_pytorchs_are_not_called_met(tmp_path, wrong, state, words):
    made = []
    for number in range(2):
        record = fakes.record(Case("alexnet", batch_size=2**number), number=number)
        ((system, found),) = record.ranks
        counted = found.forward_flop + (number < wrong)
        ranks = ((system, dataclasses.replace(found, pytorch_forward_flop=counted)),)
        made.append(dataclasses.replace(record, ranks=ranks))
    rows = measurement_rules_table(read_content([fakes.fill(tmp_path / "store", made)])).records()
    (rule,) = [row for row in rows if row["rule"] == 11]
    assert rule["state"] == state
    assert f"the same forward FLOP in {words} records" in rule["done"]


def rule(tmp_path, number, *records):
    """What is said of one rule, and its state."""
    rows = measurement_rules_table(read_content([fakes.fill(tmp_path / "store", list(records))])).records()
    (found,) = [row for row in rows if row["rule"] == number]
    return found["done"], found["state"]


def of_gpu(number=0, **changes):
    return fakes.record(Case("alexnet", device="cuda", batch_size=2**number), number=number, **changes)


def test_clocks_that_are_apart_are_not_called_met(tmp_path):
    fine, apart = of_gpu(), of_gpu(1, window_s=6.0, device_window_s=3.0)
    assert rule(tmp_path / "fine", 6, fine)[1] == "met"
    words, state = rule(tmp_path / "apart", 6, fine, apart)
    assert ("largest gap 50 %" in words, state) == (True, "partly")
    assert rule(tmp_path / "unknown", 6, fine, of_gpu(1, device_window_s=None))[1] == "partly"


def test_meters_that_are_apart_or_alone_are_not_called_met(tmp_path):
    fine = of_gpu(energy_counter_j=1000.0, energy_integral_j=1049.0)
    words, state = rule(tmp_path / "fine", 10, fine)
    assert ("differ by at most 4.9 %" in words, state) == (True, "met")
    assert (
        rule(tmp_path / "apart", 10, fine, of_gpu(1, energy_counter_j=1000.0, energy_integral_j=940.0))[1] == "partly"
    )
    words, state = rule(tmp_path / "alone", 10, fine, of_gpu(1, energy_integral_j=None))
    assert ("1 of 2 cases have only one of the two energies" in words, state) == (True, "partly")


def wild():
    """Steps whose median is known to some 3 %."""
    return tuple(float(t) for t in 0.1 * np.exp(np.random.default_rng(1).normal(0, 0.25, 400)))


def test_a_target_that_rank_0_alone_has_met_is_not_called_met(tmp_path):
    quiet = fakes.noisy_steps(0.09, 400, 1)
    record = fakes.record(Case("alexnet", device="cuda", devices_per_node=2), step_s=quiet)
    (system, a), (_, b) = record.ranks
    uneven = dataclasses.replace(record, ranks=((system, a), (system, dataclasses.replace(b, step_s=wild()))))
    words, state = rule(tmp_path / "quiet", 3, record)
    assert ("1 of 1 case reached the protocol's target" in words, state) == (True, "met")
    words, state = rule(tmp_path / "uneven", 3, uneven)
    assert state == "partly"
    assert "0 of 1 case reached the protocol's target" in words
    assert (
        "; for 1 the interval was narrow enough when the window ended, but the interval over all steps is wider or unknown"
        in words
    )


def test_a_wider_target_is_met_by_a_wider_interval(tmp_path):
    case = Case("alexnet", device="cuda", protocol=Protocol(target_half_width=0.5))
    assert rule(tmp_path, 3, fakes.record(case, step_s=wild()))[1] == "met"


def test_how_far_intervals_hold_that_ended_their_window_is_said(tmp_path):
    assert (
        "If a window ends because its interval is narrow enough, about 92 % of the 95 % intervals contain the true "
        "median."
    ) in rule(tmp_path, 3, of_gpu())[0]
