"""One case in several processes: the group they form, data-parallel training, and what only a group can measure.

Decisions and results travel over a Gloo group of their own, so that agreeing on them touches no device. The model is
wrapped by DistributedDataParallel, set as the case says; inference runs in parallel without a word between ranks.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

from dlbench.affinity import allowed_cores, set_by_torchrun
from dlbench.errors import BadInput, DlbenchError
from dlbench.results.records import DONE_STATUSES, Measurement, Outcome, System
from dlbench.suites.case import Case
from dlbench.worker.progress import current_phase, enter_phase
from dlbench.worker.ranks.context import Found, Place
from dlbench.worker.ranks.rank_status import EXIT_NOT_DONE, Voice, die_with_launcher, leave_at_once
from dlbench.worker.ranks.rendezvous import meet

#: A rank that is slower than the median of the ranks by more than this is named.
STRAGGLER = 0.05
_HOOKS: dict[str, Any] = {"fp16": default_hooks.fp16_compress_hook, "bf16": default_hooks.bf16_compress_hook}


class TorchGroup:
    """The processes of a case: `backend` carries gradients, a second group over Gloo carries words."""

    def __init__(self, backend: str, timeout: timedelta) -> None:
        self.backend = backend
        self._words: Any = dist.group.WORLD
        if backend != "gloo":
            self._words = dist.new_group(backend="gloo", timeout=timeout)

    def agree(self, value: Any) -> Any:
        """The value of rank 0."""
        self.align()
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._words)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks."""
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self._words)
        return values

    def align(self) -> None:
        """Waits for all ranks. (A barrier would allocate on the device that the group was made with.)"""
        dist.all_reduce(torch.zeros(1), group=self._words)


#: Measures a case at a place among its ranks; gives an outcome with this rank's part.
Work = Callable[[Case, Place], Outcome]


def run(case: Case, attempt: Path, found: Found, write: Callable[[Path, Outcome], None]) -> int:
    """Measures a case as one of its ranks; gives the exit status.

    Args:
        write: called on rank 0 with the attempt's folder and the outcome of all ranks.
    """
    began_s = time.perf_counter()
    from dlbench.worker.measure import measure

    import_s = time.perf_counter() - began_s

    def work(case: Case, place: Place) -> Outcome:
        outcome = _together(measure(case, place, import_s), place, found)
        if place.rank == 0:
            write(attempt, outcome)
        return outcome

    return serve(case, attempt, found, work)


def serve(case: Case, attempt: Path, found: Found, work: Work) -> int:
    """The whole life of one rank that does `work`; gives the exit status."""
    die_with_launcher()
    voice = Voice(attempt, found.rank)
    voice.watch_signals()
    from dlbench.worker.failures import classify

    try:
        enter_phase("rendezvous")
        place = join(case, found, attempt.name)
        outcome = work(case, place)
        voice.ended(outcome.status, None)
        place.align()
        dist.destroy_process_group()
    except BaseException as error:
        if not isinstance(error, DlbenchError) or error.__cause__ is not None:
            traceback.print_exc()
        status, text = classify(error)
        voice.ended(status, text)
        print(f"rank {found.rank}: {status} in phase {current_phase()}: {text}", file=sys.stderr, flush=True)
        leave_at_once(EXIT_NOT_DONE)
    return 0 if outcome.status in DONE_STATUSES else EXIT_NOT_DONE


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


def join(case: Case, found: Found, token: str) -> Place:
    """This rank's place in the group, with the device chosen and the threads shared out.

    Raises:
        BadInput: the backend is not there, or the ranks do not find each other.
    """
    from dlbench.worker.measure import find_device
    from dlbench.worker.ranks.communication import prepare_debug

    alone = Place(found.rank, found.local_rank, found.world_size)
    backend = backend_of(case)
    os.environ["DLBENCH_TOKEN"] = token
    store, master = meet(found, token, os.environ, case.protocol.timeout_s)
    set_interfaces(master, found)
    if backend == "nccl":
        prepare_debug(token)
    device = find_device(case, alone)
    # A rank that waits longer than the whole case may last waits for nobody.
    timeout = timedelta(seconds=case.protocol.timeout_s)
    options: dict[str, Any] = {"device_id": device} if backend == "nccl" else {}
    dist.init_process_group(
        backend, store=store, rank=found.rank, world_size=found.world_size, timeout=timeout, **options
    )
    place = dataclasses.replace(alone, group=TorchGroup(backend, timeout))
    share_threads(place)
    return place


