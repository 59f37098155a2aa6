"""Rendezvous of the ranks of a case: a store at rank 0, with an address and port known to all ranks.

Address and port come from, in this order: DLBENCH_MASTER_ADDR and DLBENCH_MASTER_PORTS (a list such as
"29500,29510-29520", of which rank 0 uses the first free port), MASTER_ADDR and MASTER_PORT, and under mpirun a
broadcast by mpi4py, where rank 0 uses any free port. DLBENCH_INTERFACE selects the network interface.
"""

import fcntl
import os
import socket
import struct
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from dlbench.errors import BadInput
from dlbench.ports import parse_ports
from dlbench.worker.ranks.context import DetectedRank

#: Default time that a rank waits for the others [s]; DLBENCH_RENDEZVOUS_S overrides it.
RENDEZVOUS_S = 60.0
#: Time after which a port without the right answer is skipped [s].
_TRY_TIMEOUT_S = 2.0
_SIOCGIFADDR = 0x8915


class RanksUnreachable(BadInput):
    """The ranks could not connect in time."""


def connect_ranks(found: DetectedRank, token: str, environ: Mapping[str, str], limit_s: float) -> tuple[Store, str]:
    """Connect to the common store of all ranks; also return "address:port".

    Args:
        token: unique to this attempt and equal on all its ranks, so that ranks of other attempts cannot join.
        limit_s: longest wait [s].

    Raises:
        RanksUnreachable: rank 0 cannot be reached, or a rank did not connect; the message has address and port.
    """
    limit_s = min(limit_s, float(environ.get("DLBENCH_RENDEZVOUS_S", RENDEZVOUS_S)))
    deadline = time.monotonic() + limit_s
    address, ports, tcp = _master_address(found, environ, limit_s)
    agent = environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if tcp is None and found.rank == 0 and not agent:
        tcp = _open_store(found, address, ports, limit_s)
        tcp.set("dlbench", token)
    elif tcp is None:
        tcp = _connect_to_master(found, address, ports, None if agent else token, deadline, limit_s)
    context = f"{address}:{tcp.port}"
    store = PrefixStore(f"dlbench/{token}", tcp)
    _wait_for_all_ranks(store, found, context, deadline, limit_s)
    return store, context


def _master_address(
    found: DetectedRank, environ: Mapping[str, str], limit_s: float
) -> tuple[str, list[int], TCPStore | None]:
    """Return the address of rank 0; under mpirun also the store, because rank 0 uses any free port there."""
    address = environ.get("DLBENCH_MASTER_ADDR") or environ.get("MASTER_ADDR")
    ports = parse_ports(environ.get("DLBENCH_MASTER_PORTS") or environ.get("MASTER_PORT", ""))
    if address and ports:
        return address, ports, None
    communicator = mpi_communicator()
    if communicator is not None:
        return _address_by_mpi(communicator, found, address, ports, environ, limit_s)
    missing = "MASTER_PORT" if address else "MASTER_ADDR"
    if found.world_size == 1:
        return "127.0.0.1", [0], None
    raise RanksUnreachable(
        f"rank {found.rank} of {found.world_size} does not know the address of rank 0: set {missing}."
    )


