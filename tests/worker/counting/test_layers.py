"""The list of layers: shapes and bytes by hand, sums that are the counted ones, and `dlbench/facts/layers.csv`."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from dlbench.facts.layers import catalogue_layers
from dlbench.models import BUILDERS, BuiltModel
from dlbench.suites.catalog import CATALOG
from dlbench.worker.counting.flops import count_step_flop
from dlbench.worker.counting.layers import layers, network_layers
from tests.models.counting import built, counted, counted_layers

#: One of each way of building in torchvision; `test_flops` has all models.
TORCHVISION = (
    *("convnext_tiny", "googlenet", "inception_v3", "mnasnet0_5", "mobilenet_v3_small", "regnet_y_400mf"),
    *("resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t", "swin_v2_t", "vit_b_32"),
)
#: Kinds of layers of the networks that are not convolutions followed by fully connected layers.
KINDS = {
    "mlp": {"fc"},
    "deep_autoencoder": {"fc"},
    "conv_autoencoder": {"conv", "conv_transposed"},
    "lstm_lm": {"fc", "other"},
    "transformer_base": {"fc", "other"},
    "gpt2_small": {"fc", "other"},
}


def test_alexnets_layers_are_the_papers():
    letters = ("kind", "M", "C", "H", "W", "R", "S", "P", "Q", "groups", "stride", "padding", "weights", "macs")
    rows = [tuple(getattr(row, letter) for letter in letters) for row in counted_layers("alexnet")]
    assert rows == [
        ("conv", 96, 3, 227, 227, 11, 11, 55, 55, 1, (4, 4), (0, 0), 34_848, 105_415_200),
        ("conv", 256, 96, 27, 27, 5, 5, 27, 27, 2, (1, 1), (2, 2), 307_200, 223_948_800),
        ("conv", 384, 256, 13, 13, 3, 3, 13, 13, 1, (1, 1), (1, 1), 884_736, 149_520_384),
        ("conv", 384, 384, 13, 13, 3, 3, 13, 13, 2, (1, 1), (1, 1), 663_552, 112_140_288),
        ("conv", 256, 384, 13, 13, 3, 3, 13, 13, 2, (1, 1), (1, 1), 442_368, 74_760_192),
        ("fc", 4096, 9216, 1, 1, 1, 1, 1, 1, 1, (1, 1), (0, 0), 37_748_736, 37_748_736),
        ("fc", 4096, 4096, 1, 1, 1, 1, 1, 1, 1, (1, 1), (0, 0), 16_777_216, 16_777_216),
        ("fc", 1000, 4096, 1, 1, 1, 1, 1, 1, 1, (1, 1), (0, 0), 4_096_000, 4_096_000),
    ]


def test_backward_is_twice_forward_in_all_layers_but_the_first():
    first, *others = counted_layers("alexnet")
    assert (first.forward_flop, first.backward_flop) == (2 * first.macs, 2 * first.macs)
    assert all((row.forward_flop, row.backward_flop) == (2 * row.macs, 4 * row.macs) for row in others)


def test_bytes_of_a_convolution_by_hand():
    row = counted_layers("alexnet")[2]  # 256 -> 384 channels, 3x3 on 13x13
    x, out, weights, biases = 256 * 169, 384 * 169, 384 * 256 * 9, 384
    assert row.forward_bytes_per_image == 4 * (x + out)
    assert row.forward_bytes_fixed == 4 * (weights + biases)
    # Gradient of the output, input and weights are read; gradients of input, weights and biases are written.
    assert row.backward_bytes_per_image == 4 * (out + x + x)
    assert row.backward_bytes_fixed == 4 * (weights + weights + biases)


def test_bytes_of_the_first_convolution_have_no_gradient_to_its_input():
    row = counted_layers("alexnet")[0]
    x, out, weights, biases = 3 * 227**2, 96 * 55**2, 96 * 363, 96
    assert (row.backward_bytes_per_image, row.backward_bytes_fixed) == (4 * (out + x), 4 * (2 * weights + biases))


def test_bytes_of_a_fully_connected_layer_by_hand():
    row = counted_layers("alexnet")[7]  # 4096 -> 1000
    x, out, weights, biases = 4096, 1000, 4096 * 1000, 1000
    assert (row.forward_bytes_per_image, row.forward_bytes_fixed) == (4 * (x + out), 4 * (weights + biases))
    # Two products: gradient and weights to the input's gradient, gradient and input to the weights' gradient.
    assert (row.backward_bytes_per_image, row.backward_bytes_fixed) == (4 * (2 * out + 2 * x), 4 * 2 * weights)


@pytest.mark.parametrize("name", BUILDERS)
def test_sums_are_the_catalogues(name):
    rows, listed = counted_layers(name), CATALOG[name]
    assert sum(row.macs for row in rows) == listed.forward_macs
    assert sum(row.forward_flop for row in rows) == listed.forward_flop
    if not listed.auxiliary_parameters:
        assert sum(row.forward_flop + row.backward_flop for row in rows) == listed.training_flop
    assert {row.kind for row in rows} == KINDS.get(name, {"conv", "fc"})


@pytest.mark.parametrize("name", CATALOG)
def test_the_file_that_is_read_in_the_place_of_counting_holds_what_is_counted(name):
    rows = list(counted_layers(name))
    hint = "python -m dlbench.worker.counting.layers_table > dlbench/facts/layers.csv"
    assert catalogue_layers(name) == rows, hint
    every = network_layers(built(name), auxiliary=True) if CATALOG[name].auxiliary_parameters else rows
    assert catalogue_layers(name, auxiliary=True) == every, hint


def test_another_network_is_not_in_the_file():
    assert catalogue_layers("tests.worker.networks.counted:Spectrum") is None


def test_every_field_comes_back_as_it_was():
    (first, *_) = catalogue_layers("lenet5")
    assert dataclasses.asdict(first) | {"macs": 117_600, "stride": (1, 1), "padding": (2, 2), "uncounted": ()} == (
        dataclasses.asdict(first)
    )


@pytest.mark.parametrize("name", TORCHVISION)
def test_sums_are_what_is_counted_in_torchvisions_models(name):
    model = built(f"torchvision:{name}")
    rows, found = network_layers(model, auxiliary=True), count_step_flop(model)
    # Counted in a batch of two, which shares what is done once.
    assert sum(row.forward_flop + row.forward_flop_fixed / 2 for row in rows) == found.forward_flop
    assert sum(row.backward_flop + row.backward_flop_fixed / 2 for row in rows) == found.backward_flop
    assert min(row.forward_bytes_per_image for row in rows if "cpb_mlp" not in row.name) > 0
    assert all(row.forward_flop_fixed == 0 for row in rows if "cpb_mlp" not in row.name)
    assert min(row.forward_bytes_fixed for row in rows) >= 0


def test_auxiliary_heads_are_listed_when_asked_for():
    rows = network_layers(built("googlenet"), auxiliary=True)
    extra = [row.name for row in rows if row.name not in {other.name for other in counted_layers("googlenet")}]
    assert len(extra) == 6
    assert all(name.startswith("auxiliary") for name in extra)
    assert sum(row.macs for row in rows) == counted("googlenet").forward_macs


def rows_of(*modules, shape):
    with torch.device("meta"):
        return network_layers(BuiltModel(nn.Sequential(*modules), shape, 10, "tiny"))


def test_a_transposed_convolution():
    with torch.device("meta"):
        upsample = nn.ConvTranspose2d(4, 6, (3, 2), stride=2, groups=2)
    row, _ = rows_of(upsample, nn.Flatten(), nn.Linear(6 * 11 * 10, 10, device="meta"), shape=(4, 5, 5))
    assert (row.kind, row.M, row.C, row.H, row.W, row.R, row.S, row.P, row.Q) == (
        "conv_transposed",
        6,
        4,
        5,
        5,
        3,
        2,
        11,
        10,
    )
    assert (row.groups, row.stride, row.weights) == (2, (2, 2), 4 * 3 * 6)
    assert row.macs == row.weights * 25


def test_a_convolution_in_one_dimension_has_height_one():
    with torch.device("meta"):
        layers = nn.Conv1d(4, 6, 5, stride=2, padding="valid"), nn.Flatten(), nn.Linear(6 * 8, 10)
    row, _ = rows_of(*layers, shape=(4, 20))
    assert (row.H, row.W, row.R, row.S, row.P, row.Q, row.stride, row.padding) == (1, 20, 1, 5, 1, 8, (2,), "valid")


def test_a_fully_connected_layer_on_tokens_is_a_convolution_along_them():
    rows = {row.name: row for row in network_layers(built("vit_b_32"))}
    mlp = rows["encoder.layers.encoder_layer_0.mlp.0"]
    assert (mlp.kind, mlp.M, mlp.C, mlp.H, mlp.W, mlp.P, mlp.Q) == ("fc", 3072, 768, 1, 50, 1, 50)
    assert mlp.macs == 50 * 768 * 3072 == mlp.M * mlp.C * mlp.P * mlp.Q
    # Its input product, two attention products and output product have no layers of their own.
    attention = rows["encoder.layers.encoder_layer_0.self_attention"]
    assert (attention.kind, attention.M, attention.stride) == ("other", None, None)
    assert attention.macs == 50 * 768 * (3 * 768 + 768) + 2 * 50 * 50 * 768
    assert attention.backward_flop == 2 * attention.forward_flop
    assert attention.weights == 4 * 768 * 768


def test_a_layer_that_runs_twice_is_one_row_with_the_work_of_both():
    with torch.device("meta"):
        shared = nn.Linear(8, 8)
        once, last = nn.Linear(8, 8), nn.Linear(8, 10)
    twice, one, _ = rows_of(shared, nn.ReLU(), shared, once, last, shape=(8,))
    assert (twice.weights, twice.macs) == (64, 128)
    assert one.macs == 64


def test_layers_of_an_unknown_network_are_bad_input():
    from dlbench.errors import UnknownName

    with pytest.raises(UnknownName, match="did you mean 'alexnet'"):
        layers("alexnett")
