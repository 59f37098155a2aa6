"""What communication between ranks costs, and which way it takes.

**Exposed time.** After the window the same step runs for a while without gradient synchronisation (DDP's `no_sync`).
What a step takes longer with it is the part of communication that backward does not hide, and the wait for the slowest.

**All-reduce.** `python -m dlbench.worker.ranks.communication FOLDER`, started like a case, times all-reduces of 4 B upwards.
Its samples become algorithm and bus bandwidth in `dlbench.results.bounds_schema` (nccl-tests, doc/PERFORMANCE.md).

**Transport.** NCCL tells in its log which way each channel takes; NVML and sysfs tell which fast ways there are.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dlbench.results.bounds_records import AllReduce, AllReduceRun, to_json
from dlbench.results.records import Outcome
from dlbench.suites.case import Case
from dlbench.worker.progress import enter_phase
from dlbench.worker.ranks.context import Place, detect
from dlbench.worker.ranks.rank_status import leave
from dlbench.worker.timing import Clock
from dlbench.worker.workload import Workload

#: Steps without synchronisation: for a tenth of the window and at least so long [s] and so many.
UNSYNCED_SHARE = 0.1
UNSYNCED_MIN_S = 0.2
UNSYNCED_MIN_STEPS = 10
UNSYNCED_MAX_STEPS = 2000
#: Thrown away at its start: buckets and caches settle.
UNSYNCED_WARMUP_STEPS = 2
INFINIBAND = Path("/sys/class/infiniband")
_WAYS = (
    ("P2P", "p2p"),
    ("SHM", "shared_memory"),
    ("NET/IB", "infiniband"),
    ("NET/OFI", "libfabric"),
    ("NET/Libfabric", "libfabric"),
    ("NET/Socket", "sockets"),
    ("COLLNET", "collnet"),
    ("NVLS", "nvlink"),
)
UNTOLD = (
    "transport_unknown: NCCL_DEBUG was set already, and NCCL tells the way that it takes in its log alone; "
    "unset it to have that found."
)
#: A sum of ones over ranks may grow to this, far from the largest fp32 number, before it starts anew.
_LARGEST_SUM = 1e30
_VIA = re.compile(r"via (P2P|SHM|NET/[A-Za-z]+|COLLNET|NVLS)")


def unsynced_steps(workload: Workload, clock: Clock, place: Place, step_s: float, window_s: float) -> tuple[float, ...]:
    """Times of steps without gradient synchronisation [s]; none where the case has none to leave out.

    Args:
        step_s: the step time with it [s], by which all ranks agree on the number of steps.
        window_s: length of the window [s].
    """
    if not workload.synchronises:
        return ()
    enter_phase("no_sync")
    wished_s = max(UNSYNCED_MIN_S, UNSYNCED_SHARE * window_s)
    count = place.agree(min(UNSYNCED_MAX_STEPS, max(UNSYNCED_MIN_STEPS, int(wished_s / max(step_s, 1e-9)))))
    with workload.unsynchronised():
        for _ in range(UNSYNCED_WARMUP_STEPS):
            workload.step()
        clock.synchronize()
        place.align()
        stamps = [clock.stamp()]
        for _ in range(count):
            workload.step()
            stamps.append(clock.stamp())
        clock.synchronize()
    return tuple(clock.elapsed_s(a, b) for a, b in pairwise(stamps))


def gradient_all_reduce(workload: Workload, clock: Clock, place: Place, repetitions: int = 10) -> float | None:
    """Time of an all-reduce of all gradients in buckets as large as DDP's, with nothing beside it [s].

    The median over repetitions of the slowest rank's; None where a step brings nothing together.
    """
    if not workload.synchronises or place.world_size == 1:
        return None
    enter_phase("all-reduce")
    dtypes = {"none": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    dtype = dtypes[workload.case.comm_hook]
    left = sum(p.numel() for p in workload.module.parameters() if p.requires_grad)
    most = workload.case.bucket_cap_mb * 2**20 // 4
    buckets = []
    while left > 0:
        buckets.append(torch.empty(min(left, most), dtype=dtype, device=workload.device))
        left -= most
    times = []
    for _ in range(repetitions + 2):
        for bucket in buckets:
            bucket.fill_(1.0)
        clock.synchronize()
        place.align()
        begin = clock.stamp()
        for bucket in buckets:
            dist.all_reduce(bucket)
        end = clock.stamp()
        clock.synchronize()
        times.append(clock.elapsed_s(begin, end))
    slowest: list[float] = [max(column) for column in zip(*place.gather(times[2:]), strict=True)]
    return statistics.median(slowest)


@dataclass(frozen=True)
class Transport:
    """The way that messages take, the fast one that is there, and a warning when they differ."""

    used: str | None
    ways: tuple[str, ...] = ()
    links: dict[str, Any] | None = None
    warning: str | None = None


def prepare_debug(token: str) -> None:
    """Lets NCCL write a log that says which way it takes, unless the user has asked for one already."""
    if "NCCL_DEBUG" in os.environ:
        return
    folder = tempfile.gettempdir()
    os.environ.update(
        NCCL_DEBUG="INFO",
        NCCL_DEBUG_SUBSYS="INIT,GRAPH,NET,P2P,SHM",
        NCCL_DEBUG_FILE=f"{folder}/dlbench-nccl-{token}-{os.getpid()}.log",
    )


def find_transport(backend: str, device: torch.device, world_size: int, one_node: bool) -> Transport:
    """The way that `backend` takes between the ranks of this case."""
    if backend != "nccl":
        interface = os.environ.get("GLOO_SOCKET_IFNAME") if backend == "gloo" else None
        used = "sockets" if backend == "gloo" else None
        return Transport(used, links={"interface": interface} if interface else None)
    links = {"nvlink_active": nvlinks(device), "infiniband": infiniband_devices()}
    if world_size > 1 and not _own_log().name:
        return Transport(None, (), links, UNTOLD)
    return judge(nccl_ways(_take_log()), links, world_size, one_node)


def nccl_ways(log: str) -> tuple[str, ...]:
    """The ways named in an NCCL log, such as ("p2p", "infiniband"), each once."""
    found = {way for match in _VIA.finditer(log) for sign, way in _WAYS if match.group(1).startswith(sign)}
    if re.search(r"NVLS (comm|Creating|multicast support is available)", log):
        found.add("nvlink")
    return tuple(sorted(found))


def judge(ways: tuple[str, ...], links: dict[str, Any], world_size: int, one_node: bool) -> Transport:
    """Name the slowest way in use, and warn where a faster one is there."""
    if world_size == 1 or not ways:
        return Transport(None, ways, links)
    order = ("sockets", "libfabric", "infiniband", "shared_memory", "p2p", "collnet", "nvlink")
    used = next(way for way in order if way in ways)
    nvlink = bool(links.get("nvlink_active"))
    if used == "p2p" and nvlink:
        used = "nvlink"
    warning = None
    if nvlink and "shared_memory" in ways:
        warning = (
            "transport_lost: NCCL goes through shared memory although the GPUs have NVLink; let every rank see all "
            "GPUs of its node (no --gpus-per-task), and see NCCL_P2P_DISABLE and NCCL_P2P_LEVEL."
        )
    elif links.get("infiniband") and "sockets" in ways and not one_node:
        warning = (
            "transport_lost: NCCL goes through sockets although there is InfiniBand; see NCCL_IB_DISABLE, NCCL_IB_HCA, "
            "the memlock limit, and whether the container has the InfiniBand libraries."
        )
    elif one_node and "sockets" in ways:
        warning = "transport_lost: NCCL goes through sockets inside of one node; is /dev/shm large enough?"
    return Transport(used, ways, links, warning)


def infiniband_devices() -> list[str]:
    """Names of the InfiniBand devices of this node."""
    try:
        return sorted(entry.name for entry in INFINIBAND.iterdir())
    except OSError:
        return []


def nvlinks(device: torch.device) -> int | None:
    """How many NVLinks of this rank's GPU are active, by NVML; None where it does not say."""
    import pynvml

    try:
        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        count = 0
        for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
            try:
                count += bool(pynvml.nvmlDeviceGetNvLinkState(handle, link))
            except pynvml.NVMLError:
                break
        return count
    except (pynvml.NVMLError, AttributeError):
        return None


