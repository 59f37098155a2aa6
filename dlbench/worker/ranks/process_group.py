"""Process group of a case with several ranks: setup, communication, life cycle, and one outcome of all ranks.

Decisions and results use a separate Gloo group, so that they do not use the device. Training wraps the model in
DistributedDataParallel with the settings of the case; inference runs without communication.
"""

import dataclasses
import os
import socket
import statistics
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from dlbench.affinity import allowed_cores, is_thread_count_from_torchrun
from dlbench.errors import BadInput
from dlbench.exit_codes import NOT_DONE, OK
from dlbench.results.records import DONE_STATUSES, Measurement, Outcome, System
from dlbench.suites.case import Case
from dlbench.worker.progress import enter_phase
from dlbench.worker.ranks.context import DetectedRank, RankContext
from dlbench.worker.ranks.rank_status import RankStatus, end_with_parent, exit_without_teardown
from dlbench.worker.ranks.rendezvous import connect_ranks

#: Relative slowness against the median rank above which a rank is reported.
STRAGGLER_SHARE = 0.05
#: Counted only by rank 0: equal on all ranks.
WORK_FIELDS = (
    *("forward_macs", "forward_flop", "backward_flop", "executed_flop", "flop_partial", "flop_varies"),
    *("pytorch_forward_flop", "pytorch_backward_flop"),
)


class TorchGroup:
    """Processes of a case: `backend` transports gradients, a second Gloo group transports control data."""

    def __init__(self, backend: str, timeout: timedelta) -> None:
        self.backend = backend
        self._control_group: Any = dist.group.WORLD
        if backend != "gloo":
            self._control_group = dist.new_group(backend="gloo", timeout=timeout)

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0 on all ranks."""
        self.barrier()
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._control_group)
        return box[0]

    def all_gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks."""
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self._control_group)
        return values

    def barrier(self) -> None:
        """Wait for all ranks, without torch's barrier, which allocates on the device."""
        dist.all_reduce(torch.zeros(1), group=self._control_group)


#: Measures a case in the context of a rank; returns an outcome with the part of this rank.
RankWork = Callable[[Case, RankContext], Outcome]


def run_rank(case: Case, attempt: Path, found: DetectedRank, work: RankWork) -> int:
    """Run one rank that does `work`, from start to end; return the exit status."""
    end_with_parent()
    rank_status = RankStatus(attempt, found.rank)
    rank_status.watch_signals()
    from dlbench.worker.failures import report_failure

    try:
        enter_phase("rendezvous")
        context = join_process_group(case, found, attempt.name)
        outcome = work(case, context)
        rank_status.write_final_status(outcome.status, None)
        context.barrier()
        dist.destroy_process_group()
    except BaseException as error:
        rank_status.write_final_status(*report_failure(error, f"rank {found.rank}: "))
        exit_without_teardown(NOT_DONE, abort=True)
    return OK if outcome.status in DONE_STATUSES else NOT_DONE


def communication_backend(case: Case) -> str:
    """The backend of gradient communication. Raises BadInput if PyTorch lacks it, or the device is of another kind."""
    cuda = case.device == "cuda" or (case.device == "auto" and torch.cuda.is_available())
    backend = case.backend if case.backend != "auto" else ("nccl" if cuda else "gloo")
    if backend == "nccl" and not cuda:
        raise BadInput("backend 'nccl' was requested on the CPU, but it supports only GPUs; use 'gloo'.")
    there = {"nccl": dist.is_nccl_available(), "gloo": dist.is_gloo_available(), "mpi": dist.is_mpi_available()}
    if not there[backend]:
        names = ", ".join(name for name, is_there in there.items() if is_there)
        raise BadInput(f"backend '{backend}' was requested, but this PyTorch was built without it; available: {names}.")
    return backend


def join_process_group(case: Case, found: DetectedRank, token: str) -> RankContext:
    """Join the group as this rank: select the device, divide the threads. Raises BadInput if that fails."""
    from dlbench.worker.devices import find_device
    from dlbench.worker.ranks.transport import enable_nccl_log

    alone = RankContext(found.rank, found.local_rank, found.world_size)
    backend = communication_backend(case)
    os.environ["DLBENCH_TOKEN"] = token
    store, master = connect_ranks(found, token, os.environ, case.protocol.timeout_s)
    set_interfaces(master, found)
    if backend == "nccl":
        enable_nccl_log(token)
    device = find_device(case, alone.local_rank)
    # Waiting longer than the time limit of the case is useless.
    timeout = timedelta(seconds=case.protocol.timeout_s)
    options: dict[str, Any] = {"device_id": device} if backend == "nccl" else {}
    dist.init_process_group(
        backend, store=store, rank=found.rank, world_size=found.world_size, timeout=timeout, **options
    )
    context = dataclasses.replace(alone, group=TorchGroup(backend, timeout))
    set_threads_per_rank(context)
    return context


