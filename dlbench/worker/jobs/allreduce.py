"""Times all-reduces over message sizes, between ranks that are started like those of a case.

Its samples become algorithm and bus bandwidth in `dlbench.results.bounds_schema` (nccl-tests, doc/PERFORMANCE.md).
"""

import math
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dlbench.atomic_file import write_atomically
from dlbench.results.bounds_records import AllReduce, AllReduceRun, to_json
from dlbench.results.records import Outcome
from dlbench.suites.case import Case
from dlbench.suites.worker_request import requested_case
from dlbench.worker.devices import clock_for_device, device_identity, find_device
from dlbench.worker.progress import enter_phase
from dlbench.worker.ranks import process_group
from dlbench.worker.ranks.context import RankContext, detect_rank
from dlbench.worker.ranks.transport import find_transport
from dlbench.worker.timing import Clock, time_queued_calls

#: Limit of the repeated sum of ones before it restarts, far below the largest fp32 number.
_LARGEST_SUM = 1e30


def all_reduce_times(
    sizes_bytes: list[int], device: torch.device, clock: Clock, context: RankContext, seconds_each: float = 0.3
) -> tuple[AllReduce, ...]:
    """Measure all-reduces (fp32 sum) per message size; each repetition counts with its slowest rank.

    Args:
        sizes_bytes: multiples of 4.
        seconds_each: time for each size [s]; at least 5 and at most 200 repetitions.
    """
    found = []
    for size in sizes_bytes:
        data = torch.empty(max(1, size // 4), device=device)
        first_s = _time_all_reduces(data, clock, 3)[-1]
        count = context.broadcast(max(5, min(200, int(seconds_each / max(first_s, 1e-6)))))
        context.barrier()
        own = [t for part in split_repetitions(count, context.world_size) for t in _time_all_reduces(data, clock, part)]
        times = [max(column) for column in zip(*context.all_gather(own), strict=True)]
        found.append(AllReduce(data.numel() * data.element_size(), tuple(times)))
    return tuple(found)


def split_repetitions(count: int, world_size: int) -> list[int]:
    """Split `count` repetitions; data restart after each part, because each all-reduce multiplies them by the ranks."""
    most = count if world_size == 1 else max(1, int(math.log(_LARGEST_SUM, world_size)))
    return [min(most, count - done) for done in range(0, count, most)]


def _time_all_reduces(data: torch.Tensor, clock: Clock, count: int) -> list[float]:
    data.fill_(1.0)
    return time_queued_calls(lambda: dist.all_reduce(data), clock, count)


def handle_request(request: dict[str, Any], folder: Path) -> int:
    """Time all-reduces as one rank; rank 0 writes the result. Return the exit status."""
    case = requested_case(request)

    def measure_rank(case: Case, context: RankContext) -> Outcome:
        device = find_device(case, context.local_rank)
        clock = clock_for_device(device)
        enter_phase("all-reduce")
        measured = all_reduce_times(request["sizes_bytes"], device, clock, context)
        backend = context.group.backend if context.group else "none"
        transport = find_transport(backend, device, context.world_size, case.nodes == 1)
        if context.rank == 0:
            ranks = (case.nodes, context.world_size, backend, transport.used)
            run = AllReduceRun(device_identity(device), *ranks, measured, transport.warning)
            write_atomically(folder / "result.json", to_json(run))
        return Outcome("ok")

    return process_group.run_rank(case, folder, detect_rank(os.environ, case.world_size), measure_rank)