def set_interfaces(master: str, found: Found) -> None:
    """Binds Gloo and NCCL to the interface asked for; where all ranks are known to be here, Gloo to the loopback."""
    interface = os.environ.get("DLBENCH_INTERFACE")
    if interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    elif found.world_size == (found.local_size or 1) or master.startswith(("127.", "localhost")):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")


def share_threads(place: Place) -> int:
    """Gives each rank its part of the cores of its node: those it may use over the ranks that may use the same.

    OMP_NUM_THREADS goes first, apart from the 1 that torchrun sets unasked.
    """
    cores = allowed_cores()
    here = [c for host, c in place.gather((socket.gethostname(), cores)) if host == socket.gethostname()]
    sharing = sum(bool(c & cores) for c in here)
    # Of nested parallel regions (OpenMP's list) the outermost.
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    given = asked.isdigit() and int(asked) > 0 and not set_by_torchrun(os.environ)
    threads = int(asked) if given else max(1, len(cores) // sharing)
    torch.set_num_threads(threads)
    return threads


def wrap(module: nn.Module, case: Case, device: torch.device) -> nn.Module:
    """The module under DistributedDataParallel as the case asks for."""
    wrapped = DistributedDataParallel(
        module,
        device_ids=[device.index] if device.type == "cuda" else None,
        bucket_cap_mb=case.bucket_cap_mb,
        gradient_as_bucket_view=case.gradient_as_bucket_view == "on",
        static_graph=case.static_graph == "on",
    )
    if case.comm_hook != "none":
        wrapped.register_comm_hook(None, _HOOKS[case.comm_hook])
    return wrapped


def _together(outcome: Outcome, place: Place, found: Found) -> Outcome:
    """All ranks' measurements in one outcome, with what only their comparison shows."""
    enter_phase("gather")
    ((system, own),) = outcome.ranks
    details = {
        "rank": place.rank,
        "rank_source": found.source,
        "local_size": found.local_size,
        "cpu_affinity": sorted(allowed_cores()),
        "interface": os.environ.get("GLOO_SOCKET_IFNAME"),
        "pid": os.getpid(),
    }
    system = dataclasses.replace(system, details=system.details | {"binding": details})
    ranks: list[tuple[System, Measurement]] = place.gather((system, own))
    first = ranks[0][1]
    work = {n: getattr(first, n) for n in WORK}
    ranks = [(s, dataclasses.replace(m, **work)) for s, m in ranks]
    warnings = (*first.warnings, *stragglers(ranks))
    ranks[0] = (ranks[0][0], dataclasses.replace(ranks[0][1], warnings=warnings))
    return Outcome(outcome.status if place.rank == 0 else "ok", outcome.error, tuple(ranks))


#: Counted by rank 0 alone: it is the same for all.
WORK = (
    *("forward_macs", "forward_flop", "backward_flop", "executed_flop", "flop_partial", "flop_varies"),
    *("pytorch_forward_flop", "pytorch_backward_flop"),
)


def stragglers(ranks: list[tuple[System, Measurement]]) -> tuple[str, ...]:
    """Names the ranks whose own work takes longer than the median rank's by more than `STRAGGLER`.

    By steps without synchronisation where there are any: with it all ranks take as long as the slowest.
    """
    own = [m.unsynced_step_s or m.step_s for _, m in ranks]
    if len(ranks) < 2 or not all(own):
        return ()
    medians = [statistics.median(steps) for steps in own]
    # With two ranks the median of both would be half the straggler's; the others' is what it is late against.
    warnings = []
    for i, (system, found) in enumerate(ranks):
        others = statistics.median(medians[:i] + medians[i + 1 :])
        if medians[i] > (1 + STRAGGLER) * others:
            late = medians[i] / others - 1
            warnings.append(
                f"straggler: rank {found.rank} on {system.hostname} takes {late:.0%} longer for its own part of a step "
                "than the others, which wait for it."
            )
    return tuple(warnings)
