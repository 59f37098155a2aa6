"""What tensors take in memory: by hand on small networks, and as the catalogue says on ours."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlbench.models import BUILDERS, BuiltModel
from dlbench.spec.catalog import CATALOG
from dlbench.worker.footprint import LiveBytes, inference_peak_elements, saved_elements
from tests.models.counting import built


def tiny(*modules, shape=(4,)):
    with torch.device("meta"):
        return BuiltModel(nn.Sequential(*(make() for make in modules)), shape, 10, "tiny")


MLP = (lambda: nn.Linear(4, 8), nn.Tanh, lambda: nn.Linear(8, 16), nn.Tanh, lambda: nn.Linear(16, 10))
#: Scores after log-softmax, and the target, an int64 of the size of two elements.
LOSS = 10 + 2


@pytest.mark.parametrize("name", BUILDERS)
def test_the_catalogue_has_what_is_counted(name):
    assert saved_elements(built(name)) == CATALOG[name].saved_elements
    assert max(p.numel() for p in built(name).module.parameters()) == CATALOG[name].largest_parameter
    assert inference_peak_elements(built(name)) == CATALOG[name].peak_elements


def test_saved_tensors_by_hand():
    # A tanh keeps its result, which the next layer keeps as its input: once. The network's input is left out.
    assert saved_elements(tiny(*MLP)) == 8 + 16 + LOSS


def test_what_is_changed_in_place_is_saved_once():
    layers = (lambda: nn.Linear(4, 8), lambda: nn.ReLU(inplace=True), lambda: nn.Linear(8, 10))
    assert saved_elements(tiny(*layers)) == 8 + LOSS


def test_max_pooling_saves_its_input_and_the_places_of_its_results():
    layers = (lambda: nn.Conv2d(1, 2, 3, padding=1), lambda: nn.MaxPool2d(2), nn.Flatten, lambda: nn.Linear(32, 10))
    # Places are int64: two elements each. The flattened result is the next layer's input.
    assert saved_elements(tiny(*layers, shape=(1, 8, 8))) == 2 * 64 + 2 * 2 * 16 + 32 + LOSS


def test_lenets_saved_tensors_by_hand():
    # tanh 6x28x28, pooled 6x14x14, tanh 16x10x10, pooled 400, tanh 120, tanh 84.
    assert CATALOG["lenet5"].saved_elements == 4704 + 1176 + 1600 + 400 + 120 + 84 + LOSS


def test_the_peak_of_inference_by_hand():
    # A layer's input and result live at once: 8+8, 8+16, 16+16, 16+10.
    assert inference_peak_elements(tiny(*MLP)) == 32


def test_lenets_and_vggs_peak_by_hand():
    assert CATALOG["lenet5"].peak_elements == 2 * 6 * 28 * 28  # before and after the first tanh
    assert CATALOG["vgg16"].peak_elements == 2 * 64 * 224 * 224  # before and after the second convolution


@pytest.mark.parametrize("batch_size", [2, 5])
def test_both_are_per_image_whatever_the_batch(batch_size):
    assert inference_peak_elements(tiny(*MLP), batch_size) == 32
    assert saved_elements(tiny(*MLP), batch_size) == 8 + 16 + LOSS


def test_live_bytes_follow_every_storage_until_it_is_freed():
    with LiveBytes() as memory:
        first = torch.empty(100, device="meta")
        second = first * 2
        view = second.view(10, 10)
        assert (memory.live, memory.peak) == (800, 800)
        del first
        assert memory.live == 400
        del second
        assert memory.live == 400  # the view holds it
        del view
        third = torch.empty(50, device="meta")
    assert (memory.live, memory.peak) == (200, 800)
    del third
    assert memory.live == 0


def test_real_tensors_are_followed_too():
    with LiveBytes() as memory:
        kept = torch.ones(64).exp() + 1
    assert memory.peak == 4 * 64 * 2
    assert memory.live == 4 * kept.numel()
