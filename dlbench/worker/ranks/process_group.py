"""Process group of a case with several ranks: setup, communication and life cycle.

Decisions and results use a separate Gloo group, so that they do not use the device. Training wraps the model in
DistributedDataParallel with the settings of the case; inference runs without communication.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dlbench.affinity import allowed_cores, threads_set_by_torchrun
from dlbench.errors import BadInput
from dlbench.exit_codes import NOT_DONE, OK
from dlbench.results.records import DONE_STATUSES, Outcome
from dlbench.suites.case import Case
from dlbench.worker.progress import enter_phase
from dlbench.worker.ranks.context import DetectedRank, RankContext
from dlbench.worker.ranks.rank_status import RankStatus, die_with_launcher, exit_process
from dlbench.worker.ranks.rendezvous import connect_ranks


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
    die_with_launcher()
    rank_status = RankStatus(attempt, found.rank)
    rank_status.watch_signals()
    from dlbench.worker.failures import report_failure

    try:
        enter_phase("rendezvous")
        context = join_group(case, found, attempt.name)
        outcome = work(case, context)
        rank_status.ended(outcome.status, None)
        context.barrier()
        dist.destroy_process_group()
    except BaseException as error:
        rank_status.ended(*report_failure(error, f"rank {found.rank}: "))
        exit_process(NOT_DONE, abort=True)
    return OK if outcome.status in DONE_STATUSES else NOT_DONE


def backend_of(case: Case) -> str:
    """Return the backend of gradient communication.

    Raises:
        BadInput: this PyTorch was built without it, or it does not support the device.
    """
    cuda = case.device == "cuda" or (case.device == "auto" and torch.cuda.is_available())
    backend = case.backend if case.backend != "auto" else ("nccl" if cuda else "gloo")
    if backend == "nccl" and not cuda:
        raise BadInput("backend 'nccl' was requested on the CPU, but it supports only GPUs; use 'gloo'.")
    there = {"nccl": dist.is_nccl_available(), "gloo": dist.is_gloo_available(), "mpi": dist.is_mpi_available()}
    if not there[backend]:
        names = ", ".join(name for name, is_there in there.items() if is_there)
        raise BadInput(f"backend '{backend}' was requested, but this PyTorch was built without it; available: {names}.")
    return backend


def join_group(case: Case, found: DetectedRank, token: str) -> RankContext:
    """Join the group as this rank: select the device and divide the threads.

    Raises:
        BadInput: the backend is not available, or the ranks cannot connect.
    """
    from dlbench.worker.devices import find_device
    from dlbench.worker.ranks.transport import prepare_debug

    alone = RankContext(found.rank, found.local_rank, found.world_size)
    backend = backend_of(case)
    os.environ["DLBENCH_TOKEN"] = token
    store, master = connect_ranks(found, token, os.environ, case.protocol.timeout_s)
    set_interfaces(master, found)
    if backend == "nccl":
        prepare_debug(token)
    device = find_device(case, alone.local_rank)
    # Waiting longer than the time limit of the case is useless.
    timeout = timedelta(seconds=case.protocol.timeout_s)
    options: dict[str, Any] = {"device_id": device} if backend == "nccl" else {}
    dist.init_process_group(
        backend, store=store, rank=found.rank, world_size=found.world_size, timeout=timeout, **options
    )
    context = dataclasses.replace(alone, group=TorchGroup(backend, timeout))
    share_threads(context)
    return context


def set_interfaces(master: str, found: DetectedRank) -> None:
    """Bind Gloo and NCCL to the requested interface; if all ranks are on this node, Gloo to the loopback."""
    interface = os.environ.get("DLBENCH_INTERFACE")
    if interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    elif found.world_size == (found.local_size or 1) or master.startswith(("127.", "localhost")):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")


def share_threads(context: RankContext) -> int:
    """Divide the cores of the node among its ranks: allowed cores over ranks that share them.

    OMP_NUM_THREADS has priority, except the 1 that torchrun sets by default.
    """
    cores = allowed_cores()
    here = [c for host, c in context.all_gather((socket.gethostname(), cores)) if host == socket.gethostname()]
    sharing = sum(bool(c & cores) for c in here)
    # The outermost value of an OpenMP list for nested parallel regions.
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    given = asked.isdigit() and int(asked) > 0 and not threads_set_by_torchrun(os.environ)
    threads = int(asked) if given else max(1, len(cores) // sharing)
    torch.set_num_threads(threads)
    return threads
