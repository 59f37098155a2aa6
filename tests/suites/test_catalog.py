"""The catalogue: every field makes sense by itself, and its networks are those that can be built."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import pytest

from dlbench.errors import BadInput
from dlbench.suites.case import Case
from dlbench.suites.case_estimates import predicted_memory_bytes
from dlbench.suites.catalog import CATALOG, Model, find_model

MODELS = list(CATALOG.values())


@pytest.mark.parametrize("model", MODELS, ids=list(CATALOG))
def test_every_field_makes_sense(model):
    for field in dataclasses.fields(Model):
        value = getattr(model, field.name)
        if isinstance(value, int):
            assert value >= 0, field.name
    assert model.conv_layers + model.fc_layers > 0
    if model.sample_unit == "img":
        channels, height, width = model.input_shape
        assert channels in (1, 3)
        assert height == width
        assert model.num_classes in (0, 10, 1000)
        assert model.fc_weights == model.fc_macs
        assert 2.3 * model.forward_flop < model.training_flop < 3 * model.forward_flop
    else:
        assert model.fc_weights * model.input_shape[-1] <= model.fc_macs
        assert 2.99 * model.forward_flop < model.training_flop <= 3 * model.forward_flop
        assert model.input_shape[-1] <= model.longest
    assert (model.num_classes == 0) == (model.task == "reconstruction")
    assert (model.conv_weights == 0) == (model.conv_layers == 0)
    assert model.conv_weights <= model.conv_macs
    # Biases and normalisation are parameters and no weights, and few; so are embeddings that are no output.
    weights = model.conv_weights + model.fc_weights + model.recurrent_weights
    embeddings = {"lstm_lm": 10_000 * 650}.get(model.name, 0)
    assert weights < model.num_inference_parameters - embeddings < 1.01 * weights
    assert 0 <= model.auxiliary_parameters < model.num_inference_parameters
    assert re.search(r"(19|20)\d\d", model.source) or model.name == "conv_autoencoder"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpt2_small@0", "takes sequences of 1 to 1024 tokens, not '0'"),
        ("gpt2_small@2048", "takes sequences of 1 to 1024 tokens, not '2048'"),
        ("gpt2_small@", "not ''"),
        ("resnet50@224", "does not take sequences, so it has no length; write 'resnet50'"),
    ],
)
def test_a_length_that_a_network_does_not_have_is_one_line(name, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        find_model(name)


def test_another_library_may_use_the_sign_of_lengths_itself():
    assert find_model("somebody@home") is None


def test_names_and_titles_are_unique():
    assert [model.name for model in MODELS] == list(CATALOG)
    assert len({model.title for model in MODELS}) == len(MODELS)


def test_every_network_of_the_catalogue_is_built_and_every_built_one_is_in_it():
    from dlbench.models import BUILDERS

    assert BUILDERS.keys() == CATALOG.keys()


def test_only_googlenet_has_auxiliary_heads():
    assert {model.family for model in MODELS if model.auxiliary_parameters} == {"googlenet"}
    # Weights and biases: 57 convolutions with 7,280 filters, 1,000 classes.
    assert CATALOG["googlenet"].num_inference_parameters == 6_990_272 + 7_280 + 1_000


def test_predicted_memory_of_inference_leaves_auxiliary_heads_out():
    model = CATALOG["googlenet"]
    predicted = predicted_memory_bytes(Case("googlenet", mode="inference", batch_size=1, precision="fp32"))
    held = 4 * (model.num_inference_parameters + 3 * 224 * 224)
    assert held < predicted < held + 4 * model.auxiliary_parameters


def test_the_catalogue_needs_no_torch():
    code = "import sys, dlbench.suites.catalog; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
