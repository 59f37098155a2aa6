"""Our networks against the papers' and `measurement.md`'s known answers, and against torchvision's."""

from __future__ import annotations

import math
from unittest import mock

import pytest
import torch
import torchvision
from torch import nn

from dlbench.models import BUILDERS, build
from dlbench.models.googlenet import GoogLeNetOutputs
from dlbench.models.lenet import C3_CONNECTIONS, SparseC3
from dlbench.suites.catalog import CATALOG
from dlbench.tasks.classification import loss as training_loss
from dlbench.worker.counting.flops import count_network_flop
from tests.models.counting import built, counted, counted_facts, counted_layers

#: Weights and MACs of convolutions, of FC layers (there they are equal), and in all.
KNOWN_ANSWERS = {
    "lenet5": (2_550, 357_600, 58_920, 61_470, 416_520),
    "alexnet": (2_332_704, 665_784_864, 58_621_952, 60_954_656, 724_406_816),
    "overfeat_fast": (15_984_672, 2_671_478_784, 129_925_120, 145_909_792, 2_801_403_904),
    "vgg16": (14_710_464, 15_346_630_656, 123_633_664, 138_344_128, 15_470_264_320),
    "googlenet": (5_966_272, 1_581_647_872, 1_024_000, 6_990_272, 1_582_671_872),
    "googlenet_floor": (5_966_272, 1_430_532_352, 1_024_000, 6_990_272, 1_431_556_352),
    "resnet50": (23_454_912, 3_855_925_248, 2_048_000, 25_502_912, 3_857_973_248),
    "resnet50_v1_5": (23_454_912, 4_087_136_256, 2_048_000, 25_502_912, 4_089_184_256),
}
#: Forward and backward of one image, without auxiliary heads [GFLOP], and the last decimal that is known.
KNOWN_GFLOP = {
    "lenet5": (0.00226, 5),
    "alexnet": (4.136, 3),
    "overfeat_fast": (16.59, 2),
    "vgg16": (92.65, 2),
    "googlenet": (9.260, 3),
    "resnet50": (22.91, 2),
    "resnet50_v1_5": (24.30, 2),
}
CLASSIC = ("lenet", "alexnet", "overfeat", "vgg", "googlenet", "resnet")
#: Those whose layers torchvision has in the same order, so that its weights can be copied one by one.
SAME_IN_TORCHVISION = {
    "alexnet_owt": "alexnet",
    "vgg11": "vgg11",
    "vgg16": "vgg16",
    "resnet18": "resnet18",
    "resnet50_v1_5": "resnet50",
}


@pytest.mark.parametrize("name", KNOWN_ANSWERS)
def test_known_answers_are_met_to_the_last_integer(name):
    facts = counted_facts(name)
    conv_weights, conv_macs, fc, weights, macs = KNOWN_ANSWERS[name]
    assert (facts.conv_weights, facts.conv_macs) == (conv_weights, conv_macs)
    assert facts.fc_weights == facts.fc_macs == fc
    assert (facts.total_weights, facts.total_macs) == (weights, macs)


@pytest.mark.parametrize("name", KNOWN_GFLOP)
def test_forward_and_backward_flop_are_the_known_ones(name):
    gflop, decimals = KNOWN_GFLOP[name]
    flop = sum(row.forward_flop + row.backward_flop for row in counted_layers(name))
    assert round(flop / 1e9, decimals) == gflop


@pytest.mark.parametrize("name", BUILDERS)
def test_every_figure_of_the_catalogue_is_what_the_module_has(name):
    listed, facts, step = CATALOG[name], counted_facts(name), counted(name)
    for key in ("input_shape", "conv_layers", "conv_weights", "conv_macs", "fc_layers", "fc_weights", "fc_macs"):
        assert getattr(facts, key) == getattr(listed, key), key
    assert step.forward_flop + step.backward_flop == listed.training_flop
    assert step.parameters == listed.parameters
    others = [row for row in counted_layers(name) if row.kind == "other"]
    assert sum(row.macs for row in others) == listed.attention_macs + listed.recurrent_macs
    assert sum(row.weights for row in others) == listed.recurrent_weights
    if listed.auxiliary_parameters:
        inference = count_network_flop(name, training=False)
        assert (inference.parameters, inference.forward_flop) == (listed.num_inference_parameters, listed.forward_flop)
    else:
        assert step.forward_flop == listed.forward_flop


