"""Chapter "Compute to train": time, energy and cost of the published networks on a measured system, by hand."""

from __future__ import annotations

import pytest

from dlbench import units
from dlbench.report.analysis.content import read_content
from dlbench.report.analysis.projection import Prices
from dlbench.report.chapters.compute_section import RESNET_IMAGES, compute_section, published_trainings
from dlbench.suites.case import Case
from tests.fakes import records

#: FLOP of a step of ResNet-50 with 64 images, which takes 0.1 s at 500 W.
STEP_FLOP, STEP_S, POWER_W = 64 * 22_910_000_000, 0.1, 500.0


@pytest.fixture
def store(tmp_path):
    windows = dict.fromkeys(("window_s", "device_window_s", "energy_window_s"), 100 * STEP_S)
    one = records.record(
        Case("resnet50", batch_size=64, device="cuda"),
        *(records.GPU, 1),
        **{"step_s": (STEP_S,) * 100, "energy_j": 100 * STEP_S * POWER_W, **windows},
    )
    return records.fill(tmp_path / "r", [one])


def test_time_energy_and_cost_follow_from_the_measured_rate(store):
    prices = Prices("EUR", per_kwh=0.25)
    _, published, systems = compute_section(read_content([store], prices=prices)).blocks
    names = [row["name"] for row in published.table.records()]
    assert names == ["ResNet-152", "Deep Speech 2", "Google NMT"]
    for row, flop in zip(systems.table.records(), (67_458_465_792 * 153_600_000, 20e18, 100e18), strict=True):
        time_s = flop / (STEP_FLOP / STEP_S)
        assert row["time_s"] == units.seconds_text(time_s)
        assert row["energy"] == pytest.approx(time_s * POWER_W / 3.6e9)
        assert row["cost"] == f"{units.number_text(time_s * POWER_W / 3.6e6 * 0.25)} EUR"


def test_without_a_training_there_is_no_chapter(tmp_path):
    one = records.record(Case("resnet50", "inference", batch_size=64, device="cuda"), number=1)
    assert not compute_section(read_content([records.fill(tmp_path / "r", [one])])).blocks


def test_the_count_of_resnet_152_is_that_of_its_schedule_and_the_published_figure_is_two_thirds_of_it():
    resnet, *others = published_trainings()
    assert RESNET_IMAGES == 153_600_000
    assert resnet.counted_flop == 67_458_465_792 * 153_600_000
    assert resnet.counted_parameters == 60_192_808
    # Twice the forward pass of every image.
    assert pytest.approx(resnet.flop / RESNET_IMAGES, rel=0.02) == 2 * 2 * 11_280_367_616 + 2 * 2 * 2_048_000
    assert all(other.counted_flop is None and other.reason for other in others)
