"""The experiment that says what measuring costs runs, and finds no large cost even on a busy machine."""

import argparse
import statistics

import pytest

from benchmarks.experiments import overhead


@pytest.mark.parametrize("mode", ["training", "inference"])
def test_a_step_takes_as_long_in_our_loop_as_in_a_bare_one(mode):
    bare_s, ratios = overhead.measure_ratios("lenet5", 4, mode, "cpu", seconds=2.0, seed=1)
    assert len(ratios) >= 10
    assert 0 < bare_s < 1
    assert 0.8 < statistics.median(ratios) < 1.25


def test_each_process_counts_once_whatever_its_number_of_pairs(monkeypatch, capsys):
    monkeypatch.setattr(overhead, "_PROCESS_S", 0.1)
    monkeypatch.setattr(overhead, "_MIN_PROCESSES", 2)
    monkeypatch.setattr(overhead, "_WANTED_WIDTH", 1.0)
    options = argparse.Namespace(device="cpu", seconds=0.0, seed=0)
    bare_s, pairs, ratios = overhead.measure_processes("lenet5", 4, "training", options)
    assert 0 < bare_s < 1
    assert len(ratios) == 2
    assert pairs >= 20
    assert capsys.readouterr().err.count("lenet5, training, batch 4, process") == 2


def test_the_interval_of_a_mean_holds_it_and_is_wider_for_fewer_values():
    values = [float(i) for i in range(1, 102)]
    low, high = overhead.mean_limits(values)
    assert (low + high) / 2 == pytest.approx(51)
    assert high - low == pytest.approx(2 * 1.984 * 29.3 / 101**0.5, rel=1e-3)
    few = overhead.mean_limits(values[::10])
    assert few[1] - few[0] > high - low
