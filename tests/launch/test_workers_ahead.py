"""Workers started ahead measure like others: their import disturbs no measurement, and none of them stays."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from dlbench.launch import processes, supervise, workers_ahead
from dlbench.suites import worker_request as requests
from dlbench.suites.case import Case, Protocol
from tests.fakes.workers import script

SHORT = Protocol(min_time_s=0.05, max_time_s=0.1, warmup_min_time_s=0.02, warmup_max_time_s=0.05, idle_time_s=0.0)
CASES = [Case("lenet5", mode="inference", protocol=SHORT, repeat=number) for number in range(3)]


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})


def campaign(root, **more):
    waiting = list(CASES)

    def upcoming():
        waiting.pop(0)
        return list(waiting)

    return supervise.Campaign(root, "s", 1, "sys", **({"upcoming": upcoming} | more))


def waiting_workers():
    """Ids of the processes that were started ahead."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"--ahead" in words and b"dlbench.worker" in words:
                found.append(int(entry.name))
    return found


def wait_until(condition, time_s=60.0):
    ends_s = time.monotonic() + time_s
    while not condition():
        assert time.monotonic() < ends_s
        time.sleep(0.05)


def test_three_processes_import_together_and_measure_one_after_the_other(tmp_path):
    together = []
    running = supervise.run_cases(
        CASES, campaign(tmp_path, on_record=lambda record: together.append(waiting_workers()))
    )
    records = list(running)
    assert [record.status in ("ok", "unstable") for record in records] == [True] * 3
    assert [len(pids) for pids in together] == [2, 1, 0]
    assert set(together[1]) < set(together[0])
    assert records[1].wall_s < records[0].wall_s  # it had already imported PyTorch
    assert all(measured.import_s > 0.3 for record in records for _, measured in record.ranks)
    attempts = sorted((tmp_path / "attempts").iterdir())
    assert len(attempts) == 3
    assert all((folder / "stderr.txt").read_text().startswith("phase: import\n") for folder in attempts)
    assert all((folder / "stdout.txt").read_text() == "" for folder in attempts)


def test_the_first_worker_waits_until_the_last_one_has_imported(tmp_path):
    requests.write_request(tmp_path, requests.measure_request(CASES[0]))
    read_end, write_end = os.pipe()  # this process holds the write end open, like a worker that still imports
    argv = [sys.executable, "-m", "dlbench.worker", "--ahead", str(read_end), str(write_end), "lenet5"]
    process = processes.start_worker(argv, tmp_path, {}, (read_end, write_end))
    try:
        process.stdin.write(os.fsencode(tmp_path))
        process.stdin.close()
        time.sleep(6.0)  # the import takes two seconds
        assert (tmp_path / "stderr.txt").read_text() == "phase: import\n"
        os.close(write_end)
        assert process.wait(60) == 0
        assert (tmp_path / "result.json").exists()
    finally:
        processes.stop_worker(process)
        os.close(read_end)


def test_a_worker_without_a_case_ends_and_so_does_one_whose_supervisor_was_killed(tmp_path):
    body = (
        "import sys, time; from pathlib import Path; from dlbench.launch import workers_ahead\n"
        "from dlbench.launch.launchers import local_command; from tests.launch.test_workers_ahead import CASES\n"
        "workers_ahead.os.sched_getaffinity = lambda pid: {0, 1}\n"
        "root = Path(sys.argv[1]); (root / 'attempts').mkdir(); (root / 'one').mkdir()\n"
        "ahead = workers_ahead.WorkersAhead(root, {}, lambda case: None)\n"
        "ahead.start(local_command(CASES[0], root / 'one'), CASES[0], root / 'one', CASES[1:])\n"
        "print('started', flush=True); sys.stdin.read(); ahead.stop(); print('stopped', flush=True); time.sleep(60)\n"
    )
    for end in ("stop", "kill"):
        root = tmp_path / end
        root.mkdir()
        with subprocess.Popen(
            [sys.executable, "-c", body, root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "started\n"
            before = waiting_workers()
            assert len(before) == 3
            if end == "stop":
                process.stdin.close()
                assert process.stdout.readline() == "stopped\n"
                assert len(waiting_workers()) <= 1  # that of the first case, which was to begin
                assert list((root / "attempts").iterdir()) == []
            process.kill()
            wait_until(lambda: not waiting_workers())


def test_a_waiting_worker_that_died_is_replaced(tmp_path):
    killed = []

    def kill_waiting(record):
        for pid in () if killed else waiting_workers():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # its pipe is closed now

    records = list(supervise.run_cases(CASES, campaign(tmp_path, on_record=kill_waiting)))
    assert len(killed) == 2
    assert [record.status in ("ok", "unstable") for record in records] == [True] * 3


def test_processes_that_a_network_leaves_behind_are_killed(tmp_path, monkeypatch):
    (tmp_path / "leaves.py").write_text(
        "import subprocess\nfrom torch import nn\nclass Network(nn.Module):\n    input_shape = (3, 8, 8)\n"
        "    def __init__(self):\n        super().__init__()\n        self.fc = nn.Linear(192, 10)\n"
        "        self.child = subprocess.Popen(['sleep', '987.5'], start_new_session=True).pid\n"
        "    def forward(self, x):\n        return self.fc(x.flatten(1))\n"
    )
    monkeypatch.chdir(tmp_path)
    cases = [dataclasses.replace(case, model="leaves:Network") for case in CASES[:2]]
    (tmp_path / "results").mkdir()
    found = campaign(tmp_path / "results", upcoming=lambda: cases[1:])
    records = list(supervise.run_cases(cases, found))
    assert [record.status in ("ok", "unstable") for record in records] == [True] * 2, records
    assert b"sleep\x00987.5\x00" not in [
        entry.read_bytes() for entry in Path("/proc").glob("[0-9]*/cmdline") if entry.exists()
    ]


@pytest.mark.parametrize(
    ("why", "more", "cores"),
    [
        ("nothing is planned", {"upcoming": lambda: ()}, 2),
        ("several ranks come next", {"upcoming": lambda: [Case("lenet5", devices_per_node=2)]}, 2),
        ("there is one core", {"upcoming": lambda: CASES}, 1),
        ("the launcher is not local", {"upcoming": lambda: CASES, "launcher": script("write_good()")}, 2),
    ],
)
def test_no_worker_is_started_ahead_if(tmp_path, monkeypatch, why, more, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.setattr(
        workers_ahead.processes,
        "start_worker",
        lambda argv, folder, environment, pipe=(), start=processes.start_worker: (
            pytest.fail(why) if pipe else start(argv, folder, environment)
        ),
    )
    (record,) = supervise.run_cases(CASES[:1], campaign(tmp_path, **more))
    assert record.status in ("ok", "unstable")
