"""Transfer learning: all layers but the last are frozen, and cost no backward pass."""

from __future__ import annotations

import pytest
import torch

from dlbench.errors import BadInput, UnknownName
from dlbench.models import build, build_on_meta, check_model_name, frozen
from dlbench.models.network_identity import is_user_network, library_version_key
from dlbench.suites.case import Case
from dlbench.worker.workload import build_workload
from tests.models.counting import counted


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("lenet5", 84 * 10 + 10),
        ("resnet50", 2048 * 1000 + 1000),
        ("vgg16", 4096 * 1000 + 1000),
        ("googlenet", 1024 * 1000 + 1000),
        ("torchvision:mobilenet_v3_small", 1024 * 1000 + 1000),
        ("torchvision:squeezenet1_1", 512 * 1000 + 1000),
        ("lstm_lm", 650 * 10_000 + 10_000),
        ("deep_autoencoder", 1000 * 784 + 784),
    ],
)
def test_the_last_layer_alone_is_trained(name, weights):
    module = build_on_meta(f"frozen:{name}").module
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == weights
    assert sum(p.numel() for p in module.parameters()) == sum(
        p.numel() for p in build_on_meta(name).module.parameters()
    )


def test_flop_are_those_of_the_forward_pass_and_of_one_weight_gradient():
    found, full = counted("frozen:lenet5"), counted("lenet5")
    assert found.forward_flop == full.forward_flop
    assert found.backward_flop == 2 * 84 * 10


def test_a_step_leaves_the_frozen_layers_as_they_were():
    workload = build_workload(Case("frozen:lenet5", batch_size=2, device="cpu"), torch.device("cpu"))
    workload.step()
    assert [name for name, p in workload.module.named_parameters() if p.grad is not None] == _names_of_head()


def _names_of_head():
    module = build("lenet5").module
    head = frozen.last_layer_name(module, 10)
    return [f"{head}.weight", f"{head}.bias"]


def test_a_name_that_does_not_exist_is_one_line():
    with pytest.raises(UnknownName, match="resnet5"):
        check_model_name("frozen:resnet5")
    with pytest.raises(BadInput, match="has no parameters to freeze"):
        frozen.freeze_all_but_last(torch.nn.ReLU(), 10)


def test_its_identity_is_that_of_the_network():
    assert not is_user_network("frozen:resnet50")
    assert is_user_network("frozen:package.module:factory")
    assert library_version_key("frozen:resnet50") == library_version_key("resnet50")
