"""Folded batch normalisation: the same outputs with fewer layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlbench.errors import InvalidMeasurement
from dlbench.worker.batch_norm_folding import fold_batch_norm


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def network():
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)
    )
    layers[1].running_mean.uniform_(-1, 1)
    layers[1].running_var.uniform_(0.5, 2)
    return layers.eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_folded_network_gives_the_same_outputs_without_normalisation(dtype):
    layers = network().to(dtype)
    images = torch.randn(1, 3, 8, 8)
    folded, warnings = fold_batch_norm(layers, (images,))
    assert warnings == ()
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    assert any(isinstance(part, nn.BatchNorm2d) for part in layers.modules())
    with torch.inference_mode():
        tolerance = 1e-5 if dtype == torch.float32 else 0.05
        torch.testing.assert_close(folded(images.to(dtype)), layers(images.to(dtype)), rtol=tolerance, atol=tolerance)


def test_a_network_without_batch_normalisation_stays_and_says_so():
    layers = nn.Sequential(nn.Linear(4, 4)).eval()
    folded, warnings = fold_batch_norm(layers, (torch.randn(1, 4),))
    assert folded is layers
    assert warnings[0].startswith("nothing_folded: ")


def test_a_network_that_cannot_be_traced_is_invalid_in_one_line():
    with pytest.raises(InvalidMeasurement, match=r"torch.fx cannot trace the network: .*control flow"):
        fold_batch_norm(nn.Sequential(nn.Linear(4, 4), Branching()).eval(), (torch.randn(1, 4),))


def test_a_folding_that_changes_the_outputs_is_invalid(monkeypatch):
    from torch.fx.experimental import optimization

    def wrong(layers):
        first = network()[0]
        return nn.Sequential(first, *list(layers)[2:])

    monkeypatch.setattr(optimization, "fuse", wrong)
    with pytest.raises(InvalidMeasurement, match="folding batch normalisation changes an output by"):
        fold_batch_norm(network(), (torch.randn(1, 3, 8, 8),))