@pytest.mark.parametrize("name", BUILDERS)
def test_every_networks_outputs_fit_its_task(name):
    model = built(name)
    batch = model.make_batch(2, "meta")
    assert model.task.check_output(model.module.eval()(*batch[0]), batch, None) == CATALOG[name].num_classes


@pytest.mark.parametrize("name", [name for name in BUILDERS if CATALOG[name].family in CLASSIC])
def test_names_tell_the_depth(name):
    depth = {"alexnet": 8, "alexnet_owt": 8, "overfeat_fast": 8, "googlenet": 22, "lenet5": 5, "lenet5_sparse_c3": 5}
    digits = "".join(c for c in name.partition("_")[0] if c.isdigit())
    expected = depth.get(name.replace("_floor", ""), int(digits or 0))
    rows = [row for row in counted_layers(name) if "downsample" not in row.name]
    if name.startswith("googlenet"):  # an inception block is two layers deep, whatever runs beside
        rows = [row for row in rows if not row.name.startswith("stage")] + [None] * 2 * 9
    elif name == "lenet5_sparse_c3":  # the three grouped convolutions are one layer
        rows = rows[:-2]
    assert len(rows) == expected


@pytest.mark.parametrize("name", SAME_IN_TORCHVISION)
def test_with_torchvisions_weights_the_outputs_are_torchvisions(name):
    with torch.device("meta"):
        ours, theirs = BUILDERS[name](), torchvision.models.get_model(SAME_IN_TORCHVISION[name])
    torch.manual_seed(0)
    theirs = theirs.to_empty(device="cpu").eval()
    weights = theirs.state_dict()
    for tensor in weights.values():
        if tensor.is_floating_point():
            # Scaled so that signals neither die out nor grow through many layers; variances must be positive.
            tensor.copy_(torch.rand_like(tensor) if tensor.dim() < 2 else torch.randn_like(tensor) / fan_in(tensor))
        else:
            tensor.zero_()
    names = ours.state_dict().keys()
    assert len(names) == len(weights)
    ours.load_state_dict(dict(zip(names, weights.values(), strict=True)), assign=True)
    images = torch.randn(1, *CATALOG[name].input_shape)
    with torch.inference_mode():
        found, expected = ours.eval()(images), theirs(images)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected)


def fan_in(weight: torch.Tensor) -> float:
    return math.sqrt(weight[0].numel() / 2)


def test_googlenet_gives_three_heads_in_training_and_one_else():
    module = built("googlenet").module
    images = torch.empty(2, 3, 224, 224, device="meta")
    outputs = module.train()(images)
    assert isinstance(outputs, GoogLeNetOutputs)
    assert [scores.shape for scores in outputs] == [(2, 1000)] * 3
    assert module.eval()(images).shape == (2, 1000)


def test_googlenets_auxiliary_heads_are_no_part_of_inference():
    assert not [row.name for row in counted_layers("googlenet") if "auxiliary" in row.name]
    assert [o.module for o in counted("googlenet").operations if o.module.startswith("auxiliary") and not o.backward]
    # Each: 1x1 convolution on 4x4, FC 2048 -> 1024, FC 1024 -> 1000.
    heads = sum(channels * 128 * 16 + 2048 * 1024 + 1024 * 1000 for channels in (512, 528))
    assert counted("googlenet").forward_macs == CATALOG["googlenet"].forward_macs + heads


