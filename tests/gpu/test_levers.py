"""Levers on a real GPU compute what the plain setting does, and what each gives goes into test-gpu.json."""

from __future__ import annotations

import time

import pytest
import torch

from dlbench.suites.case import Case
from dlbench.worker.devices import find_device
from dlbench.worker.workload import build_workload

LEVERS = [
    {"cuda_graph": "on"},
    {"cuda_graph": "on", "optimizer": "adam", "optimizer_impl": "fused"},
    {"cuda_graph": "on", "compile": "default"},
    {"compile": "reduce-overhead"},
    {"data": "synthetic_host", "prefetch": "on"},
    {"cudnn_benchmark_limit": 0},
    {"precision": "bf16", "memory_format": "channels_last"},
]


def loss_and_time(case, device):
    workload = build_workload(case, device)
    workload.capture_cuda_graph()
    for _ in range(3):
        workload.step()
    torch.cuda.synchronize()
    began_s = time.perf_counter()
    for _ in range(20):
        workload.step()
    torch.cuda.synchronize()
    return workload.read_loss(), (time.perf_counter() - began_s) / 20


@pytest.mark.gpu
@pytest.mark.parametrize("axes", LEVERS, ids=lambda axes: "-".join(map(str, axes.values())))
def test_a_lever_gives_the_loss_of_the_plain_setting(sizes, note, axes):
    device = find_device(Case("resnet18", device="cuda"))
    case = Case("torchvision:resnet18", batch_size=32, device="cuda")
    (plain, plain_s), (loss, step_s) = loss_and_time(case, device), loss_and_time(replaced(case, axes), device)
    note(plain_loss=plain, loss=loss, times_as_fast=plain_s / step_s)
    assert loss == pytest.approx(plain, rel=0.05)


def replaced(case, axes):
    return Case(**{**case.to_dict(), **axes, "protocol": case.protocol})
