"""Transport of messages between ranks: the one in use (from NCCL's log), and the available ones (NVML, sysfs)."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

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
    """Transport in use, fastest available transport, and a warning if they differ."""

    used: str | None
    ways: tuple[str, ...] = ()
    links: dict[str, Any] | None = None
    warning: str | None = None


def prepare_debug(token: str) -> None:
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
        interface = os.environ.get("GLOO_SOCKET_IFNAME") if backend == "gloo" else None
        used = "sockets" if backend == "gloo" else None
        return Transport(used, links={"interface": interface} if interface else None)
    links = {"nvlink_active": count_nvlinks(device), "infiniband": infiniband_devices()}
    if world_size > 1 and not _log_path().name:
        return Transport(None, (), links, TRANSPORT_UNKNOWN)
    return slowest_transport(nccl_transports(_read_and_remove_log()), links, world_size, one_node)


def nccl_transports(log: str) -> tuple[str, ...]:
    """Parse the transports from an NCCL log, such as ("p2p", "infiniband"), each once."""
    found = {
        way for match in _VIA_PATTERN.finditer(log) for sign, way in _TRANSPORT_NAMES if match.group(1).startswith(sign)
    }
    if re.search(r"NVLS (comm|Creating|multicast support is available)", log):
        found.add("nvlink")
    return tuple(sorted(found))


def slowest_transport(ways: tuple[str, ...], links: dict[str, Any], world_size: int, one_node: bool) -> Transport:
    """Return the slowest transport in use, with a warning if a faster one is available."""
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
            "transport_lost: NCCL uses shared memory although the GPUs have NVLink; make all GPUs of the "
            "node visible to every rank (no --gpus-per-task), and check NCCL_P2P_DISABLE and NCCL_P2P_LEVEL."
        )
    elif links.get("infiniband") and "sockets" in ways and not one_node:
        warning = (
            "transport_lost: NCCL uses sockets although InfiniBand is available; check NCCL_IB_DISABLE, "
            "NCCL_IB_HCA, the memlock limit, and InfiniBand libraries in the container."
        )
    elif one_node and "sockets" in ways:
        warning = "transport_lost: NCCL uses sockets within one node; check the size of /dev/shm."
    return Transport(used, ways, links, warning)


def infiniband_devices() -> list[str]:
    """Return the names of the InfiniBand devices of this node."""
    try:
        return sorted(entry.name for entry in INFINIBAND.iterdir())
    except OSError:
        return []


def count_nvlinks(device: torch.device) -> int | None:
    """Count the active NVLinks of this rank's GPU, by NVML; None if unknown."""
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


def _log_path() -> Path:
    """Return the log that `prepare_debug` enabled; an empty path if the user enabled another."""
    path = Path(os.environ.get("NCCL_DEBUG_FILE", ""))
    return path if path.name.startswith("dlbench-nccl-") else Path()


def _read_and_remove_log() -> str:
    path = _log_path()
    try:
        text = path.read_text(errors="replace")
        path.unlink()
    except OSError:
        return ""
    return text