def test_googlenets_loss_weighs_each_auxiliary_head_by_three_tenths():
    targets = torch.tensor([0, 1])
    good, bad = torch.eye(2, 10) * 100, torch.zeros(2, 10)
    outputs = GoogLeNetOutputs(good, bad, bad)
    assert training_loss(outputs, targets).item() == pytest.approx(0.6 * math.log(10))
    assert training_loss([good, None, bad], targets).item() == pytest.approx(0.3 * math.log(10))


@pytest.mark.parametrize(("name", "sizes"), [("googlenet", (56, 28, 14, 7)), ("googlenet_floor", (55, 27, 13, 6))])
def test_googlenets_pooling_rounds_up_or_down(name, sizes):
    sides = {row.H for row in counted_layers(name) if row.kind == "conv"}
    assert sides == {224, *sizes}


def test_sparse_c3_is_the_dense_one_with_absent_connections_set_to_zero():
    torch.manual_seed(0)
    sparse, dense = SparseC3(), nn.Conv2d(6, 16, 5)
    with torch.no_grad():
        dense.weight.zero_()
        kernels = (kernel for conv in sparse.convolutions for kernel in conv.weight)
        biases = (bias for conv in sparse.convolutions for bias in conv.bias)
        order = sorted(range(16), key=lambda i: len(C3_CONNECTIONS[i]))
        for i, kernel, bias in zip(order, kernels, biases, strict=True):
            dense.weight[i, list(C3_CONNECTIONS[i])] = kernel
            dense.bias[i] = bias
        images = torch.randn(2, 6, 14, 14)
        torch.testing.assert_close(sparse(images), dense(images))


def test_sparse_c3_has_the_papers_connections():
    # Table I: 6 maps see three, 9 see four, 1 sees all six; 1,516 parameters and 151,600 connections with biases.
    assert sorted(map(len, C3_CONNECTIONS)) == [3] * 6 + [4] * 9 + [6]
    assert len(set(C3_CONNECTIONS)) == 16
    assert [sum(i in inputs for inputs in C3_CONNECTIONS) for i in range(6)] == [10] * 6
    parameters = sum(p.numel() for p in SparseC3().parameters())
    assert parameters == 1_516
    assert parameters * 10 * 10 == 151_600


@pytest.mark.parametrize("name", ["lenet5", "lenet5_sparse_c3", "alexnet_owt", "googlenet_floor", "resnet18", "mlp"])
def test_a_fresh_network_is_as_good_as_guessing(name):
    torch.manual_seed(0)
    model = build(name)
    assert model.num_classes == CATALOG[name].num_classes
    images = torch.randn(8, *model.input_shape)
    with torch.no_grad():
        outputs = model.module.train()(images)
        loss = training_loss(outputs, torch.randint(model.num_classes, (8,))).item()
    heads = 1.6 if name.startswith("googlenet") else 1.0
    assert loss == pytest.approx(heads * math.log(model.num_classes), rel=0.25)


@pytest.mark.parametrize("name", ["alexnet", "vgg16", "overfeat_fast"])
def test_large_networks_initialise_every_weight_as_their_papers_say(name):
    """As the test above, without their gigabytes: which values are asked for, not drawn."""
    with (
        torch.device("meta"),
        mock.patch.multiple(
            nn.init, normal_=mock.DEFAULT, kaiming_normal_=mock.DEFAULT, zeros_=mock.DEFAULT, constant_=mock.DEFAULT
        ) as drawn,
    ):
        layers = [m for m in BUILDERS[name]().modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    initialised = {id(call.args[0]) for function in drawn.values() for call in function.call_args_list}
    assert {id(p) for layer in layers for p in (layer.weight, layer.bias)} <= initialised
    if name == "alexnet":
        ones = [call.args[0] for call in drawn["constant_"].call_args_list if call.args[1] == 1.0]
        assert [id(bias) for bias in ones] == [id(layers[i].bias) for i in (1, 3, 4, 5, 6)]
