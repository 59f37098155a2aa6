"""Two Gloo ranks of a real case under each launcher, and every way in which one of them can fail."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlbench.errors import BadInput
from dlbench.launch import launchers, supervise
from dlbench.suites.case import Case
from dlbench.worker.ranks import process_group
from dlbench.worker.ranks.context import RankContext
from tests.worker.conftest import NETWORKS, TINY

QUICK = dataclasses.replace(TINY, idle_time_s=0.05, timeout_s=120.0)
LONG = dataclasses.replace(QUICK, min_time_s=60.0, max_time_s=60.0)
TWO = Case("lenet5", batch_size=4, devices_per_node=2, protocol=QUICK)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(NETWORKS), str(root), os.environ.get("PYTHONPATH", "")]))


def launcher_named(name):
    try:
        return launchers.find_launcher(name)
    except BadInput as error:
        pytest.skip(str(error))


def run(root, cases, name="local", **more):
    campaign = supervise.Campaign(root, "s", 1, "sys", launcher=launcher_named(name), **more)
    return list(supervise.run_cases(cases, campaign))


def assert_nothing_is_left(root):
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert os.fsencode(str(root)) not in entry.read_bytes(), entry
        except OSError:
            continue


@pytest.mark.parametrize("name", ["local", "torchrun", "mpirun"])
def test_two_ranks_are_measured_under_each_launcher(tmp_path, name):
    (record,) = run(tmp_path, [TWO], name)
    assert record.status in ("ok", "unstable"), record.error
    assert [m.rank for _, m in record.ranks] == [0, 1]
    assert [m.local_rank for _, m in record.ranks] == [0, 1]
    for system, found in record.ranks:
        assert found.world_size == 2
        assert (found.communicator, found.transport) == ("gloo", "sockets")
        assert len(found.step_s) == len(record.ranks[0][1].step_s) >= QUICK.min_steps
        assert len(found.unsynced_step_s) >= 10
        assert found.gradient_allreduce_s > 0
        assert found.forward_flop == 2 * 416_520
        assert system.torch_threads == 1
        assert system.details["binding"]["cpu_affinity"]
    assert_nothing_is_left(tmp_path)


def test_gradients_of_a_distributed_step_are_those_of_the_joint_batch(tmp_path):
    script = [sys.executable, "-m", "tests.worker.distributed_gradients", str(tmp_path)]
    argv = [sys.executable, "-m", "dlbench.launch.spawn", "2", "--", *script]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def kill_a_rank(root, name, *more):
    """Records of a case of two ranks, of which rank 1 is killed in its window, and of the cases after it."""
    killed_at, ended_at = [], []

    def kill(case, elapsed_s, phase):
        if phase == "window" and not killed_at:
            pid = json.loads(next(root.glob("attempts/*/ranks/1.pid.json")).read_text())["pid"]
            os.kill(pid, signal.SIGKILL)
            killed_at.append(time.monotonic())

    cases = [dataclasses.replace(TWO, protocol=LONG), *more]
    first, *rest = run(root, cases, name, on_tick=kill, on_record=lambda record: ended_at.append(time.monotonic()))
    assert first.status == "crashed"
    assert "rank 1 of 2" in first.error
    assert "killed in phase 'window'" in first.error
    assert ended_at[0] - killed_at[0] < 30
    assert_nothing_is_left(root)
    return rest


def test_a_killed_rank_is_named_and_the_next_case_runs(tmp_path):
    (second,) = kill_a_rank(tmp_path, "local", Case("lenet5", batch_size=4, protocol=QUICK))
    assert second.status in ("ok", "unstable")


@pytest.mark.parametrize("name", ["torchrun", "mpirun"])
def test_a_killed_rank_is_named_under_other_launchers_and_no_process_is_left(tmp_path, name):
    assert kill_a_rank(tmp_path, name) == []


def test_a_rank_that_hangs_ends_the_case_at_its_time_limit_with_its_name(tmp_path):
    hanging = dataclasses.replace(TWO, model="odd_ranks:hanging", protocol=dataclasses.replace(QUICK, timeout_s=20.0))
    (record,) = run(tmp_path, [hanging])
    assert record.status == "timeout"
    assert "rank 1 in phase 'warmup' at odd_ranks.py" in record.error
    assert record.wall_s < 40
    assert_nothing_is_left(tmp_path)


def test_a_rank_out_of_memory_is_named(tmp_path):
    (record,) = run(tmp_path, [dataclasses.replace(TWO, model="odd_ranks:out_of_memory")])
    assert record.status == "oom"
    assert "rank 1 of 2" in record.error
    assert "4.00 PiB more needed" in record.error


def test_outputs_of_one_rank_that_are_not_finite_make_the_case_invalid(tmp_path):
    (record,) = run(tmp_path, [dataclasses.replace(TWO, model="odd_ranks:nan_outputs", mode="inference")])
    assert record.status == "invalid"
    assert "rank 1 of 2" in record.error
    assert "outputs are not finite after the first step" in record.error


def test_a_case_that_gets_too_few_ranks_is_stopped_with_the_reason(tmp_path):
    def alone(case, folder):
        return [sys.executable, "-m", "dlbench.worker", str(folder)]

    (record,) = supervise.run_cases([TWO], supervise.Campaign(tmp_path, "s", 1, "sys", launcher=alone))
    assert record.status == "crashed"
    assert "the case needs 2 ranks, but the environment has only one" in record.error


@pytest.mark.parametrize(
    ("asked", "torchrun", "threads"), [(None, False, 4), ("3", False, 3), ("2,1", False, 2), ("1", True, 4)]
)
def test_ranks_share_the_cores_that_they_had_before_torch_was_imported(monkeypatch, asked, torchrun, threads):
    class Two:
        backend = "gloo"

        def all_gather(self, value):
            return [value, value]

    given = []
    monkeypatch.setattr(process_group, "allowed_cores", lambda: frozenset(range(8)))
    monkeypatch.setattr(process_group.torch, "set_num_threads", given.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    if torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert process_group.set_threads_per_rank(RankContext(0, 0, 2, Two())) == threads
    assert given == [threads]
