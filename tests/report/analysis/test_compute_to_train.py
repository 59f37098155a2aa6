"""Compute to train: counted by hand beside the published figures."""

from __future__ import annotations

import pytest

from dlbench.report.analysis.compute_to_train import RESNET_IMAGES, trained_networks


def test_the_count_of_resnet_152_is_that_of_its_schedule_and_the_published_figure_is_two_thirds_of_it():
    resnet, *others = trained_networks()
    assert RESNET_IMAGES == 153_600_000
    assert resnet.counted_flop == 67_458_465_792 * 153_600_000
    assert resnet.counted_parameters == 60_192_808
    # Twice the forward pass of every image.
    assert pytest.approx(resnet.flop / RESNET_IMAGES, rel=0.02) == 2 * 2 * 11_280_367_616 + 2 * 2 * 2_048_000
    assert all(other.counted_flop is None and other.reason for other in others)
