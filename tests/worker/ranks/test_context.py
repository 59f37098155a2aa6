"""Who is who, by what launchers put into the environment; and which way NCCL takes, by what it writes."""

from __future__ import annotations

import os
import socket
import time

import pytest

from dlbench.errors import BadInput
from dlbench.launch.containers import PASSED_VARIABLES
from dlbench.results.bounds_schema import bus_bandwidth
from dlbench.results.records import Measurement, System
from dlbench.worker.ranks.context import DetectedRank, RankContext, detect_rank
from dlbench.worker.ranks.process_group import set_interfaces, straggler_warnings
from dlbench.worker.ranks.rendezvous import RanksUnreachable, connect_ranks, interface_address
from dlbench.worker.ranks.transport import nccl_transports, slowest_transport

EXPLICIT = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
MPICH = {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
SLURM = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}


@pytest.mark.parametrize(
    ("environ", "rank", "local"),
    [(EXPLICIT, 1, 1), (OPEN_MPI, 2, 0), (MPICH, 3, 1), (SLURM, 0, 0)],
    ids=["explicit", "openmpi", "mpich", "slurm"],
)
def test_each_launcher_tells_the_rank(environ, rank, local):
    found = detect_rank(environ, 4)
    assert (found.rank, found.local_rank, found.world_size) == (rank, local, 4)


def test_the_most_explicit_wins():
    assert detect_rank(SLURM | MPICH | OPEN_MPI | EXPLICIT, 4).rank == 1
    assert detect_rank(SLURM | MPICH | OPEN_MPI, 4).rank == 2
    assert detect_rank(SLURM | MPICH, 4).rank == 3


def test_the_rank_of_a_daemon_is_not_ours():
    daemon = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}
    assert detect_rank(daemon, 1) == DetectedRank(0, 0, 1, 1, "none")


def test_tasks_per_node_are_read_from_slurm():
    assert detect_rank(SLURM, 4).local_size == 2


#: Of the variables that srun sets for the last of 2 x 4 tasks, those that speak of tasks.
STEP_2X4 = {
    "SLURM_PROCID": "7", "SLURM_LOCALID": "3", "SLURM_NODEID": "1", "SLURM_NTASKS": "8", "SLURM_NPROCS": "8",
    "SLURM_JOB_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_NTASKS_PER_NODE": "4", "SLURM_TASKS_PER_NODE": "4(x2)",
}  # fmt: skip


def inside_a_container(environ):
    return {name: value for name, value in environ.items() if name in PASSED_VARIABLES}


@pytest.mark.parametrize("more", [{}, {"PMIX_RANK": "7"}], ids=["slurm", "pmix"])
def test_a_step_of_two_nodes_knows_its_node_by_the_variables_that_go_into_a_container_alone(more):
    found = detect_rank(inside_a_container(STEP_2X4) | more, 8)
    assert (found.rank, found.local_rank, found.world_size, found.local_size) == (7, 3, 8, 4)


