"""Tasks: batches that fit, losses by hand, and what is said of outputs that do not fit."""

from __future__ import annotations

import math
import sys
import textwrap
from types import SimpleNamespace

import pytest
import torch

from dlbench.errors import BadInput
from dlbench.models import build, build_on_meta
from dlbench.suites.case import Case
from dlbench.tasks import TASKS, map_batch_tensors, unique_batch_tensors
from dlbench.worker.counting.flops import count_network_flop
from dlbench.worker.failures import classify_failure
from dlbench.worker.workload import build_workload

CPU = torch.device("cpu")
SHAPES = {"classification": (3, 8, 8), "reconstruction": (3, 8, 8), "language_model": (5,), "translation": (4, 5)}


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_has_as_many_samples_as_asked_for_and_class_numbers_within_range(name):
    torch.manual_seed(0)
    inputs, targets = TASKS[name].make_batch(7, SHAPES[name], 3, CPU)
    assert all(len(tensor) == 7 for tensor in (*inputs, targets))
    for tensor in (*inputs, targets):
        if not tensor.is_floating_point():
            assert (tensor.min(), tensor.max()) == (0, 2)


def test_a_language_models_targets_are_its_tokens_shifted_by_one():
    (tokens,), targets = TASKS["language_model"].make_batch(3, (6,), 1000, CPU)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])


def test_a_translations_targets_are_its_second_input_shifted_by_one():
    (source, tokens), targets = TASKS["translation"].make_batch(3, (4, 6), 1000, CPU)
    assert (source.shape, tokens.shape) == ((3, 4), (3, 6))
    assert torch.equal(tokens[:, 1:], targets[:, :-1])


def test_a_reconstructions_target_is_its_input_and_is_copied_once():
    batch = TASKS["reconstruction"].make_batch(3, (1, 4, 4), 0, CPU)
    assert len(unique_batch_tensors(batch)) == 1
    (images,), targets = map_batch_tensors(torch.clone, batch)
    assert images is targets
    assert images is not batch[1]


@pytest.mark.parametrize(("name", "items"), [("classification", 1), ("language_model", 5), ("translation", 5)])
def test_throughput_counts_the_tokens_of_the_target(name, items):
    assert TASKS[name].items_per_sample(SHAPES[name]) == items


def test_losses_are_those_counted_by_hand():
    scores = torch.zeros(2, 5, 4)
    assert TASKS["language_model"].loss(scores, torch.ones(2, 5, dtype=torch.long)).item() == pytest.approx(math.log(4))
    images = torch.tensor([[1.0, 3.0]])
    assert TASKS["reconstruction"].loss(torch.zeros(1, 2), images).item() == pytest.approx((1 + 9) / 2)


@pytest.mark.parametrize("wrap", [lambda s: {"logits": s}, lambda s: (s, "state"), lambda s: SimpleNamespace(logits=s)])
def test_scores_are_found_in_whatever_a_network_gives(wrap):
    targets = torch.zeros(2, 5, dtype=torch.long)
    assert TASKS["language_model"].loss(wrap(torch.zeros(2, 5, 4)), targets).item() == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    ("name", "outputs", "message"),
    [
        ("reconstruction", torch.zeros(2, 7), "must return a tensor of the input's shape (2, 3, 8, 8)"),
        ("language_model", torch.zeros(2, 9), "must return scores of shape (2, 5, vocabulary)"),
        ("translation", {"a": 1}, "must return scores of shape (2, 5, vocabulary)"),
    ],
)
def test_outputs_that_do_not_fit_are_one_line(name, outputs, message):
    task = TASKS[name]
    batch = task.make_batch(2, SHAPES[name], 4, CPU)
    with pytest.raises(BadInput) as caught:
        task.loss(outputs, batch[1])
    assert message in str(caught.value)
    with pytest.raises(BadInput):
        task.check_output(outputs, batch, None)


