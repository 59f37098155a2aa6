"""Histories: shifts are found, quiet lines stay quiet, and what changed with a shift is named."""

import numpy as np
import pandas as pd
import pytest

from dlbench.report.analysis import change_points
from dlbench.report.analysis.history import build_history
from dlbench.results.aggregation import SETTING_AXES, SYSTEM_FACTS, THREADS_COLUMN
from dlbench.suites.case import Case

#: From day to day.
NOISE = 0.01


def points(logs, model="resnet50", begin="2026-01-01", **facts):
    """The days of one line as `reduction.days` gives them."""
    case = Case(model, device="cuda")
    frame = pd.DataFrame({name: [getattr(case, name)] * len(logs) for name in SETTING_AXES})
    known = dict.fromkeys((*SYSTEM_FACTS, THREADS_COLUMN)) | {"system_driver_version": "580.1"} | facts
    return frame.assign(
        day=pd.date_range(begin, periods=len(logs), tz="UTC"), device_kind="NVIDIA H200", processes=3,
        log_step=np.asarray(logs) - 3, log_sd=0.005, suite="daily", suite_version=1, protocol="{}", network_key=None,
        **known,
    )  # fmt: skip


def quiet(rng, days=90):
    return rng.normal(0, NOISE, days)


def test_quiet_histories_raise_no_more_alarms_than_stated():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        found = build_history(pd.concat([points(quiet(rng), model) for model in ("resnet50", "vgg16", "alexnet")]))
        alarms += bool(found.changes())
    # 5 % of 200 draws are 10; more than 17 has a chance of 1 %.
    assert alarms <= 17


def test_shifts_of_3_percent_are_found_within_5_points_in_95_of_100_draws():
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(200):
        at = int(rng.integers(15, 75))
        logs = quiet(rng)
        logs[at:] += np.log(1.03)
        changes = build_history(points(logs)).changes()
        found += any(abs(change.index - at) <= 5 and change.kind == "regression" for _, change in changes)
    assert found >= 190


def test_a_regression_is_annotated_by_what_changed_with_it():
    logs = quiet(np.random.default_rng(2), 60)
    logs[30:] += 0.05
    frame = points(logs)
    frame.loc[30:, "system_driver_version"] = "590.2"
    frame.loc[30:, "system_firmware"] = "BIOS 2"
    frame.loc[:29, "system_firmware"] = "BIOS 1"
    ((line, change),) = build_history(frame).changes()
    assert change.kind == "regression"
    assert change.size == pytest.approx(0.05, abs=0.01)
    assert change.facts == ("driver 580.1 -> 590.2", "firmware BIOS 1 -> BIOS 2")
    assert "ResNet-50" in line.name


def test_an_improvement_and_a_disturbance_are_told_from_a_regression():
    rng = np.random.default_rng(3)
    faster, disturbed = quiet(rng), quiet(rng)
    faster[40:] -= 0.05
    disturbed[40:48] += 0.08
    assert [c.kind for _, c in build_history(points(faster)).changes()] == ["improvement"]
    assert [c.kind for _, c in build_history(points(disturbed)).changes()] == ["temporary"]


def test_instability_is_told_from_a_regression():
    logs = quiet(np.random.default_rng(4), 200)
    logs[100:] *= 5
    kinds = [change.kind for _, change in build_history(points(logs)).changes()]
    assert "unstable" in kinds
    assert "regression" not in kinds


def test_single_spikes_are_no_changes():
    logs = quiet(np.random.default_rng(5))
    logs[[20, 50, 70]] += 0.3
    assert not build_history(points(logs)).changes()


def test_correlated_noise_raises_few_alarms():
    rng = np.random.default_rng(6)
    alarms = 0
    for _ in range(200):
        noise = rng.normal(size=150)
        for i in range(1, noise.size):
            noise[i] += 0.5 * noise[i - 1]
        alarms += bool(change_points.find_level_changes(noise, 0.05))
    assert alarms <= 30


def test_gaps_days_without_a_clock_and_short_lines_are_named():
    rng = np.random.default_rng(7)
    logs = quiet(rng, 60)
    logs[30:] += 0.05
    gaps = points(logs).drop(index=range(10, 25))
    unset = points(quiet(rng, 2), begin="1970-01-01")
    found = build_history(pd.concat([gaps, unset, points(quiet(rng, 3), "vgg16")]))
    assert [change.kind for _, change in found.changes()] == ["regression"]
    assert found.notes[0].startswith("2 days are not used, because they are before 2012 or in the future")
    assert "1 of 2 cases were measured on fewer than 8 days" in found.notes[1]


def test_a_changed_suite_is_an_annotation():
    logs = quiet(np.random.default_rng(8), 60)
    logs[30:] += 0.05
    frame = points(logs)
    frame.loc[30:, "suite_version"] = 2
    frame.loc[30:, "protocol"] = '{"min_time_s": 1}'
    ((_, change),) = build_history(frame).changes()
    assert change.facts == ("suite version 1 -> 2", "protocol changed")


def test_equal_values_are_no_line_to_judge():
    assert not build_history(points([0.0] * 60)).changes()