def set_interfaces(master: str, found: DetectedRank) -> None:
    """Bind Gloo and NCCL to the requested interface; if all ranks are on this node, Gloo to the loopback."""
    interface = os.environ.get("DLBENCH_INTERFACE")
    if interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    elif found.world_size == (found.local_size or 1) or master.startswith(("127.", "localhost")):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")


def set_threads_per_rank(context: RankContext) -> int:
    """Divide the cores of the node among its ranks: allowed cores over ranks that share them.

    OMP_NUM_THREADS has priority, except the 1 that torchrun sets by default.
    """
    cores = allowed_cores()
    here = [c for host, c in context.all_gather((socket.gethostname(), cores)) if host == socket.gethostname()]
    sharing = sum(bool(c & cores) for c in here)
    # The outermost value of an OpenMP list for nested parallel regions.
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    given = asked.isdigit() and int(asked) > 0 and not is_thread_count_from_torchrun(os.environ)
    threads = int(asked) if given else max(1, len(cores) // sharing)
    torch.set_num_threads(threads)
    return threads


def wrap_in_ddp(module: nn.Module, case: Case, device: torch.device) -> nn.Module:
    """Wrap the module in DistributedDataParallel with the settings of the case."""
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
    from torch.nn.parallel import DistributedDataParallel

    hooks: dict[str, Any] = {"fp16": default_hooks.fp16_compress_hook, "bf16": default_hooks.bf16_compress_hook}
    wrapped = DistributedDataParallel(
        module,
        device_ids=[device.index] if device.type == "cuda" else None,
        bucket_cap_mb=case.bucket_cap_mb,
        gradient_as_bucket_view=case.gradient_as_bucket_view == "on",
        static_graph=case.static_graph == "on",
    )
    if case.comm_hook != "none":
        wrapped.register_comm_hook(None, hooks[case.comm_hook])
    return wrapped


def merge_rank_outcomes(outcome: Outcome, context: RankContext, found: DetectedRank) -> Outcome:
    """Merge the measurements of all ranks into one outcome, with warnings from their comparison."""
    enter_phase("gather")
    ((system, own),) = outcome.ranks
    details = {
        "rank": context.rank,
        "rank_source": found.source,
        "local_size": found.local_size,
        "cpu_affinity": sorted(allowed_cores()),
        "interface": os.environ.get("GLOO_SOCKET_IFNAME"),
        "pid": os.getpid(),
    }
    system = dataclasses.replace(system, details=system.details | {"binding": details})
    ranks: list[tuple[System, Measurement]] = context.all_gather((system, own))
    first = ranks[0][1]
    work = {n: getattr(first, n) for n in WORK_FIELDS}
    ranks = [(s, dataclasses.replace(m, **work)) for s, m in ranks]
    warnings = (*first.warnings, *straggler_warnings(ranks))
    ranks[0] = (ranks[0][0], dataclasses.replace(ranks[0][1], warnings=warnings))
    return Outcome(outcome.status if context.rank == 0 else "ok", outcome.error, tuple(ranks))


def straggler_warnings(ranks: list[tuple[System, Measurement]]) -> tuple[str, ...]:
    """Return warnings about ranks whose own work is slower than that of the median rank by more than `STRAGGLER_SHARE`.

    Uses steps without synchronisation if available: with it all ranks take as long as the slowest.
    """
    own = [m.unsynced_step_s or m.step_s for _, m in ranks]
    if len(ranks) < 2 or not all(own):
        return ()
    medians = [statistics.median(steps) for steps in own]
    # Compare with the median of the other ranks: with two ranks the straggler would be half of a common median.
    warnings = []
    for i, (system, found) in enumerate(ranks):
        others = statistics.median(medians[:i] + medians[i + 1 :])
        if medians[i] > (1 + STRAGGLER_SHARE) * others:
            late = medians[i] / others - 1
            warnings.append(
                f"straggler: rank {found.rank} on {system.hostname} needs {late:.0%} more time than the other ranks "
                f"for its own work in a step; the other ranks wait for it."
            )
    return tuple(warnings)
