"""The prediction against what PyTorch's allocator reports of the real step."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dlbench.errors import BadInput, UnknownName
from dlbench.suites.case import Case
from dlbench.worker import memory
from dlbench.worker.counting.memory_prediction import predict_memory
from dlbench.worker.workload import build_workload

SMALL = ("lenet5", "alexnet", "googlenet", "resnet50")
LARGE = ("overfeat_fast", "vgg16")


def measured(case):
    workload = build_workload(case, torch.device("cpu"))
    if case.mode == "inference" and hasattr(workload.module, "remove_auxiliary_heads"):
        workload.module.remove_auxiliary_heads()
    workload.step()
    return workload, memory.cpu_allocated_peak_bytes(workload)


@pytest.mark.parametrize("mode", ["training", "inference"])
@pytest.mark.parametrize("model", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_the_peak_is_predicted_within_a_tenth(model, mode):
    case = Case(model, mode=mode, batch_size=2)
    _, peak = measured(case)
    assert predict_memory(case).peak_bytes == pytest.approx(peak, rel=0.10)


def test_the_split_is_that_of_the_record():
    case = Case("lenet5", batch_size=8, optimizer="adam")
    workload, _ = measured(case)
    split = memory.measure_memory_split(workload)
    predicted = dataclasses.asdict(predict_memory(case))
    assert {name: predicted[name] for name in split} == split


def test_a_larger_batch_needs_more_and_the_weights_stay():
    small, large = (predict_memory(Case("resnet50", mode="inference", batch_size=n)) for n in (1, 16))
    assert large.peak_bytes > small.peak_bytes
    assert large.parameter_bytes == small.parameter_bytes == 4 * 25_557_032 + small.buffer_bytes


def test_mixed_precision_keeps_fewer_bytes_for_backward():
    full, mixed = (predict_memory(Case("lenet5", batch_size=64, precision=p)) for p in ("fp32", "amp_bf16"))
    assert mixed.activation_bytes < full.activation_bytes


def test_on_cuda_the_optimizer_works_on_all_weights_at_once():
    cpu, cuda = (predict_memory(Case("alexnet", batch_size=1, device=d)) for d in ("cpu", "cuda"))
    assert cuda.peak_phase == "optimizer"
    # Weight decay makes a second copy of the gradients there, and only of the largest one on the CPU.
    assert cuda.peak_bytes - cuda.workspace_bytes > cpu.peak_bytes


def test_nothing_is_allocated():
    before = memory.rss_peak_bytes()
    predict_memory(Case("resnet50", batch_size=4096))  # 240 GB
    assert memory.rss_peak_bytes() - before < 2**30


def test_an_unknown_network_is_named():
    with pytest.raises(UnknownName, match="resnet5'"):
        predict_memory(Case("resnet5"))


def test_a_network_that_reads_its_data_is_one_line():
    with pytest.raises(BadInput, match="cannot be predicted"):
        predict_memory(Case("tests.worker.networks.reads_data:network"))
