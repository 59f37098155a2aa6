"""Run on every rank: the gradients of a distributed step are those of one process on the joint batch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from dlbench.models import build
from dlbench.suites.case import Case
from dlbench.tasks.classification import loss as training_loss
from dlbench.worker.ranks.context import RankContext, detect_rank
from dlbench.worker.ranks.process_group import join_process_group, wrap_in_ddp
from dlbench.worker.ranks.rank_status import exit_without_teardown
from dlbench.worker.workload import build_workload

SETTINGS = [
    {},
    {"bucket_cap_mb": 1, "gradient_as_bucket_view": "on"},
    {"static_graph": "on"},
    {"comm_hook": "fp16"},
    {"comm_hook": "bf16"},
]


def main(folder: Path) -> None:
    torch.set_default_dtype(torch.float32)
    found = detect_rank(os.environ, 2)
    context = join_process_group(Case("lenet5", devices_per_node=2), found, folder.name)
    check(context)
    # What holds a DistributedDataParallel is gone by now, as in a measurement: some versions hang otherwise.
    dist.destroy_process_group()


def check(context: RankContext) -> None:
    for setting in SETTINGS:
        case = Case("lenet5", devices_per_node=2, batch_size=4, **setting)
        torch.manual_seed(7)
        alone, shared = build("lenet5").module, build("lenet5").module
        shared.load_state_dict(alone.state_dict())
        images, labels = torch.randn(8, 1, 28, 28), torch.randint(10, (8,))
        training_loss(alone(images), labels).backward()
        wrapped = wrap_in_ddp(shared, case, torch.device("cpu"))
        mine = slice(4 * context.rank, 4 * context.rank + 4)
        training_loss(wrapped(images[mine]), labels[mine]).backward()
        tolerance = {"none": 1e-6, "fp16": 1e-3, "bf16": 1e-2}[case.comm_hook]
        for one, other in zip(alone.parameters(), shared.parameters(), strict=True):
            torch.testing.assert_close(other.grad, one.grad, rtol=tolerance, atol=tolerance)
    workload = build_workload(Case("lenet5", devices_per_node=2, batch_size=4), torch.device("cpu"), context)
    images = next(workload.batches)[0][0]
    both = context.all_gather(images)
    assert not torch.equal(both[0], both[1]), "ranks must not train on the same images"
    with workload.without_gradient_sync():
        workload.step()
    gradients = context.all_gather(next(workload.module.parameters()).grad)
    assert not torch.equal(gradients[0], gradients[1]), "no_sync must leave gradients to each rank"
    workload.step()
    gradients = context.all_gather(next(workload.module.parameters()).grad)
    assert torch.equal(gradients[0], gradients[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    # As a rank does: at the end of the interpreter, threads of torch 2.14.1 and gloo can abort the process.
    exit_without_teardown(0)
