"""The path that messages between ranks take: NCCL's log names it, NVML and sysfs name the fast paths there are."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

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


_VIA = re.compile(r"via (P2P|SHM|NET/[A-Za-z]+|COLLNET|NVLS)")


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
