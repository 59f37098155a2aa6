"""The confidence that a protocol asks for: intervals are computed at it, and named wherever they stand."""

from __future__ import annotations

import dataclasses
import io
import json

import pandas as pd
import pytest

from dlbench import stats
from dlbench import table as printed_table
from dlbench.report import export
from dlbench.report.analysis import confidence_levels
from dlbench.report.analysis.content import read_content
from dlbench.report.chapters import scaling, sections, tables
from dlbench.report.chapters.projection_section import projection_section
from dlbench.report.figures.figure_parts import INTERVAL_CAPTION
from dlbench.report.forms import markdown
from dlbench.report.listings import summary
from dlbench.report.listings.projection import projection_table
from dlbench.report.listings.record import show_record
from dlbench.results import store
from dlbench.suites.case import Case, Protocol
from tests.fakes import records as fakes


def filled(root, *confidences):
    """Of each confidence a training and an inference on one and two devices."""
    cases = [
        Case("lenet5", mode, devices_per_node=devices, protocol=Protocol(confidence=confidence), repeat=0)
        for confidence in confidences
        for mode in ("training", "inference")
        for devices in (1, 2)
    ]
    made = [fakes.record(case, fakes.CPU, i, unsynced_step_s=STEPS) for i, case in enumerate(cases)]
    return fakes.fill(root, made)


STEPS = fakes.noisy_steps(0.01, 60, 3)


def captions(content, *chapters):
    found = [chapter(content) for chapter in chapters]
    return "\n".join(markdown.markdown_report([section], "t") for section in found)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_intervals_are_those_of_the_protocol_s_level(tmp_path, confidence):
    content = read_content([filled(tmp_path, confidence)])
    for case in content.shown.to_dict("records"):
        interval = stats.median_interval(case["samples"].tolist(), confidence)
        assert (case["step_time_low"], case["step_time_high"]) == pytest.approx((interval.low, interval.high))
        assert case["confidence"] == confidence
        own = stats.median_interval(STEPS, confidence)
        assert (case["unsynced_low"], case["unsynced_high"]) == pytest.approx((own.low, own.high))


@pytest.mark.parametrize(("confidence", "words"), [(0.5, "50 %"), (0.95, "95 %"), (0.99, "99 %"), (0.9999, "99.99 %")])
def test_the_level_stands_wherever_intervals_do(tmp_path, confidence, words):
    root = filled(tmp_path, confidence)
    content = read_content([root])
    text = captions(
        content,
        sections.summary_section,
        sections.throughput_section,
        sections.flop_time_section,
        scaling.scaling_section,
        projection_section,
    )
    assert f"have a confidence interval ({words}, " in text
    assert text.count(f"{INTERVAL_CAPTION} Confidence: {words}.") >= 3  # throughput, FLOP against time, scaling
    assert f"from the {words} interval of the throughput" in text
    compared = captions(content, sections.comparison_section)
    assert f"± is the half-width of a confidence interval, at a level of {words}." in compared
    notes = projection_table(store.load(root), 1000, 1.0, None, None).notes
    assert f'Confidence level of the interval in "from" and "to": {words}.' in notes
    usual = confidence == 0.95
    assert (f"Confidence level of ± and of the intervals: {words}." in text) is not usual
    table = tables.case_metrics_table(content.shown, content.system_names)
    assert ("Confidence" in printed_table.text_table(table)) is not usual
    assert (f" {words} " in summary.terminal_summary(content)) is not usual
    if not usual:
        assert set(pd.read_csv(io.StringIO(printed_table.csv_table(table)))["confidence"]) == {confidence}


def test_exports_and_the_record_hold_the_level(tmp_path):
    root = filled(tmp_path, 0.99)
    csv = pd.read_csv(io.StringIO("".join(export.export_chunks([root], "csv"))))
    assert set(csv["confidence"]) == {0.99}
    assert {
        attempt["confidence"] for attempt in json.loads("".join(export.export_chunks([root], "json")))["attempts"]
    } == {0.99}
    attempt = csv["attempt_id"].iloc[0]
    assert json.loads(show_record(attempt, [root], "json"))["metrics"]["throughput"]["confidence"] == 0.99
    text = show_record(attempt, [root])
    assert "From (99 %)" in text
    assert "To (99 %)" in text


def test_where_levels_meet_each_row_says_its_own(tmp_path):
    content = read_content([filled(tmp_path, 0.9, 0.95)])
    assert confidence_levels.describe_levels(content.shown) == "90 % or 95 % (set in each case's protocol)"
    rows = tables.case_metrics_table(content.shown, {}).records()
    assert sorted(row["confidence"] for row in rows) == [0.9] * 4 + [0.95] * 4
    text = captions(content, sections.comparison_section)
    assert "the half-width of a confidence interval, at a level of 90 % or 95 % (set in each case's protocol)." in text


def test_a_protocol_that_asks_for_nothing_means_95_percent(tmp_path):
    record = fakes.record(Case("lenet5"), fakes.CPU)
    case = {k: v for k, v in record.case.items() if k != "protocol"}
    content = read_content([fakes.fill(tmp_path, [dataclasses.replace(record, case=case | {"protocol": {}})])])
    assert content.shown["confidence"].tolist() == [0.95]
    assert confidence_levels.describe_levels(content.shown) == "95 %"