def mpi_communicator() -> Any | None:
    """Return mpi4py's COMM_WORLD if `python -m mpi4py` or an MPI launcher started this process; else None."""
    by_launcher = any(name in os.environ for name in ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"))
    if not by_launcher and "mpi4py.MPI" not in sys.modules:
        return None
    try:
        from mpi4py import MPI
    except ImportError:
        return None
    return MPI.COMM_WORLD


def _address_by_mpi(
    world: Any, found: DetectedRank, address: str | None, ports: list[int], environ: Mapping[str, str], limit_s: float
) -> tuple[str, list[int], TCPStore | None]:
    if world.Get_size() != found.world_size:
        raise RanksUnreachable(
            f"MPI has {world.Get_size()} ranks but {found.source} has {found.world_size}: mpi4py was built for an "
            f"MPI other than the one that started this process; install an mpi4py built for it."
        )
    tcp, answer = None, None
    names = world.allgather(socket.gethostname())
    if found.rank == 0:
        one_node = len(set(names)) == 1
        host = address or interface_address(environ.get("DLBENCH_INTERFACE")) or ("127.0.0.1" if one_node else names[0])
        try:
            tcp = _open_store(found, host, ports or [0], limit_s)
            answer = (host, tcp.port)
        except RanksUnreachable as error:
            world.bcast(str(error), root=0)
            raise
    answer = world.bcast(answer, root=0)
    if isinstance(answer, str):
        raise RanksUnreachable(answer)
    if tcp is not None:
        tcp.set("dlbench", os.environ.get("DLBENCH_TOKEN", ""))
        return answer[0], [answer[1]], tcp
    return answer[0], [answer[1]], _connect_store(answer[0], answer[1], found, limit_s)


def interface_address(interface: str | None) -> str | None:
    """The IPv4 address of a network interface, such as ib0. Raises RanksUnreachable if it has none or is missing."""
    if not interface:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            request = struct.pack("256s", interface.encode()[:15])
            return socket.inet_ntoa(fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)[20:24])
        except OSError:
            known = ", ".join(name for _, name in socket.if_nameindex())
            raise RanksUnreachable(
                f"DLBENCH_INTERFACE={interface}: interface not found or without address; interfaces: {known}."
            ) from None


def _open_store(found: DetectedRank, address: str, ports: list[int], limit_s: float) -> TCPStore:
    for port in ports:
        try:
            return TCPStore(address, port, None, True, timedelta(seconds=limit_s), wait_for_workers=False)
        except RuntimeError as error:  # DistNetworkError: port in use, or not an address of this node
            reason = str(error).splitlines()[0]
    tried = ", ".join(map(str, ports))
    raise RanksUnreachable(
        f"rank 0 of {found.world_size} cannot listen at {address}, port {tried}: {reason[:200]} Set "
        "DLBENCH_MASTER_PORTS to a list such as 29500,29510-29520, or DLBENCH_MASTER_ADDR."
    )


def _connect_to_master(
    found: DetectedRank, address: str, ports: list[int], token: str | None, deadline: float, limit_s: float
) -> TCPStore:
    """Connect to the store of rank 0, at the first port of the list with the right answer."""
    while time.monotonic() < deadline:
        for port in ports:
            if not _is_port_open(address, port):
                continue
            try:
                tcp = _connect_store(
                    address, port, found, _TRY_TIMEOUT_S if len(ports) > 1 else deadline - time.monotonic()
                )
                if token is None or tcp.get("dlbench").decode() == token:
                    tcp.set_timeout(timedelta(seconds=limit_s))
                    return tcp
            except (RuntimeError, RanksUnreachable):
                continue
        time.sleep(0.1)
    raise _unreachable_error(found, address, ports, limit_s)


def _is_port_open(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=_TRY_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _connect_store(address: str, port: int, found: DetectedRank, limit_s: float) -> TCPStore:
    try:
        return TCPStore(address, port, None, False, timedelta(seconds=max(1.0, limit_s)))
    except RuntimeError:
        raise _unreachable_error(found, address, [port], limit_s) from None


def _unreachable_error(found: DetectedRank, address: str, ports: list[int], limit_s: float) -> RanksUnreachable:
    tried = ", ".join(map(str, ports))
    return RanksUnreachable(
        f"rank {found.rank} of {found.world_size} on {socket.gethostname()} cannot reach rank 0 at {address}, port "
        f"{tried}, within {limit_s:.0f} s. Set DLBENCH_MASTER_ADDR (address of the first node) or "
        f"DLBENCH_INTERFACE; behind a firewall also DLBENCH_MASTER_PORTS (open ports)."
    )


def _wait_for_all_ranks(store: Store, found: DetectedRank, context: str, deadline: float, limit_s: float) -> None:
    names = [f"here/{rank}" for rank in range(found.world_size)]
    store.set(names[found.rank], socket.gethostname())
    try:
        store.wait(names, timedelta(seconds=max(1.0, deadline - time.monotonic())))
    except RuntimeError:
        missing = [str(rank) for rank, name in enumerate(names) if not store.check([name])]
        raise RanksUnreachable(
            f"rank {found.rank} of {found.world_size} waited {limit_s:.0f} s at {context}, but rank "
            f"{', '.join(missing) or '?'} did not connect: it ended before that, or cannot reach this address and port."
        ) from None
