"""The table of energies."""

from __future__ import annotations

import pytest

from dlbench.report.analysis.content import read_content
from dlbench.report.chapters.sections import energy_section
from dlbench.report.chapters.tables import energy_table
from dlbench.report.figures import figure_style
from dlbench.suites.case import Case
from tests.fakes import records


def of(root):
    content = read_content([root])
    return content, energy_table(content.shown, content.system_names)


def test_a_metered_case_has_its_energies_powers_meter_and_scope(tmp_path):
    metered = records.record(Case("resnet50", batch_size=64, device="cuda"), number=1)
    unmetered = records.record(Case("vgg16", batch_size=64, device="cuda"), number=2, energy_j=None)
    content, table = of(records.fill(tmp_path / "r", [metered, unmetered]))
    (row,) = table.records()
    assert row["model"] == "ResNet-50"
    assert row["images_per_wh"] == pytest.approx(3600 / row["energy_per_image"])
    assert row["idle_power"] < row["average_power"]
    assert (row["energy_source"], row["energy_scope"]) == ("nvml_counter", "device")
    with figure_style.plot_style():
        assert any(block.heading == "Energy of each case" for block in energy_section(content).blocks)


def test_without_any_meter_there_is_no_table(tmp_path):
    content, table = of(records.fill(tmp_path / "r", [records.record(Case("lenet5"), records.CPU)]))
    assert table.rows == []
    with figure_style.plot_style():
        assert all(block.heading != "Energy of each case" for block in energy_section(content).blocks)
