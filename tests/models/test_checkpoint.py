"""Weights by path: what fits is loaded, the rest is named, and a wrong file is one line."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlbench.errors import BadInput
from dlbench.models import checkpoint


def network(classes):
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, classes))


def test_weights_that_are_saved_are_loaded_again(tmp_path):
    first, second = network(2), network(2)
    checkpoint.save_weights(first, str(tmp_path / "a.pt"))
    assert checkpoint.load_weights(second, str(tmp_path / "a.pt")) == ()
    assert torch.equal(first[1].weight, second[1].weight)


@pytest.mark.parametrize("inside", ["state_dict", None])
def test_a_new_head_starts_anew_and_is_named(tmp_path, inside):
    first, second = network(2), network(5)
    state = {f"module.{name}": tensor for name, tensor in first.state_dict().items()}
    torch.save({inside: state, "epoch": 3} if inside else state, tmp_path / "a.pt")
    (warning,) = checkpoint.load_weights(second, str(tmp_path / "a.pt"))
    assert warning.startswith("weights_left: 1.weight, 1.bias keep their random initial values")
    assert torch.equal(first[0].weight, second[0].weight)


class _Own:
    pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"text", "is not a weights file of PyTorch"),
        (_Own(), "is not a weights file of PyTorch"),
        ([1, 2], "contains a list, not the weights of a network"),
        ({"other": torch.ones(2)}, r"has none of the network's weights, such as '0\.weight'"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(tmp_path, content, message):
    path = tmp_path / "a.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(BadInput, match=message) as caught:
        checkpoint.load_weights(network(2), str(path))
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(BadInput, match=r"save_weights '.*' cannot be written"):
        checkpoint.save_weights(network(2), str(tmp_path / "nowhere" / "a.pt"))
