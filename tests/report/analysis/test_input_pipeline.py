"""What limits a step that loads files, by hand."""

from __future__ import annotations

import math

import pytest

from dlbench.report.analysis.input_pipeline import PipelineVerdict, pipeline_verdict
from dlbench.report.analysis.labels import setting_label


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        # Two processes bring a batch every 0.2 s, and the device takes 0.1 s: four would feed it.
        ((0.2, 0.1, 0.2, 0.01, 0.3, 2), PipelineVerdict("decode", 4)),
        ((0.2, 0.1, 0.2, 0.3, 0.01, 2), PipelineVerdict("storage", 4)),
        ((0.104, 0.1, 0.02, 0.01, 0.3, 2), PipelineVerdict("device", 1)),
        # Without processes of its own the one that computes loads: as one process.
        ((0.4, 0.1, 0.3, 0.01, 0.3, 0), PipelineVerdict("decode", 3)),
        # DALI does not time reading and decoding apart.
        ((0.2, 0.1, 0.2, math.nan, math.nan, 2), PipelineVerdict("loader", 4)),
    ],
)
def test_the_verdict_names_what_limits_and_the_workers_that_feed_the_device(figures, expected):
    assert pipeline_verdict(*figures) == expected


def test_the_setting_of_a_case_is_understood_without_the_headings_of_a_table():
    axes = ["precision", "batch_size", "data", "loader_workers"]
    case = {"precision": "fp32", "batch_size": 4, "data": "jpeg", "loader_workers": 1}
    assert setting_label(case, axes) == "fp32, batch 4, JPEG files, 1 loader worker"
    assert setting_label(case | {"data": "synthetic", "loader_workers": 0}, axes) == "fp32, batch 4, synthetic data"
