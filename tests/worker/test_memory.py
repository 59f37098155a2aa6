"""Memory of small networks whose bytes can be counted by hand."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from dlbench.models import BuiltModel
from dlbench.suites.case import OPTIMIZERS, Case
from dlbench.worker import memory
from dlbench.worker.workload import Workload, make_optimizer
from tests.worker.networks import counted


def make_workload(layers: nn.Module, batch: torch.Tensor, optimizer: str = "adam") -> Workload:
    labels = torch.zeros(batch.shape[0], dtype=torch.int64)
    return Workload(
        case=Case("by_hand", batch_size=batch.shape[0], optimizer=optimizer),
        built=BuiltModel(layers, tuple(batch.shape[1:]), 10, "by_hand"),
        module=layers,
        device=torch.device("cpu"),
        run=layers,
        batches=itertools.repeat(((batch,), labels)),
        optimizer=make_optimizer(Case("by_hand", optimizer=optimizer), layers.parameters()),
        scaler=None,
    )


def test_the_split_of_a_network_counted_by_hand():
    layers = nn.Sequential(nn.Linear(100, 50), nn.Tanh(), nn.Linear(50, 10, bias=False))
    split = memory.measure_memory_split(make_workload(layers, torch.randn(8, 100)))
    weights = 100 * 50 + 50 + 50 * 10
    assert split["parameter_bytes"] == 4 * weights
    assert split["gradient_bytes"] == 4 * weights
    # Adam keeps two tensors per weight, and a step count of 4 bytes per parameter tensor.
    assert split["optimizer_state_bytes"] == 2 * 4 * weights + 3 * 4
    # The output of tanh, saved by itself and by the layer behind it, once; the input and the weights do not count. The
    # loss saves its log-softmax (8 x 10), the labels come with the batch, and their total weight is one number.
    assert split["activation_bytes"] == 4 * (8 * 50 + 8 * 10 + 1)


def test_buffers_are_in_the_split_beside_the_parameters():
    network = counted.LargeTable()
    split = memory.measure_memory_split(make_workload(network, torch.randn(8, 64)))
    statistics = 2 * 4 * 64 + 8  # running mean and variance, and the number of batches as int64
    assert split["buffer_bytes"] == 4 * 1024 * 1024 + statistics
    assert split["parameter_bytes"] == split["buffer_bytes"] + 4 * (2 * 64 + 64 * 10 + 10)
    assert split["gradient_bytes"] == 4 * (2 * 64 + 64 * 10 + 10)
    # So nothing large is left to the rest.
    assert (
        memory.cpu_allocated_peak_bytes(make_workload(network, torch.randn(8, 64)))
        - sum(split[f"{part}_bytes"] for part in ("parameter", "gradient", "optimizer_state", "activation"))
        < 100_000
    )


def test_what_checkpointing_runs_again_is_not_kept_for_backward():
    saved = [
        memory.activation_bytes(make_workload(network(), torch.randn(8, 64)))
        for network in (counted.Unchecked, counted.CheckpointedReentrant, counted.Checkpointed)
    ]
    # Input and output of the block, log-softmax and its weight are kept by all; of what lies in the block nothing is,
    # which is the result of ReLU.
    assert saved == [4 * (8 * 3 * 128 + 8 * 10 + 1), *[4 * (8 * 2 * 128 + 8 * 10 + 1)] * 2]


def test_the_peak_of_the_cpu_allocator_is_what_lives_before_plus_the_highest_in_the_step():
    class Widen(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(10))

        def forward(self, images):
            wide = images.repeat(1, 1000)  # 8 x 10 000, and its sum needs nothing of it afterwards
            return wide.sum(1, keepdim=True) * self.weight

    batch = torch.randn(8, 10)
    peak = memory.cpu_allocated_peak_bytes(make_workload(Widen(), batch, "sgd"))
    alive = 4 * (80 + 10)
    highest = 4 * 8 * 10_000
    assert alive + highest <= peak <= alive + highest + 4096


def test_the_peak_does_not_count_a_gradient_that_is_replaced_twice():
    layers = nn.Linear(1000, 1000, bias=False)
    workload = make_workload(layers, torch.randn(1, 1000), "sgd")
    for _ in range(3):
        workload.step()
    # Weights, momentum, and gradients are 4 MB each, SGD's weight decay makes another copy at most.
    peaks = {memory.cpu_allocated_peak_bytes(workload) for _ in range(3)}
    assert len(peaks) == 1
    assert 12e6 <= peaks.pop() <= 16.1e6


def test_shared_storage_counts_once():
    base = torch.zeros(100)
    assert memory.storage_bytes([base, base[10:], base.view(10, 10)]) == 400


def test_the_resident_peak_is_this_process_own():
    before = memory.rss_peak_bytes()
    block = torch.ones(60_000_000 + before // 4)
    assert memory.rss_peak_bytes() > before + 200_000_000
    assert block[0] == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_has_its_state_counted(name):
    layers = nn.Linear(100, 10)
    split = memory.measure_memory_split(make_workload(layers, torch.randn(4, 100), name))
    tensors = {"sgd": 1, "adam": 2, "adamw": 2, "adagrad": 1, "rmsprop": 1}[name]
    assert 0 <= split["optimizer_state_bytes"] - tensors * 4 * 1010 <= 8
