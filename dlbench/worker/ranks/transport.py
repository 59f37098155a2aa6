"""Transport of messages between ranks: the one in use (from NCCL's log), and the available ones (NVML, sysfs)."""

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from dlbench.worker.meters.nvml import MeterUnavailable, NvmlDevice

INFINIBAND = Path("/sys/class/infiniband")

_TRANSPORT_NAMES = (
    *(("P2P", "p2p"), ("SHM", "shared_memory"), ("NET/IB", "infiniband"), ("NET/OFI", "libfabric")),
    *(("NET/Libfabric", "libfabric"), ("NET/Socket", "sockets"), ("COLLNET", "collnet"), ("NVLS", "nvlink")),
)

TRANSPORT_UNKNOWN = (
    "transport_unknown: NCCL_DEBUG was already set, so the log with NCCL's transport could not be read; unset "
    "NCCL_DEBUG."
)

_VIA_PATTERN = re.compile(r"via (P2P|SHM|NET/[A-Za-z]+|COLLNET|NVLS)")


@dataclass(frozen=True)
class Transport:
    """Transport in use, and a warning if a faster one is available."""

    used: str | None
    warning: str | None = None


def enable_nccl_log(token: str) -> None:
    """Enable an NCCL log that contains the transport, unless the user already enabled one."""
    if "NCCL_DEBUG" in os.environ:
        return
    folder = tempfile.gettempdir()
    os.environ.update(
        NCCL_DEBUG="INFO",
        NCCL_DEBUG_SUBSYS="INIT,GRAPH,NET,P2P,SHM",
        NCCL_DEBUG_FILE=f"{folder}/dlbench-nccl-{token}-{os.getpid()}.log",
    )


def find_transport(backend: str, device: torch.device, world_size: int, one_node: bool) -> Transport:
    """Find the transport of `backend` between the ranks of this case."""
    if backend != "nccl":
        return Transport("sockets" if backend == "gloo" else None)
    if world_size > 1 and not _nccl_log_path().name:
        return Transport(None, TRANSPORT_UNKNOWN)
    ways = nccl_transports(_read_and_remove_log())
    if world_size == 1 or not ways:
        return Transport(None)
    return slowest_transport(ways, has_nvlink(device), any(INFINIBAND.glob("*")), one_node)


def nccl_transports(log: str) -> tuple[str, ...]:
    """Parse the transports from an NCCL log, such as ("p2p", "infiniband"), each once."""
    found = {
        way for match in _VIA_PATTERN.finditer(log) for sign, way in _TRANSPORT_NAMES if match.group(1).startswith(sign)
    }
    if re.search(r"NVLS (comm|Creating|multicast support is available)", log):
        found.add("nvlink")
    return tuple(sorted(found))


def slowest_transport(ways: tuple[str, ...], nvlink: bool, infiniband: bool, one_node: bool) -> Transport:
    """Return the slowest transport in use, with a warning if the node has a faster one."""
    order = ("sockets", "libfabric", "infiniband", "shared_memory", "p2p", "collnet", "nvlink")
    used = next(way for way in order if way in ways)
    if used == "p2p" and nvlink:
        used = "nvlink"
    warning = None
    if nvlink and "shared_memory" in ways:
        warning = (
            "transport_lost: NCCL uses shared memory although the GPUs have NVLink; make all GPUs of the "
            "node visible to every rank (no --gpus-per-task), and check NCCL_P2P_DISABLE and NCCL_P2P_LEVEL."
        )
    elif infiniband and "sockets" in ways and not one_node:
        warning = (
            "transport_lost: NCCL uses sockets although InfiniBand is available; check NCCL_IB_DISABLE, "
            "NCCL_IB_HCA, the memlock limit, and InfiniBand libraries in the container."
        )
    elif one_node and "sockets" in ways:
        warning = "transport_lost: NCCL uses sockets within one node; check the size of /dev/shm."
    return Transport(used, warning)


def has_nvlink(device: torch.device) -> bool:
    """Whether the GPU of this rank has an active NVLink, by NVML; False if unknown."""
    try:
        return NvmlDevice(str(torch.cuda.get_device_properties(device).uuid)).has_nvlink()
    except (MeterUnavailable, AttributeError):
        return False


def _nccl_log_path() -> Path:
    """Return the log that `enable_nccl_log` enabled; an empty path if the user enabled another."""
    path = Path(os.environ.get("NCCL_DEBUG_FILE", ""))
    return path if path.name.startswith("dlbench-nccl-") else Path()


def _read_and_remove_log() -> str:
    path = _nccl_log_path()
    try:
        text = path.read_text(errors="replace")
        path.unlink()
    except OSError:
        return ""
    return text
