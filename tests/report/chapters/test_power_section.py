"""Sweeps over the power limit: the table, the best points by hand, and the figure."""

from __future__ import annotations

import pytest

from dlbench.report.analysis.content import read_content
from dlbench.report.analysis.power_sweep import find_power_limit_sweeps
from dlbench.report.chapters.power_section import power_section
from dlbench.report.figures import figure_style
from dlbench.suites.case import Case
from tests.fakes import records

#: Limit [W] -> step time [s] and average power [W], of windows that the made-up records give their length.
POINTS = {0: (0.010, 690.0), 500: (0.0105, 480.0), 300: (0.016, 295.0)}


@pytest.fixture
def content(tmp_path):
    made = []
    for number, (cap_w, (step_s, power_w)) in enumerate(POINTS.items(), 1):
        case = Case("resnet50", batch_size=64, device="cuda", power_cap_w=cap_w)
        made.append(
            records.record(
                case,
                number=number,
                step_s=(step_s,) * 500,
                window_s=500 * step_s,
                device_window_s=500 * step_s,
                energy_window_s=500 * step_s,
                energy_j=500 * step_s * power_w,
                power_limit_w=float(cap_w or 700),
            )
        )
    return read_content([records.fill(tmp_path / "r", made)])


def test_a_sweep_names_its_best_points_for_throughput_energy_and_product(content):
    (sweep,) = find_power_limit_sweeps(content.shown)
    assert sweep.points["limit"].tolist() == [300, 500, 700]
    energies_j = [power_w * step_s / 64 for step_s, power_w in (POINTS[300], POINTS[500], POINTS[0])]
    assert sweep.points["energy_per_image"].tolist() == pytest.approx(energies_j)
    # Energy: 0.0738, 0.0788, 0.1078 J; times the time of an image: 18.4, 12.9, 16.8 µJ·s.
    assert sweep.points["product"].tolist() == pytest.approx([1.84e-5, 1.29e-5, 1.68e-5], rel=0.01)
    assert sweep.points["best"].tolist() == [("energy",), ("product",), ("throughput",)]


def test_the_chapter_has_words_figure_and_table(content):
    with figure_style.plot_style():
        section = power_section(content)
    assert section.finding == (
        "ResNet-50 at 300 W takes 32 % less energy per image than as found (700 W), at 38 % less throughput."
    )
    _, figure, table = section.blocks
    assert figure.plot.figure is not None
    assert table.table.records()[0]["limit"] == "300 W"
    assert table.table.records()[2]["limit"] == "as found (700 W)"


def test_without_a_sweep_there_is_no_chapter(tmp_path):
    one = records.record(Case("resnet50", batch_size=64, device="cuda", power_cap_w=400))
    assert power_section(read_content([records.fill(tmp_path / "r", [one])])).blocks == ()
