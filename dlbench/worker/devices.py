"""The device of a rank, its clock, and what identifies it."""

from __future__ import annotations

import socket

import torch

from dlbench.errors import DeviceUnavailable
from dlbench.heap import keep_freed_memory
from dlbench.results.bounds_records import Where
from dlbench.suites.case import Case
from dlbench.version import __version__
from dlbench.worker.machine.system import device_facts, stack, system_key
from dlbench.worker.timing import Clock, CudaClock, HostClock


def clock_for(device: torch.device) -> Clock:
    """The clock that times steps on this device: CUDA events on a GPU, the host's clock on a CPU."""
    return CudaClock() if device.type == "cuda" else HostClock()


def find_device(case: Case, local_rank: int = 0) -> torch.device:
    """The device of this rank, made the current one; for a CPU the heap is set up as the protocol says.

    Raises:
        DeviceUnavailable: PyTorch sees no such device.
    """
    if case.device == "cpu" or (case.device == "auto" and not torch.cuda.is_available()):
        if case.protocol.heap == "keep":
            keep_freed_memory()
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        reason = "finds no usable one; check the driver and CUDA_VISIBLE_DEVICES" if built else "is built for CPUs only"
        raise DeviceUnavailable(f"device 'cuda' asked for, but PyTorch {torch.__version__} {reason}.")
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise DeviceUnavailable(f"device cuda:{local_rank} asked for, but {count} are visible on this node.")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def device_uuid(device: torch.device) -> str | None:
    """The UUID of a CUDA device as torch gives it, without NVML's prefix; None for the CPU."""
    return device_facts(device.index or 0)["uuid"] if device.type == "cuda" else None


def device_identity(device: torch.device) -> Where:
    """What tells this device and its software from others."""
    facts = stack()
    cuda = device.type == "cuda"
    return Where(
        system_key=system_key(facts, device.type),
        device_kind=device.type,
        device_name=torch.cuda.get_device_name(device) if cuda else None,
        device_uuid=device_uuid(device),
        hostname=socket.gethostname(),
        cpu_model=facts["cpu_model"],
        torch_version=facts["torch_version"],
        torch_threads=torch.get_num_threads(),
        dlbench_version=__version__,
    )
