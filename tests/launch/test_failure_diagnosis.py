"""Which rank failed first, by the files that ranks leave and by what launchers say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlbench.launch import failure_diagnosis

#: What each launcher says of a rank 1 (process 77) that was killed.
SAID = {
    "spawn": "spawn: rank 1 (pid 77) was killed by signal 9 (SIGKILL)",
    "mpich": "=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES\n=   PID 77 RUNNING AT vm\n=   EXIT CODE: 9",
    "openmpi": "prterun noticed that process rank 1 with PID 77 on node vm exited on\nsignal 9 (Killed).",
    "torchrun": "E1 api.py:1] failed (exitcode: -9) local_rank: 1 (pid: 77) of binary: /usr/bin/python",
    "srun": "srun: error: node02: task 1: Killed",
    "srun at a limit": "srun: error: node02: task 1: Out Of Memory",
}


def rank(folder, number, end=None, words="", pid=0):
    (folder / "ranks").mkdir(exist_ok=True)
    (folder / "ranks" / f"{number}.pid.json").write_text(json.dumps({"host": f"n{number}", "pid": pid or 76 + number}))
    text = folder / "stderr.txt" if number == 0 else folder / "ranks" / f"{number}.err"
    with text.open("a") as file:
        file.write(f"phase: window\n{words}\n")
    if end:
        values = {"phase": "window", "lost_peer": False, "at_s": 1.0, "error": "e", **end}
        (folder / "ranks" / f"{number}.end.json").write_text(json.dumps(values))


@pytest.mark.parametrize("launcher", SAID)
def test_a_killed_rank_is_told_by_what_its_launcher_says(tmp_path, launcher):
    rank(tmp_path, 0)
    rank(tmp_path, 1, words="the last thing")
    rank(tmp_path, 2)
    with (tmp_path / "stderr.txt").open("a") as file:
        file.write(SAID[launcher] + "\n")
    status, error = failure_diagnosis.diagnose_failed_case(tmp_path, 3, oom_kill=False)
    assert status == "crashed"
    assert error == "rank 1 of 3 on n1 was killed in phase 'window'; last line of stderr: the last thing"
    assert failure_diagnosis.diagnose_failed_case(tmp_path, 3, oom_kill=True)[0] == "oom"


def test_the_one_that_says_nothing_is_the_one_that_was_killed(tmp_path):
    rank(tmp_path, 0, {"status": "crashed", "error": "Connection closed by peer", "lost_peer": True})
    rank(tmp_path, 1)
    assert "rank 1 of 2" in failure_diagnosis.diagnose_failed_case(tmp_path, 2, oom_kill=False)[1]


def test_the_first_failure_counts_and_lost_connections_follow_from_it(tmp_path):
    rank(tmp_path, 0, {"status": "crashed", "lost_peer": True, "at_s": 1.0})
    rank(tmp_path, 1, {"status": "oom", "error": "8 GiB more needed", "at_s": 2.0})
    rank(tmp_path, 2, {"status": "preempted", "at_s": 3.0})
    expected = ("oom", "rank 1 of 3 on n1 in phase 'window': 8 GiB more needed")
    assert failure_diagnosis.diagnose_failed_case(tmp_path, 3, oom_kill=False) == expected


def test_a_rank_that_never_began_is_named(tmp_path):
    rank(tmp_path, 0)
    assert "rank 1 of 2 did not start" in failure_diagnosis.diagnose_failed_case(tmp_path, 2, oom_kill=False)[1]


def test_of_a_hang_the_odd_one_comes_first(tmp_path):
    for number in (0, 1, 3):
        rank(
            tmp_path, number, {"status": "preempted", "error": "stopped by SIGTERM in phase window, at a.py:1 in sync"}
        )
    rank(tmp_path, 2, {"status": "preempted", "error": "stopped by SIGTERM in phase window, at b.py:7 in forward"})
    assert failure_diagnosis.describe_where_ranks_hang(tmp_path, 4).startswith(
        "rank 2 in phase 'window' at b.py:7 in forward; rank 0, 1, 3"
    )


def test_a_failure_that_the_launcher_does_not_see_is_seen_after_a_while(tmp_path, monkeypatch):
    rank(tmp_path, 0, {"status": "crashed"})
    long_ago = time.time() - 600
    os.utime(tmp_path / "ranks" / "0.end.json", (long_ago, long_ago))
    assert not failure_diagnosis.has_rank_failed(tmp_path)  # the clock of the rank's node may be wrong
    monkeypatch.setattr(failure_diagnosis, "FAILURE_GRACE_S", 0.2)
    time.sleep(0.3)
    assert failure_diagnosis.has_rank_failed(tmp_path)


def test_what_is_left_of_an_attempt_is_ended_wherever_it_went(tmp_path):
    argv = [sys.executable, "-c", "import time; time.sleep(60)", "dlbench.worker", str(tmp_path)]
    with subprocess.Popen(argv, start_new_session=True) as left:
        _wait_for_argument(left.pid, tmp_path)
        assert failure_diagnosis.kill_leftover_processes(tmp_path) == 1
        assert left.wait(5) == -9


def test_a_process_that_only_names_the_folder_lives_on(tmp_path):
    """As `timeout 600 dlbench profile lenet5 -o FOLDER`, or an editor of a file there."""
    argv = [sys.executable, "-c", "import time; time.sleep(60)", "-o", str(tmp_path)]
    with subprocess.Popen(argv, start_new_session=True) as other:
        _wait_for_argument(other.pid, tmp_path)
        assert failure_diagnosis.kill_leftover_processes(tmp_path) == 0
        assert other.poll() is None
        other.kill()


def _wait_for_argument(pid, folder):
    while str(folder).encode() not in Path(f"/proc/{pid}/cmdline").read_bytes():
        time.sleep(0.01)