def _own_log() -> Path:
    """The log that `prepare_debug` asked for; a path without a name where the user asked for another."""
    path = Path(os.environ.get("NCCL_DEBUG_FILE", ""))
    return path if path.name.startswith("dlbench-nccl-") else Path()


def _take_log() -> str:
    path = _own_log()
    try:
        text = path.read_text(errors="replace")
        path.unlink()
    except OSError:
        return ""
    return text


def all_reduce_times(
    sizes_bytes: list[int], device: torch.device, clock: Clock, place: Place, seconds_each: float = 0.3
) -> tuple[AllReduce, ...]:
    """For each message size the times of all-reduces of fp32 sums, of each repetition that of the slowest rank.

    Args:
        sizes_bytes: multiples of 4.
        seconds_each: how long each size is repeated [s]; at least 5 and at most 200 times.
    """
    found = []
    for size in sizes_bytes:
        data = torch.empty(max(1, size // 4), device=device)
        first_s = _all_reduce(data, clock, 3)[-1]
        count = place.agree(max(5, min(200, int(seconds_each / max(first_s, 1e-6)))))
        place.align()
        own = [t for part in parts_of(count, place.world_size) for t in _all_reduce(data, clock, part)]
        times = [max(column) for column in zip(*place.gather(own), strict=True)]
        found.append(AllReduce(data.numel() * data.element_size(), tuple(times)))
    return tuple(found)


def parts_of(count: int, world_size: int) -> list[int]:
    """`count` in parts after which the data start anew: each all-reduce multiplies them by the number of ranks."""
    most = count if world_size == 1 else max(1, int(math.log(_LARGEST_SUM, world_size)))
    return [min(most, count - done) for done in range(0, count, most)]


def _all_reduce(data: torch.Tensor, clock: Clock, count: int) -> list[float]:
    data.fill_(1.0)
    clock.synchronize()
    stamps = [clock.stamp()]
    for _ in range(count):
        dist.all_reduce(data)
        stamps.append(clock.stamp())
    clock.synchronize()
    return [clock.elapsed_s(a, b) for a, b in pairwise(stamps)]


def main(arguments: list[str]) -> int:
    """Times all-reduces as FOLDER/case.json and FOLDER/sizes.json say; rank 0 writes FOLDER/allreduce.json."""
    from dlbench.worker.jobs.ceilings import where_of
    from dlbench.worker.measure import find_device
    from dlbench.worker.ranks import process_group
    from dlbench.worker.timing import CudaClock, HostClock

    folder = Path(arguments[0])
    case = Case.from_dict(json.loads((folder / "case.json").read_text()))
    sizes = json.loads((folder / "sizes.json").read_text())

    def work(case: Case, place: Place) -> Outcome:
        device = find_device(case, place)
        clock: Clock = CudaClock() if device.type == "cuda" else HostClock()
        enter_phase("all-reduce")
        measured = all_reduce_times(sizes, device, clock, place)
        backend = place.group.backend if place.group else "none"
        transport = find_transport(backend, device, place.world_size, case.nodes == 1)
        if place.rank == 0:
            ranks = (case.nodes, place.world_size, backend, transport.used)
            run = AllReduceRun(where_of(device), *ranks, measured, transport.warning)
            (folder / "allreduce.json").write_text(to_json(run))
        return Outcome("ok")

    return process_group.serve(case, folder, detect(os.environ, case.world_size), work)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
