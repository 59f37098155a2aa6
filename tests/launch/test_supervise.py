import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from dlbench.errors import StoreError
from dlbench.launch import attempts, claims, processes, results_folder, supervise, worker_process
from dlbench.suites.case import Case, Protocol
from tests.fakes.workers import script

CASES = [Case("lenet5", batch_size=n, protocol=Protocol(timeout_s=20)) for n in (1, 2)]


def campaign(root, body, **more):
    return supervise.Campaign(root, "s", 1, "sys", launcher=script(body), **more)


def run_one(root, body, case=CASES[0]):
    (record,) = supervise.run_cases([case], campaign(root, body))
    return record


def test_a_good_worker_becomes_an_ok_record_with_its_samples(tmp_path):
    record = run_one(tmp_path, "write_good()")
    assert record.status == "ok"
    assert record.exit_code == 0
    assert record.ranks[0][1].step_s == (0.010, 0.011, 0.012)
    assert record.wall_s > 0


def test_a_crashed_worker_becomes_a_record_not_an_exception(tmp_path):
    record = run_one(tmp_path, "print('phase: warmup', file=sys.stderr); raise ValueError('the reason')")
    assert record.status == "crashed"
    assert "exit status 1" in record.error
    assert "phase 'warmup'" in record.error
    assert "ValueError: the reason" in record.error


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_worker_ended_by_a_signal_is_crashed_and_the_signal_named(tmp_path, number):
    record = run_one(tmp_path, f"os.kill(os.getpid(), {int(number)})")
    assert record.status == "crashed"
    assert signal.Signals(number).name in record.error
    assert record.exit_code == -number


@pytest.mark.parametrize(
    ("end", "exit_code", "how"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV, "killed by signal 11 (SIGSEGV)"),
        ("os._exit(7)", 7, "ended with exit status 7"),
        ("import atexit; atexit.register(lambda: os._exit(5))", 5, "ended with exit status 5"),
        ("raise RuntimeError", 1, "ended with exit status 1"),
        ("import threading; threading.Thread(target=time.sleep, args=(1e6,)).start()", -signal.SIGTERM, "(SIGTERM)"),
    ],
)
def test_a_complete_result_counts_whatever_becomes_of_the_process_afterwards(
    tmp_path, monkeypatch, end, exit_code, how
):
    monkeypatch.setattr(worker_process, "RESULT_GRACE_S", 0.5)
    record = run_one(tmp_path, f"write_good(); {end}")
    assert (record.status, record.exit_code) == ("ok", exit_code)
    assert record.ranks[0][1].step_s == (0.010, 0.011, 0.012)
    assert record.error.startswith("the measurement is complete, but the process failed afterwards: worker ")
    assert how in record.error
    # It is not measured again.
    assert list(supervise.run_cases(CASES[:1], campaign(tmp_path, "write_good()"))) == []


def test_a_complete_result_counts_at_the_time_limit_and_after_a_signal(tmp_path, monkeypatch):
    case = Case("lenet5", protocol=Protocol(timeout_s=1.0))
    assert run_one(tmp_path, "write_good(); time.sleep(100)", case).status == "ok"


#: What srun and slurmstepd print when a task has been ended at the limit of its step's memory.
SLURM_OOM = [
    "slurmstepd: error: Detected 1 oom_kill event in StepId=5.0. Some of the step tasks have been OOM Killed.",
    "slurmstepd-n2: error: Detected 1 oom-kill event(s) in StepId=2.2. Some of your processes may have been killed "
    "by the cgroup out-of-memory handler.",
    "srun: error: n4: task 0: Out Of Memory",
]


@pytest.mark.parametrize("line", SLURM_OOM)
def test_a_step_that_slurm_ended_for_want_of_memory_is_oom_with_the_worker_s_last_words(tmp_path, line):
    body = f"for text in ('phase: warmup', 'my last words', {line!r}): print(text, file=sys.stderr)\nsys.exit(137)"
    record = run_one(tmp_path, body)
    assert (record.status, record.exit_code) == ("oom", 137)
    assert (
        record.error
        == "killed by the kernel's out-of-memory killer in phase 'warmup'; last line of stderr: my last words"
    )