def interfaces(monkeypatch, found, master="n1:20170", **environ):
    for name in ("DLBENCH_INTERFACE", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        # Set first, so that what the function sets is taken back.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    set_interfaces(master, found)
    return os.environ.get("GLOO_SOCKET_IFNAME"), os.environ.get("NCCL_SOCKET_IFNAME")


def test_gloo_takes_the_loopback_only_where_all_ranks_are_known_to_be_on_this_node(monkeypatch):
    step = inside_a_container(STEP_2X4)
    assert interfaces(monkeypatch, detect_rank(step, 8)) == (None, None)
    assert interfaces(monkeypatch, detect_rank(step | {"SLURM_STEP_TASKS_PER_NODE": "8"}, 8)) == ("lo", None)
    unknown = detect_rank({name: value for name, value in step.items() if "PER_NODE" not in name}, 8)
    assert unknown.local_size is None
    assert interfaces(monkeypatch, unknown) == (None, None)
    assert interfaces(monkeypatch, unknown, master="127.0.0.1:20170") == ("lo", None)


def test_the_interface_that_a_person_names_goes_first(monkeypatch):
    step = detect_rank(inside_a_container(STEP_2X4), 8)
    assert interfaces(monkeypatch, step, DLBENCH_INTERFACE="ib0") == ("ib0", "ib0")


def test_every_rank_believing_to_be_alone_stops_the_case():
    with pytest.raises(BadInput, match="needs 4 ranks, but the environment has only one"):
        detect_rank({}, 4)


def test_another_number_of_ranks_stops_the_case():
    with pytest.raises(
        BadInput, match="needs 2 ranks, but according to RANK and WORLD_SIZE, this process is rank 1 of 4"
    ):
        detect_rank(EXPLICIT, 2)


def test_a_single_place_agrees_with_itself():
    context = RankContext()
    context.barrier()
    assert context.broadcast("x") == "x"
    assert context.all_gather("x") == ["x"]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_master_that_cannot_be_reached_is_named_with_its_port():
    port = closed_port()
    began = time.monotonic()
    with pytest.raises(
        RanksUnreachable, match=f"rank 1 of 2 on .* cannot reach rank 0 at 127.0.0.1, port {port}, within 1 s"
    ):
        connect_ranks(DetectedRank(1, 1, 2, 2, "x"), "t", {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}, 1.0)
    assert time.monotonic() - began < 10


def test_a_rank_that_does_not_come_is_named():
    environ = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(closed_port())}
    with pytest.raises(RanksUnreachable, match="but rank 1 did not connect"):
        connect_ranks(DetectedRank(0, 0, 2, 2, "x"), "t", environ, 1.0)


def test_rank_0_takes_the_first_free_port_of_the_list():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free = closed_port()
        environ = {"MASTER_ADDR": "127.0.0.1", "DLBENCH_MASTER_PORTS": f"{taken.getsockname()[1]},{free}"}
        _, context = connect_ranks(DetectedRank(0, 0, 1, 1, "x"), "t", environ, 5.0)
    assert context == f"127.0.0.1:{free}"


def test_an_interface_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(
        RanksUnreachable, match=r"DLBENCH_INTERFACE=ib77: interface not found or without address; interfaces: .*lo"
    ):
        interface_address("ib77")
    assert interface_address("lo") == "127.0.0.1"


def test_switches_that_are_not_there_are_no_way():
    log = "node:1:1 [0] NCCL INFO NVLS multicast support is {}available on dev 0\n"
    assert nccl_transports(log.format("not ")) == ()
    assert nccl_transports(log.format("")) == ("nvlink",)


NCCL_LOG = "node:1:1 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via {way}\n"


@pytest.mark.parametrize(
    ("way", "links", "one_node", "used", "warned"),
    [
        ("P2P/CUMEM", (True, False), True, "nvlink", False),
        ("P2P/IPC", (False, False), True, "p2p", False),
        ("SHM/direct/direct", (True, False), True, "shared_memory", True),
        ("SHM/direct/direct", (False, False), True, "shared_memory", False),
        ("NET/IB/0/GDRDMA", (False, True), False, "infiniband", False),
        ("NET/Socket/0", (False, True), False, "sockets", True),
        ("NET/Socket/0", (False, False), False, "sockets", False),
    ],
)
def test_the_way_that_nccl_takes_and_the_loss_of_a_faster_one(way, links, one_node, used, warned):
    found = slowest_transport(nccl_transports(NCCL_LOG.format(way=way)), *links, one_node)
    assert found.used == used
    assert (found.warning is not None) == warned


def test_bus_bandwidth_is_that_of_nccl_tests():
    assert bus_bandwidth(8, 1.0, 2) == 8
    assert bus_bandwidth(8, 1.0, 8) == pytest.approx(14)


def test_a_straggler_is_named():
    ranks = [
        (System(hostname=f"n{i}"), Measurement(rank=i, step_s=(t, t, t))) for i, t in enumerate((1.0, 1.0, 1.2, 1.0))
    ]
    (warning,) = straggler_warnings(ranks)
    assert warning.startswith("straggler: rank 2 on n2 needs 20% more time")
