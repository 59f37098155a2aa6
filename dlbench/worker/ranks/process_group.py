"""One case in several processes: the group they form, data-parallel training, and what only a group can measure.

Decisions and results travel over a Gloo group of their own, so that agreeing on them touches no device. The model is
wrapped by DistributedDataParallel, set as the case says; inference runs in parallel without a word between ranks.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dlbench.affinity import allowed_cores, set_by_torchrun
from dlbench.errors import BadInput, DlbenchError
from dlbench.exit_codes import NOT_DONE, OK
from dlbench.results.records import DONE_STATUSES, Outcome
from dlbench.suites.case import Case
from dlbench.worker.progress import current_phase, enter_phase
from dlbench.worker.ranks.context import DetectedRank, RankContext
from dlbench.worker.ranks.rank_status import RankStatus, die_with_launcher, leave_at_once
from dlbench.worker.ranks.rendezvous import meet


class TorchGroup:
    """The processes of a case: `backend` carries gradients, a second group over Gloo carries words."""

    def __init__(self, backend: str, timeout: timedelta) -> None:
        self.backend = backend
        self._control_group: Any = dist.group.WORLD
        if backend != "gloo":
            self._control_group = dist.new_group(backend="gloo", timeout=timeout)

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0."""
        self.barrier()
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._control_group)
        return box[0]

    def all_gather(self, value: Any) -> list[Any]:
        """The values of all ranks."""
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self._control_group)
        return values

    def barrier(self) -> None:
        """Waits for all ranks. (A barrier would allocate on the device that the group was made with.)"""
        dist.all_reduce(torch.zeros(1), group=self._control_group)


#: Measures a case at a place among its ranks; gives an outcome with this rank's part.
Work = Callable[[Case, RankContext], Outcome]


def serve(case: Case, attempt: Path, found: DetectedRank, work: Work) -> int:
    """The whole life of one rank that does `work`; gives the exit status."""
    die_with_launcher()
    rank_status = RankStatus(attempt, found.rank)
    rank_status.watch_signals()
    from dlbench.worker.failures import classify

    try:
        enter_phase("rendezvous")
        context = join(case, found, attempt.name)
        outcome = work(case, context)
        rank_status.ended(outcome.status, None)
        context.barrier()
        dist.destroy_process_group()
    except BaseException as error:
        if not isinstance(error, DlbenchError) or error.__cause__ is not None:
            traceback.print_exc()
        status, text = classify(error)
        rank_status.ended(status, text)
        print(f"rank {found.rank}: {status} in phase {current_phase()}: {text}", file=sys.stderr, flush=True)
        leave_at_once(NOT_DONE)
    return OK if outcome.status in DONE_STATUSES else NOT_DONE


def backend_of(case: Case) -> str:
    """What carries the gradients.

    Raises:
        BadInput: this PyTorch was built without it, or the device does not go with it.
    """
    cuda = case.device == "cuda" or (case.device == "auto" and torch.cuda.is_available())
    backend = case.backend if case.backend != "auto" else ("nccl" if cuda else "gloo")
    if backend == "nccl" and not cuda:
        raise BadInput("backend 'nccl' asked for on the CPU, but it works between GPUs alone; take 'gloo'.")
    there = {"nccl": dist.is_nccl_available(), "gloo": dist.is_gloo_available(), "mpi": dist.is_mpi_available()}
    if not there[backend]:
        names = ", ".join(name for name, is_there in there.items() if is_there)
        raise BadInput(f"backend '{backend}' asked for, but this PyTorch was built without it; it has: {names}.")
    return backend


def join(case: Case, found: DetectedRank, token: str) -> RankContext:
    """This rank's place in the group, with the device chosen and the threads shared out.

    Raises:
        BadInput: the backend is not there, or the ranks do not find each other.
    """
    from dlbench.worker.devices import find_device
    from dlbench.worker.ranks.transport import prepare_debug

    alone = RankContext(found.rank, found.local_rank, found.world_size)
    backend = backend_of(case)
    os.environ["DLBENCH_TOKEN"] = token
    store, master = meet(found, token, os.environ, case.protocol.timeout_s)
    set_interfaces(master, found)
    if backend == "nccl":
        prepare_debug(token)
    device = find_device(case, alone.local_rank)
    # A rank that waits longer than the whole case may last waits for nobody.
    timeout = timedelta(seconds=case.protocol.timeout_s)
    options: dict[str, Any] = {"device_id": device} if backend == "nccl" else {}
    dist.init_process_group(
        backend, store=store, rank=found.rank, world_size=found.world_size, timeout=timeout, **options
    )
    context = dataclasses.replace(alone, group=TorchGroup(backend, timeout))
    share_threads(context)
    return context


def set_interfaces(master: str, found: DetectedRank) -> None:
    """Binds Gloo and NCCL to the interface asked for; where all ranks are known to be here, Gloo to the loopback."""
    interface = os.environ.get("DLBENCH_INTERFACE")
    if interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    elif found.world_size == (found.local_size or 1) or master.startswith(("127.", "localhost")):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")


def share_threads(context: RankContext) -> int:
    """Gives each rank its part of the cores of its node: those it may use over the ranks that may use the same.

    OMP_NUM_THREADS goes first, apart from the 1 that torchrun sets unasked.
    """
    cores = allowed_cores()
    here = [c for host, c in context.all_gather((socket.gethostname(), cores)) if host == socket.gethostname()]
    sharing = sum(bool(c & cores) for c in here)
    # Of nested parallel regions (OpenMP's list) the outermost.
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    given = asked.isdigit() and int(asked) > 0 and not set_by_torchrun(os.environ)
    threads = int(asked) if given else max(1, len(cores) // sharing)
    torch.set_num_threads(threads)
    return threads