def test_a_worker_that_only_speaks_of_memory_is_not_taken_for_one_that_slurm_ended(tmp_path):
    assert run_one(tmp_path, "sys.exit('I was not OOM Killed; srun is Out Of Memory')").status == "crashed"


def test_exit_status_0_without_a_result_is_crashed(tmp_path):
    assert run_one(tmp_path, "pass").status == "crashed"


def test_half_a_result_is_no_result(tmp_path):
    assert run_one(tmp_path, "(folder / 'result.json').write_text(good[:200])").status == "crashed"


def test_a_worker_that_hangs_is_ended_with_its_children_and_recorded_as_timeout(tmp_path):
    case = Case("lenet5", protocol=Protocol(timeout_s=1.0))
    body = """
        import subprocess
        child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])
        (folder / 'child').write_text(str(child.pid))
        print('phase: window', file=sys.stderr, flush=True)
        time.sleep(100)
    """
    began = time.monotonic()
    record = run_one(tmp_path, textwrap.dedent(body), case)
    assert record.status == "timeout"
    assert "within 1 s in phase 'window'" in record.error
    assert time.monotonic() - began < 15
    child = int(next(attempts.attempts_folder(tmp_path).glob("*/child")).read_text())
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]


def test_a_worker_that_ignores_the_request_to_stop_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE_S", 0.5)
    case = Case("lenet5", protocol=Protocol(timeout_s=0.5))
    record = run_one(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100)", case)
    assert record.status == "timeout"
    assert record.exit_code == -signal.SIGKILL


def test_after_a_failure_the_next_case_runs(tmp_path):
    body = "sys.exit(1) if '\"batch_size\": 1,' in (folder / 'request.json').read_text() else write_good()"
    assert [r.status for r in supervise.run_cases(CASES, campaign(tmp_path, body))] == ["crashed", "ok"]


def test_a_second_run_does_only_what_failed(tmp_path):
    body = "sys.exit(1) if '\"batch_size\": 1,' in (folder / 'request.json').read_text() else write_good()"
    list(supervise.run_cases(CASES, campaign(tmp_path, body)))
    again = list(supervise.run_cases(CASES, campaign(tmp_path, "write_good()")))
    assert [r.case["batch_size"] for r in again] == [1]
    assert list(supervise.run_cases(CASES, campaign(tmp_path, "write_good()"))) == []


def test_a_case_out_of_memory_is_not_tried_again_but_with_fresh(tmp_path):
    body = f"print({SLURM_OOM[0]!r}, file=sys.stderr); sys.exit(137)"
    assert run_one(tmp_path, body).status == "oom"
    assert list(supervise.run_cases(CASES[:1], campaign(tmp_path, "write_good()"))) == []
    (again,) = supervise.run_cases(CASES[:1], campaign(tmp_path, "write_good()"), fresh=True)
    assert again.status == "ok"


def test_fresh_measures_everything_again_and_keeps_what_was(tmp_path):
    list(supervise.run_cases(CASES, campaign(tmp_path, "write_good()")))
    list(supervise.run_cases(CASES, campaign(tmp_path, "write_good()"), fresh=True))
    assert len(list(attempts.find_closed_attempts(tmp_path))) == 4


def test_another_system_measures_for_itself(tmp_path):
    list(supervise.run_cases(CASES, campaign(tmp_path, "write_good()")))
    other = supervise.Campaign(tmp_path, "s", 1, "other", launcher=script("write_good()"))
    assert len(list(supervise.run_cases(CASES, other))) == 2


def test_a_case_that_a_living_process_has_claimed_is_left_to_it(tmp_path):
    c = campaign(tmp_path, "write_good()")
    claim = claims.take_claim(tmp_path, "-".join(map(str, c.key(CASES[0]))))
    assert [r.case["batch_size"] for r in supervise.run_cases(CASES, c)] == [2]
    claim.release()
    assert [r.case["batch_size"] for r in supervise.run_cases(CASES, c)] == [1]