FACTORIES = """
    import torch
    from torch import nn

    class Language(nn.Module):
        task = "language_model"
        input_shape = (6,)

        def __init__(self):
            super().__init__()
            self.embedding, self.output = nn.Embedding(11, 8), nn.Linear(8, 11)

        def forward(self, tokens):
            return {"logits": self.output(self.embedding(tokens)), "loss": None}

    class TooShort(Language):
        input_shape = (3, 8, 8)

    class TooLong(Language):
        # Sequences of 6 tokens, positions for 5.
        def forward(self, tokens):
            positions = nn.Embedding(5, 8)(torch.arange(tokens.shape[1], device=tokens.device))
            return self.output(self.embedding(tokens) + positions)

    class NoWords(Language):
        num_classes = 0

    class TooManyWords(Language):
        num_classes = 12

    class NoTask(Language):
        task = "langage_model"

    class Images(Language):
        task = "classification"

    class Pair(nn.Module):
        # Two inputs, a dictionary of outputs, a loss and a batch of its own.
        sample_unit, items_per_sample = "seq", 9

        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(4, 3), nn.Linear(5, 3)

        def make_batch(self, size, device):
            return (torch.randn(size, 4, device=device), torch.randn(size, 5, device=device)), torch.randn(size, 3, device=device)

        def loss(self, outputs, targets):
            return (outputs["mean"] - targets).abs().mean()

        def forward(self, a, b):
            return {"mean": self.left(a) + self.right(b), "other": a}

    class BadBatch(Pair):
        def make_batch(self, size, device):
            return [1, 2, 3]

    class Outside(Language):
        num_classes = 11

        def make_batch(self, size, device):
            tokens = torch.full((size, 6), 11, device=device)
            return tokens - 1, tokens

    class RaisingBatch(Pair):
        def make_batch(self, size, device):
            raise OSError("no data in /nowhere")

    class Vector(Pair):
        def loss(self, outputs, targets):
            return outputs["mean"]

    class Unit(Pair):
        sample_unit = "image"

    class OldLoss(nn.Linear):
        # A network from before tasks: its loss has other arguments.
        input_shape = (4,)

        def __init__(self):
            super().__init__(4, 3)

        def loss(self):
            raise AssertionError
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_tasks.py").write_text(textwrap.dedent(FACTORIES))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("own_tasks", None)


def test_a_users_language_model_is_trained_and_its_vocabulary_found(own):
    model = build("own_tasks:Language")
    assert (model.task.name, model.num_classes, model.items_per_sample) == ("language_model", 11, 6)
    workload = build_workload(Case("own_tasks:Language", batch_size=3), CPU)
    workload.step()
    assert workload.read_loss() == pytest.approx(math.log(11), rel=0.5)


def test_a_users_network_may_bring_two_inputs_a_batch_and_a_loss(own):
    model = build_on_meta("own_tasks:Pair")
    assert (model.task.sample_unit, model.items_per_sample) == ("seq", 9)
    assert count_network_flop("own_tasks:Pair").forward_macs == 4 * 3 + 5 * 3
    for data in ("synthetic", "synthetic_host"):
        workload = build_workload(Case("own_tasks:Pair", batch_size=3, data=data), CPU)
        workload.step()
        assert 0 < workload.read_loss() < 10


def test_a_network_from_before_tasks_keeps_its_loss_to_itself(own):
    workload = build_workload(Case("own_tasks:OldLoss", batch_size=3), CPU)
    workload.step()
    assert workload.read_loss() > 0


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("TooShort", "has input_shape (3, 8, 8), but task 'language_model' needs a shape such as (128,)"),
        ("NoWords", "has num_classes 0; it must be a whole number of tokens above zero"),
        ("TooManyWords", "declares num_classes = 12, but returns scores for 11 tokens"),
        ("NoTask", "names an unknown task 'langage_model'; did you mean 'language_model'?"),
        ("BadBatch", "has a make_batch that returns a list; it must return (inputs, targets)"),
        ("RaisingBatch", "has a make_batch that raised OSError: no data in /nowhere"),
        ("Unit", "names an unknown sample_unit 'image'; did you mean 'img'?"),
    ],
)
def test_a_task_that_does_not_fit_the_network_is_one_line(own, factory, message):
    with pytest.raises(BadInput) as caught:
        build(f"own_tasks:{factory}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sequence_longer_than_the_network_allows_is_one_line(own):
    workload = build_workload(Case("own_tasks:TooLong", batch_size=3), CPU)
    with pytest.raises(IndexError) as caught:
        workload.step()
    assert classify_failure(caught.value) == (
        "crashed",
        "IndexError: index out of range in self; a token, position or label is out of range: check the network's "
        "input_shape and num_classes",
    )


def test_targets_outside_the_classes_are_one_line(own):
    message = r"model 'own_tasks:Outside' has a make_batch that returns target 11; classes are 0 to 10"
    with pytest.raises(BadInput, match=message):
        build_workload(Case("own_tasks:Outside", batch_size=3), CPU)


def test_a_loss_that_is_no_scalar_is_one_line(own):
    workload = build_workload(Case("own_tasks:Vector", batch_size=3), CPU)
    with pytest.raises(BadInput, match="loss function returns a tensor of shape"):
        workload.step()
