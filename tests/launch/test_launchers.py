"""The argv of every launcher, word by word, and the spawner's ranks."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlbench.errors import BadInput, UnknownName
from dlbench.launch import launchers, spawn
from dlbench.launch.launchers import LauncherOptions
from dlbench.launch.probe import probe_machine
from dlbench.suites.case import Case
from dlbench.suites.suite import load_suite

FOLDER = Path("/r/attempts/a1")
OPTIONS = LauncherOptions(python="py", mpirun="/opt/mpirun", address="node01", port=29500)
ONE = Case("lenet5")
FOUR = Case("lenet5", devices_per_node=4)
EIGHT = Case("lenet5", nodes=2, devices_per_node=4)
WORKER = ["-m", "dlbench.worker", "/r/attempts/a1"]
TORCHRUN = ["py", "-m", "torch.distributed.run"]
STEP = ["srun", "--kill-on-bad-exit=1", "--wait=60"]

GOLDEN = {
    ("local", 1): ["py", *WORKER],
    ("local", 4): ["py", "-m", "dlbench.launch.spawn", "4", "--", "py", *WORKER],
    ("torchrun", 1): [*TORCHRUN, "--standalone", "--nnodes=1", "--nproc-per-node=1", "--max-restarts=0", *WORKER],
    ("torchrun", 4): [*TORCHRUN, "--standalone", "--nnodes=1", "--nproc-per-node=4", "--max-restarts=0", *WORKER],
    ("torchrun", 8): [
        *(*STEP, "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", *TORCHRUN, "--rdzv-backend=c10d"),
        *("--rdzv-endpoint=node01:29500", "--rdzv-id=a1", "--nnodes=2", "--nproc-per-node=4", "--max-restarts=0"),
        *WORKER,
    ],
    ("mpirun", 8): ["/opt/mpirun", "-n", "8", "-ppn", "4", "py", "-m", "mpi4py", *WORKER],
    ("srun", 8): [*STEP, "--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--job-name=a1", "py", *WORKER],
}


@pytest.mark.parametrize(("name", "ranks"), GOLDEN)
def test_the_argv_of_a_launcher(name, ranks):
    case = {1: ONE, 4: FOUR, 8: EIGHT}[ranks]
    assert launchers.LAUNCHERS[name](case, FOLDER, OPTIONS) == GOLDEN[name, ranks]


def test_what_may_bind_ranks_to_cores_is_asked_what_a_rank_sees():
    cores = dataclasses.replace(OPTIONS, cpus_per_task=8, cpus_on_node=32)

    def asked(name):
        start = launchers.LAUNCHERS[name]
        return launchers.rank_probe_argv(name, lambda case, folder: start(case, folder, cores), ["lenet5"])

    probe = ["-m", "dlbench.worker", "--probe", "lenet5"]
    step = ["--nodes=1", "--ntasks=1", "--cpus-per-task=8", "--ntasks-per-node=1", "--job-name=probe"]
    assert asked("srun") == [*STEP, *step, "py", *probe]
    assert asked("mpirun") == ["/opt/mpirun", "-n", "1", "-ppn", "1", "py", "-m", "mpi4py", *probe]
    assert asked("local") == asked("torchrun") == []


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_step_that_is_bound_to_a_core_is_another_system_than_the_shell_that_starts_it(tmp_path, monkeypatch):
    core = min(os.sched_getaffinity(0))
    bound = f'#!/bin/sh\nwhile [ "${{1#--}}" != "$1" ]; do shift; done\nexec taskset -c {core} "$@"\n'
    (tmp_path / "srun").write_text(bound)
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    inside = probe_machine(argv=launchers.rank_probe_argv("srun", launchers.find_launcher("srun", {})))
    assert (inside.facts["cpu_threads"], inside.facts["job_threads"]) == (1, 1)
    assert inside.system_keys["cpu"] != probe_machine().system_keys["cpu"]


def test_srun_gives_each_rank_the_cores_of_the_jobs_tasks_as_far_as_they_go():
    roomy = dataclasses.replace(OPTIONS, cpus_per_task=8, cpus_on_node=32)
    assert "--cpus-per-task=8" in launchers.srun_command(EIGHT, FOLDER, roomy)
    assert "--cpus-per-task=32" in launchers.torchrun_command(EIGHT, FOLDER, roomy)
    narrow = dataclasses.replace(OPTIONS, cpus_per_task=32, cpus_on_node=32)
    assert "--cpus-per-task=8" in launchers.srun_command(FOUR, FOLDER, narrow)
    assert "--cpus-per-task=32" in launchers.srun_command(ONE, FOLDER, narrow)
    tight = dataclasses.replace(OPTIONS, cpus_per_task=1, cpus_on_node=2)
    assert not any(word.startswith("--cpus-per-task") for word in launchers.srun_command(FOUR, FOLDER, tight))


def test_open_mpi_is_told_that_root_and_more_ranks_than_cores_are_meant():
    options = LauncherOptions(python="py", mpirun="mpirun", mpi="openmpi", as_root=True)
    argv = launchers.mpirun_command(FOUR, FOLDER, options)
    assert argv[:4] == ["mpirun", "-n", "4", "--allow-run-as-root"]
    assert "ppr:4:node:oversubscribe" in argv
    assert "--allow-run-as-root" not in launchers.mpirun_command(FOUR, FOLDER, LauncherOptions(mpi="openmpi"))


def test_whose_mpirun_it_is_shows_in_its_version():
    assert launchers.mpi_implementation("mpirun (Open MPI) 5.0.8") == "openmpi"
    assert launchers.mpi_implementation("HYDRA build details:\n    Version: 5.0.2") == "mpich"


def test_local_refuses_several_nodes():
    with pytest.raises(BadInput, match="only on this machine, but a case needs 2 nodes"):
        launchers.check_launcher(launchers.find_launcher("local", {}), [ONE, EIGHT])


def test_more_ranks_than_a_node_can_have_are_refused_before_they_start():
    with pytest.raises(BadInput, match="devices_per_node is 999999999; at most 1024 are possible"):
        launchers.check_launcher(launchers.find_launcher("local"), [Case("lenet5", devices_per_node=999_999_999)])


def test_torchrun_on_several_nodes_must_know_where_they_meet():
    with pytest.raises(BadInput, match="set MASTER_ADDR"):
        launchers.torchrun_command(EIGHT, FOLDER, LauncherOptions())


def test_an_unknown_launcher_is_named():
    with pytest.raises(UnknownName, match="did you mean 'torchrun'"):
        launchers.find_launcher("torchrum", {})


def test_a_program_that_is_missing_is_said_before_the_first_case(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BadInput, match="program 'srun' was not found"):
        launchers.find_launcher("srun", {})


def spawned(count: int, code: str, **more: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "dlbench.launch.spawn", str(count), "--", sys.executable, "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, **more)


def test_each_spawned_rank_knows_who_it_is():
    code = "import os; os.write(1, (' '.join(os.environ[n] for n in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR')) + '\\n').encode())"
    done = spawned(3, code)
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == [f"{rank} {rank} 3 127.0.0.1" for rank in range(3)]


def test_when_one_rank_dies_the_others_are_ended_and_it_is_named():
    code = "import os, time; os.kill(os.getpid(), 9) if os.environ['RANK'] == '1' else time.sleep(60)"
    began = time.monotonic()
    done = spawned(3, code)
    assert time.monotonic() - began < 15
    assert done.returncode == 128 + signal.SIGKILL
    assert "rank 1" in done.stderr
    assert "killed by signal 9 (SIGKILL)" in done.stderr


def test_a_list_of_ports_is_used_in_its_order(monkeypatch):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        free = port + 1 if port < 65_000 else port - 1
        assert spawn.free_port({"DLBENCH_MASTER_PORTS": f"{port},{free}"}) in (free,)
        with pytest.raises(BadInput, match="no free port"):
            spawn.free_port({"DLBENCH_MASTER_PORTS": str(port)})


SUITE = '[axes]\nmodel = "lenet5"\ndevices_per_node = [1, 2, 4]\nglobal_batch = [{batch}]\n'


def test_a_global_batch_is_divided_over_the_devices(tmp_path):
    (tmp_path / "s.toml").write_text(SUITE.format(batch=8))
    cases = load_suite(tmp_path / "s.toml").cases("cpu")
    assert [(c.devices_per_node, c.batch_size) for c in cases] == [(1, 8), (2, 4), (4, 2)]


def test_a_global_batch_that_does_not_divide_is_refused(tmp_path):
    (tmp_path / "s.toml").write_text(SUITE.format(batch=6))
    with pytest.raises(BadInput, match="6 is not divisible by 4 devices; use 4 or 8"):
        load_suite(tmp_path / "s.toml").cases("cpu")


def test_ways_to_synchronise_make_no_cases_of_a_single_device(tmp_path):
    text = '[axes]\nmodel = "lenet5"\ndevices_per_node = [1, 2]\nbucket_cap_mb = [1, 25]\n'
    (tmp_path / "s.toml").write_text(text)
    assert len(load_suite(tmp_path / "s.toml").cases("cpu")) == 3


@pytest.mark.parametrize("name", ["scaling_weak", "scaling_strong"])
def test_the_scaling_suites_plan(name):
    assert {c.world_size for c in load_suite(name).cases("cpu")} == {1, 2, 3, 4}
