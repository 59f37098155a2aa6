"""Counted work: known answers, hand counts, and a second derivation that shares nothing with the counting."""

from __future__ import annotations

import re
from collections import defaultdict
from math import prod

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dlbench.models import BuiltModel, build_on_meta, external
from dlbench.worker.counting.flops import (
    FlopCountingMode,
    count_mean_step_flop,
    count_network_flop,
    count_step_flop,
    suppress_warnings,
)
from dlbench.worker.counting.operation_macs import convolution_macs
from tests.models.counting import built, counted

aten = torch.ops.aten


class ForwardOnly(TorchDispatchMode):
    """Forward and backward MACs of a network from its forward pass alone.

    A product of two operands has one gradient per operand that needs one, and each costs as many MACs as the product.
    """

    def __init__(self):
        super().__init__()
        self.forward = self.backward = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if torch._C._current_autograd_node() is not None:
            return result  # of the backward pass nothing is looked at
        if packet is aten.convolution:
            x, weight = operands = args[:2]
            positions = x if args[6] else result
            macs = prod(weight.shape) * len(positions) * prod(positions.shape[2:])
        elif packet in (aten.mm, aten.bmm, aten.addmm, aten.baddbmm):
            operands = args[:2] if packet in (aten.mm, aten.bmm) else args[1:3]
            macs = operands[0].shape[-1] * result.numel()
        else:
            return result
        self.forward += macs
        self.backward += macs * sum(operand.requires_grad for operand in operands)
        return result


def count_twice(model):
    """What is counted, held against the second derivation in the same pass."""
    with ForwardOnly() as expected:
        found = count_step_flop(model, batch_size=2)
    assert (2 * found.forward_macs, 2 * found.backward_macs) == (expected.forward, expected.backward)
    return found


#: Larger sizes repeat the layers of the smaller ones; benchmarks/experiments/count_sweep.py counts all.
LARGER = re.compile(
    r"densenet1[67]|densenet201|efficientnet_b[2-7]|efficientnet_v2_[ml]|convnext_[^t]|mnasnet[01]_?[73]|mobilenet_v3_l|"
    r"regnet_._([138]|16|32|128).*gf$|resnet(101|152)|resnext101|shufflenet_v2_x[12]|squeezenet1_1|swin(_v2)?_[sb]|"
    r"vgg1[369]|vit_[lh]|wide_resnet101"
)


@pytest.mark.parametrize("name", [name for name in external.torchvision_names() if not LARGER.match(name)])
def test_every_torchvision_family_agrees_with_a_second_derivation(name):
    with suppress_warnings():
        model = build_on_meta(f"torchvision:{name}")
    found = count_twice(model)
    # Each module's gradients are those of its own products: to one operand or to both, and none is left over.
    macs = {direction: defaultdict(int) for direction in (False, True)}
    for operation in found.operations:
        macs[operation.backward][operation.module] += operation.macs
    assert macs[False].keys() == macs[True].keys()
    assert "" not in macs[False]
    assert {macs[True][path] / macs[False][path] for path in macs[True]} <= {1, 2}
    # Only the first layer has no gradient to its input, and in Swin v2 what position biases are made from.
    once = [path for path in macs[True] if macs[True][path] == macs[False][path]]
    assert [path for path in once if "cpb_mlp.0" not in path] == [next(iter(macs[False]))]


@pytest.mark.parametrize("name", ["lenet5_sparse_c3", "alexnet", "overfeat_fast", "googlenet", "resnet50"])
def test_our_networks_agree_with_a_second_derivation(name):
    count_twice(built(name))


@pytest.mark.parametrize(
    ("name", "ratio"), [("lenet5", 1.718), ("vgg16", 1.994), ("alexnet", 1.854), ("resnet50_v1_5", 1.971)]
)
def test_backward_is_twice_forward_less_the_first_layers_input_gradient(name, ratio):
    found = counted(name)
    first = next(o for o in found.operations if not o.backward)
    assert found.backward_macs == 2 * found.forward_macs - first.macs // 2
    assert found.backward_macs / found.forward_macs == pytest.approx(ratio, abs=6e-4)


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "googlenet", "overfeat_fast"])
def test_without_groups_pytorchs_counter_agrees(name):
    found = counted(name)
    assert found.pytorch_forward_flop == found.forward_flop
    assert found.pytorch_backward_flop == found.backward_flop


