"""Cost of gradient synchronisation: steps without it, and a separate all-reduce of all gradients.

After the window the same step runs without synchronisation (DDP's `no_sync`). The difference is the communication that
does not overlap with backward, plus the wait for the slowest rank.
"""

import statistics

import torch
import torch.distributed as dist

from dlbench.worker.progress import enter_phase
from dlbench.worker.ranks.context import RankContext
from dlbench.worker.timing import Clock, time_calls_by_host, time_queued_calls
from dlbench.worker.workload import Workload

#: Steps without synchronisation: share of the window, at least this time [s]; and limits of their number.
UNSYNCED_SHARE, UNSYNCED_MIN_S = 0.1, 0.2
UNSYNCED_MIN_STEPS, UNSYNCED_MAX_STEPS = 10, 2000
#: Discarded steps before them.
UNSYNCED_WARMUP_STEPS = 2
ALL_REDUCE_REPETITIONS = 10


def measure_unsynced_steps(
    workload: Workload, clock: Clock, context: RankContext, step_s: float, window_s: float
) -> tuple[float, ...]:
    """Measure steps without gradient synchronisation [s]; empty if the case has no synchronisation.

    The time of a step with it, and the length of the window [s], give all ranks the same number of steps.
    """
    if not workload.has_gradient_all_reduce:
        return ()
    enter_phase("no_sync")
    wished_s = max(UNSYNCED_MIN_S, UNSYNCED_SHARE * window_s)
    count = context.broadcast(min(UNSYNCED_MAX_STEPS, max(UNSYNCED_MIN_STEPS, int(wished_s / max(step_s, 1e-9)))))
    with workload.without_gradient_sync():
        time_calls_by_host(workload.step, clock, UNSYNCED_WARMUP_STEPS)
        context.barrier()
        return tuple(time_queued_calls(workload.step, clock, count))


def measure_gradient_all_reduce(workload: Workload, clock: Clock, context: RankContext) -> float | None:
    """Measure an all-reduce of all gradients in buckets of DDP's size, without other work [s].

    Median over repetitions, of the slowest rank; None if steps have no synchronisation.
    """
    if not workload.has_gradient_all_reduce or context.world_size == 1:
        return None
    enter_phase("all-reduce")
    dtype = {"none": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[workload.case.comm_hook]
    left = sum(p.numel() for p in workload.module.parameters() if p.requires_grad)
    most = workload.case.bucket_cap_mb * 2**20 // 4
    buckets = []
    while left > 0:
        buckets.append(torch.empty(min(left, most), dtype=dtype, device=workload.device))
        left -= most

    def all_reduce_buckets() -> None:
        for bucket in buckets:
            dist.all_reduce(bucket)

    times = []
    for _ in range(ALL_REDUCE_REPETITIONS + 2):
        for bucket in buckets:
            bucket.fill_(1.0)
        clock.synchronize()
        context.barrier()
        times += time_queued_calls(all_reduce_buckets, clock, 1)
    slowest: list[float] = [max(column) for column in zip(*context.all_gather(times[2:]), strict=True)]
    return statistics.median(slowest)