def test_a_claim_of_a_dead_process_is_taken_over(tmp_path):
    code = (
        f"from dlbench.launch import claims; from pathlib import Path; claims.take_claim(Path({str(tmp_path)!r}), 'x')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert claims.take_claim(tmp_path, "x") is not None
    assert claims.take_claim(tmp_path, "x") is None


def test_only_one_of_many_processes_takes_a_stale_claim(tmp_path):
    code = f"from dlbench.launch import claims; from pathlib import Path; r = Path({str(tmp_path)!r})\n"
    subprocess.run([sys.executable, "-c", code + "claims.take_claim(r, 'x')"], check=True)
    contend = code + "import time; c = claims.take_claim(r, 'x'); print(c is not None, flush=True); time.sleep(1.5)"
    racers = [subprocess.Popen([sys.executable, "-c", contend], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert sorted(r.communicate()[0].strip() for r in racers) == ["False"] * 5 + ["True"]


SUPERVISOR = """
import sys, time
from pathlib import Path
from dlbench.launch import processes, supervise
from tests.launch.test_supervise import CASES, campaign
root = Path(sys.argv[1])
with processes.stop_on_signals():
    try:
        list(supervise.run_cases(CASES[:int(sys.argv[3])], campaign(root, sys.argv[2])))
    except supervise.StoppedBySignal as stop:
        print("stopped by", stop.signal_name)
"""


def start_supervisor(root, body, cases=1):
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(root), body, str(cases)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(400):
        if any(file.read_text() for file in attempts.attempts_folder(root).glob("*/running")):
            return process
        time.sleep(0.05)
    raise AssertionError("the worker did not start")


RUNNING = "(folder / 'running').write_text(str(os.getpid())); "


def worker_pid(root):
    return int(next(attempts.attempts_folder(root).glob("*/running")).read_text())


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_killed_supervisor_takes_its_worker_with_it_and_the_next_run_closes_the_attempt(tmp_path):
    process = start_supervisor(tmp_path, RUNNING + "time.sleep(100)")
    pid = worker_pid(tmp_path)
    process.kill()
    process.communicate()
    for _ in range(100):
        if not is_running(pid):
            break
        time.sleep(0.05)
    assert not is_running(pid)
    (closed,) = supervise.recover_open_attempts(tmp_path)
    assert closed.status == "crashed"
    assert "supervisor was killed" in closed.error
    assert [r.status for r in supervise.run_cases(CASES[:1], campaign(tmp_path, "write_good()"))] == ["ok"]


def test_what_a_worker_finished_before_its_supervisor_was_killed_is_not_measured_again(tmp_path):
    process = start_supervisor(tmp_path, "write_good(); " + RUNNING + "time.sleep(100)")
    process.kill()
    process.communicate()
    (closed,) = supervise.recover_open_attempts(tmp_path)
    assert closed.status == "ok"
    assert list(supervise.run_cases(CASES[:1], campaign(tmp_path, "write_good()"))) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_case_in_flight_as_preempted(tmp_path, number):
    process = start_supervisor(tmp_path, RUNNING + "time.sleep(100)")
    pid = worker_pid(tmp_path)
    process.send_signal(number)
    assert process.communicate(timeout=20)[0].strip() == f"stopped by {number.name}"
    assert not is_running(pid)
    ((_, head),) = attempts.find_closed_attempts(tmp_path)
    assert (head.status, head.error) == ("preempted", number.name)


def test_a_signal_is_not_lost_where_the_case_in_flight_still_ends_well(tmp_path):
    ignoring = "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    process = start_supervisor(tmp_path, ignoring + RUNNING + "time.sleep(1); write_good()", cases=2)
    process.send_signal(signal.SIGUSR1)
    assert process.communicate(timeout=20)[0].strip() == "stopped by SIGUSR1"
    ((_, head),) = attempts.find_closed_attempts(tmp_path)
    assert head.status == "ok"


def test_an_attempt_of_a_living_supervisor_is_not_closed_by_another(tmp_path):
    process = start_supervisor(tmp_path, RUNNING + "time.sleep(100)")
    assert supervise.recover_open_attempts(tmp_path) == []
    process.terminate()
    process.communicate()


def test_a_folder_that_is_a_file_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write results to"):
        results_folder.require_writable_folder(tmp_path / "file" / "results")


def test_a_full_disk_is_found_before_the_first_case(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: type("S", (), {"f_bavail": 10, "f_frsize": 4096, "f_files": 0})())
    with pytest.raises(StoreError, match="MiB free"):
        results_folder.require_writable_folder(tmp_path)