def test_pytorchs_counter_is_a_third_too_high_on_alexnets_groups():
    found = counted("alexnet")
    assert found.pytorch_forward_flop == found.forward_flop
    assert found.pytorch_backward_flop / found.backward_flop == pytest.approx(1.306, abs=5e-4)


def count_layers(layers, input_shape, batch_size=2):
    """Counts a network of `layers` behind one more that makes a gradient to their input necessary."""
    with torch.device("meta"):
        module = nn.Sequential(Scale(), *layers(), Scores())
    return count_step_flop(BuiltModel(module, input_shape, 10, "tiny"), batch_size=batch_size)


class Scale(nn.Module):
    """One weight: no product to be counted, but from here on gradients are needed."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * self.weight


class Scores(nn.Module):
    """Ten class scores by averaging: no product."""

    def forward(self, x):
        return nn.functional.adaptive_avg_pool1d(x.flatten(1).unsqueeze(1), 10).squeeze(1)


@pytest.mark.parametrize(("groups", "pytorchs_ratio"), [(1, 2), (2, 3), (32, 33), (64, 65)])
def test_groups_are_counted_in_the_gradient_to_the_weights_too(groups, pytorchs_ratio):
    found = count_layers(lambda: [nn.Conv2d(64, 64, 3, padding=1, groups=groups)], (64, 8, 8))
    assert found.forward_macs == 64 * (64 // groups) * 9 * 64
    assert found.backward_macs == 2 * found.forward_macs
    # If this fails, PyTorch has mended its counter, and `measurement.md` can say so.
    assert found.pytorch_backward_flop / found.pytorch_forward_flop == pytest.approx(pytorchs_ratio)


HAND_COUNTS = {
    # 4 -> 6 channels, 3x3 on 9x9: 7x7 positions.
    "convolution": (lambda: [nn.Conv2d(4, 6, 3)], (4, 9, 9), 4 * 6 * 9 * 49),
    # Stride 2 with padding 1: 5x5 positions.
    "stride": (lambda: [nn.Conv2d(4, 6, 3, stride=2, padding=1)], (4, 9, 9), 4 * 6 * 9 * 25),
    # 3x3 spread over 5x5: 5x5 positions, nine products each.
    "dilated": (lambda: [nn.Conv2d(4, 6, 3, dilation=2)], (4, 9, 9), 4 * 6 * 9 * 25),
    "oblong": (lambda: [nn.Conv2d(4, 6, (1, 3))], (4, 9, 9), 4 * 6 * 3 * 9 * 7),
    "same": (lambda: [nn.Conv2d(4, 6, 3, padding="same")], (4, 9, 9), 4 * 6 * 9 * 81),
    "one dimension": (lambda: [nn.Conv1d(4, 6, 5)], (4, 20), 4 * 6 * 5 * 16),
    "three dimensions": (lambda: [nn.Conv3d(2, 3, 3)], (2, 5, 6, 7), 2 * 3 * 27 * 3 * 4 * 5),
    # Each of the 5x5 input pixels spreads over 3x3 of every output channel: the output's size does not matter.
    "transposed": (lambda: [nn.ConvTranspose2d(4, 6, 3, stride=2)], (4, 5, 5), 4 * 6 * 9 * 25),
    "transposed, groups": (lambda: [nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2)], (4, 5, 5), 2 * 6 * 9 * 25),
    "transposed, padded": (
        lambda: [nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, output_padding=1)],
        (4, 5, 5),
        4 * 6 * 16 * 25,
    ),
    "transposed, one dimension": (lambda: [nn.ConvTranspose1d(4, 6, 3)], (4, 10), 4 * 6 * 3 * 10),
    "fully connected": (lambda: [nn.Flatten(), nn.Linear(36, 20)], (4, 3, 3), 36 * 20),
    "fully connected, no bias": (lambda: [nn.Flatten(), nn.Linear(36, 20, bias=False)], (4, 3, 3), 36 * 20),
    "on tokens": (lambda: [nn.Linear(8, 20)], (5, 8), 5 * 8 * 20),
    "two layers": (lambda: [nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1)], (4, 9, 9), (4 * 6 * 9 + 6 * 2) * 49),
    "no product": (lambda: [nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)], (4, 8, 8), 0),
}


@pytest.mark.parametrize("case", HAND_COUNTS)
def test_layers_counted_by_hand(case):
    layers, shape, macs = HAND_COUNTS[case]
    found = count_layers(layers, shape)
    assert (found.forward_macs, found.backward_macs) == (macs, 2 * macs)


@pytest.mark.parametrize("case", HAND_COUNTS)
def test_inference_is_counted_as_the_forward_pass_of_training(case):
    layers, shape, macs = HAND_COUNTS[case]
    with torch.device("meta"):
        model = BuiltModel(nn.Sequential(*layers()), shape, 10, "tiny")
    found = count_step_flop(model, training=False, batch_size=1)
    assert (found.forward_macs, found.backward_macs, found.backward_flop) == (macs, 0, 0)


@pytest.mark.parametrize(("transposed", "macs"), [(False, 8 * 4 * 9 * 2 * 49), (True, 8 * 4 * 9 * 2 * 81)])
def test_a_transposed_convolution_uses_its_weights_once_per_input_position(transposed, macs):
    assert convolution_macs((2, 4, 9, 9), (8, 4, 3, 3), (2, 8, 7, 7), transposed) == macs


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(16, 3 * 16, bias=False)

    def forward(self, x):
        query, key, value = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in self.project(x).chunk(3, dim=-1))
        return nn.functional.scaled_dot_product_attention(query, key, value)


def test_attention_is_two_products_forward_and_four_backward():
    found = count_layers(lambda: [Attention()], (5, 16))
    macs = 5 * 16 * 48 + 2 * (2 * 5 * 5 * 8)  # projections; two heads: queries with keys, weights with values
    assert (found.forward_macs, found.backward_macs) == (macs, 2 * macs)


@pytest.mark.parametrize("name", ["vit_b_32", "swin_t", "swin_v2_t", "maxvit_t"])
def test_inference_of_attention_takes_no_path_that_is_not_counted(name):
    training, inference = (
        count_network_flop(f"torchvision:{name}", training=mode).forward_macs for mode in (True, False)
    )
    assert inference == training


class Frozen(nn.Module):
    """A frozen branch that runs behind a trained layer."""

    def __init__(self):
        super().__init__()
        self.trained, self.frozen = nn.Linear(8, 10), nn.Linear(8, 10).requires_grad_(False)

    def forward(self, x):
        return self.trained(x) + self.frozen(x)


def test_a_frozen_branch_takes_no_others_gradient():
    with torch.device("meta"):
        found = count_step_flop(BuiltModel(Frozen(), (8,), 10, "frozen"))
    assert [(o.module, o.backward) for o in found.operations] == [
        ("trained", False),
        ("frozen", False),
        ("trained", True),
    ]
    assert (found.forward_macs, found.backward_macs) == (160, 80)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_figures_are_per_image_whatever_the_batch(batch_size):
    found = count_step_flop(built("lenet5"), batch_size=batch_size)
    assert (found.forward_macs, found.backward_macs) == (
        counted("lenet5").forward_macs,
        counted("lenet5").backward_macs,
    )


def test_operations_say_what_they_are():
    first = counted("alexnet").operations[0]
    assert (first.name, first.module, first.backward, first.macs) == ("convolution", "0.0", False, 2 * 105_415_200)
    assert first.shapes == ((2, 3, 227, 227), (96, 3, 11, 11), (96,))
    assert first.bytes == 4 * (2 * 3 * 227**2 + 96 * 363 + 96 + 2 * 96 * 55**2)


def test_counting_leaves_no_gradients_hooks_or_modes_behind():
    model = build_on_meta("lenet5")
    count_step_flop(model)
    assert all(p.grad is None for p in model.module.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())
    with FlopCountingMode(model.module) as mode, pytest.raises(RuntimeError):
        model.module(torch.empty(2, 9, 9, 9, device="meta"))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())
    assert mode._owners.innermost_module is None


@pytest.mark.parametrize("name", ["lenet5", "googlenet", "lstm_lm@16", "transformer_base@8", "conv_autoencoder"])
def test_one_pass_counts_a_built_in_network_because_its_steps_do_not_differ(name):
    several = count_mean_step_flop(build_on_meta(name))
    assert (several.num_passes, several.is_random) == (1, False)
    assert count_network_flop(name) == several
