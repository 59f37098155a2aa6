"""Chapter "Input pipeline": table and figure of cases that load files, and the names of cases on the whole page."""

from __future__ import annotations

import math

import pytest

from dlbench.report.analysis.content import read_content
from dlbench.report.analysis.labels import setting_label
from dlbench.report.chapters.pipeline_section import InputBottleneck, find_input_bottleneck, pipeline_section
from dlbench.report.figures import figure_style
from dlbench.suites.case import Case
from tests.fakes import records


def record(mode, workers, number, step_s):
    case = Case("resnet50", mode, batch_size=4, device="cpu", data="jpeg", loader_workers=workers)
    loading = {"data_wait_s": 20 * step_s, "loader_batch_s": 0.08, "device_step_s": 0.02}
    loading |= {"loader_read_s": 0.001, "loader_decode_s": 0.07, "loader_cpu_s": 5.0, "loader_memory_bytes": 2**28}
    windows = dict.fromkeys(("window_s", "device_window_s"), 100 * step_s)
    return records.record(case, records.CPU, number, step_s=(step_s,) * 100, **windows, **loading)


@pytest.fixture
def section(tmp_path):
    both = enumerate(("training", "inference"))
    made = [record(mode, n, 2 * n + i, 0.1 - 0.02 * n) for i, mode in both for n in (1, 2)]
    with figure_style.plot_style():
        return pipeline_section(read_content([records.fill(tmp_path / "r", made)]))


def test_the_table_has_three_throughputs_what_limits_and_the_workers_that_feed_the_device(section):
    table = section.blocks[2].table
    row = next(row for row in table.records() if row["loader_workers"] == 1)
    assert row["loader_throughput"] == pytest.approx(4 / 0.08)
    assert row["device_throughput"] == pytest.approx(4 / 0.02)
    assert row["throughput"] == pytest.approx(4 / 0.08)
    assert row["accelerator_utilisation"] == pytest.approx(0.02 / 0.08)
    assert row["data_wait"] == pytest.approx(0.2)
    assert (row["limit"], row["workers_needed"]) == ("decode", 4)


def test_training_and_inference_have_a_panel_each(section):
    figure = section.blocks[1].plot.figure
    assert [axes.get_title("left") for axes in figure.axes] == [
        *("ResNet-50\nTraining · fp32", "ResNet-50\nInference · fp32"),
    ]
    assert all(len(line.get_xdata()) == 2 for axes in figure.axes for line in axes.lines)


def test_without_a_case_that_loads_files_there_is_no_chapter(tmp_path):
    store = records.fill(tmp_path / "r", [records.record(Case("resnet50", batch_size=4), records.CPU, 1)])
    assert not pipeline_section(read_content([store])).blocks


def test_a_case_of_a_damaged_store_without_its_workers_is_left_out(tmp_path):
    content = read_content([records.fill(tmp_path / "r", [record("training", n, n, 0.1) for n in (1, 2)])])
    content.shown.loc[content.shown["loader_workers"] == 2, "loader_workers"] = None
    with figure_style.plot_style():
        assert [row["loader_workers"] for row in pipeline_section(content).blocks[2].table.records()] == [1]


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        # Two processes bring a batch every 0.2 s, and the device takes 0.1 s: four would feed it.
        ((0.2, 0.1, 0.2, 0.01, 0.3, 2), InputBottleneck("decode", 4)),
        ((0.2, 0.1, 0.2, 0.3, 0.01, 2), InputBottleneck("storage", 4)),
        ((0.104, 0.1, 0.02, 0.01, 0.3, 2), InputBottleneck("device", 1)),
        # Without processes of its own the one that computes loads: as one process.
        ((0.4, 0.1, 0.3, 0.01, 0.3, 0), InputBottleneck("decode", 3)),
        # DALI does not time reading and decoding apart.
        ((0.2, 0.1, 0.2, math.nan, math.nan, 2), InputBottleneck("loader", 4)),
    ],
)
def test_the_verdict_names_what_limits_and_the_workers_that_feed_the_device(figures, expected):
    assert find_input_bottleneck(*figures) == expected


def test_the_setting_of_a_case_is_understood_without_the_headings_of_a_table():
    axes = ["precision", "batch_size", "data", "loader_workers"]
    case = {"precision": "fp32", "batch_size": 4, "data": "jpeg", "loader_workers": 1}
    assert setting_label(case, axes) == "fp32, batch 4, JPEG files, 1 loader worker"
    assert setting_label(case | {"data": "synthetic", "loader_workers": 0}, axes) == "fp32, batch 4, synthetic data"
