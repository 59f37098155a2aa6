import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dlbench.launch import attempts, claims, supervise
from tests.fakes.workers import good_outcome
from tests.launch.test_supervise import CASES, campaign

ROOT = Path(__file__).parents[2]

#: In which a process id has no meaning here: another machine, another start of this one, another PID namespace.
ELSEWHERE = [{"boot_id": "another"}, {"pid_namespace": "pid:[1]"}, {"boot_id": None}, {"pid_namespace": None}]


def held(root, name, **changes):
    """A claim as another process would have left it; gives its file."""
    file = root / "claims" / f"{name}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(claims.owner_identity() | {"nonce": "theirs"} | changes))
    return file


def age(file, seconds):
    then = time.time() - seconds
    os.utime(file, (then, then))


@pytest.fixture
def impatient(monkeypatch):
    """Two seconds are a long silence."""
    monkeypatch.setattr(claims, "DEAD_AFTER_S", 2.0)
    monkeypatch.setattr(claims, "_POLL_S", 0.05)


@pytest.fixture
def hurried(monkeypatch):
    """A tenth of a second is a long silence."""
    monkeypatch.setattr(claims, "DEAD_AFTER_S", 0.1)


def silent(who, file):
    """Whether the owner is taken for dead after a long silence, and only then."""
    assert claims.is_owner_alive(who, file)
    time.sleep(0.15)
    return not claims.is_owner_alive(who, file)


@pytest.mark.parametrize("changes", ELSEWHERE)
def test_an_owner_whose_process_cannot_be_looked_at_is_judged_by_its_silence(tmp_path, changes, hurried):
    # The process id is that of a living process here, and of none at the second look.
    for pid in (os.getpid(), 2**22 - 1):
        who = claims.owner_identity() | {"pid": pid} | changes
        assert silent(who, held(tmp_path, f"case{pid}"))


@pytest.mark.parametrize("seconds", [-36_000, -600, 0, 600, 36_000, 1_700_000_000])
def test_the_time_of_a_claim_says_nothing_about_its_owner(tmp_path, seconds, hurried):
    # Clocks of hosts and file servers differ: only a change, or none, is a sign.
    file = held(tmp_path, "case", boot_id="another")
    who = json.loads(file.read_text())
    age(file, seconds)
    assert claims.is_owner_alive(who, file)
    assert claims.take_claim(tmp_path, "case") is None
    time.sleep(0.15)
    age(file, seconds - 1)  # touched, by whatever clock
    assert claims.is_owner_alive(who, file)
    assert claims.take_claim(tmp_path, "case") is None
    time.sleep(0.15)
    assert not claims.is_owner_alive(who, file)
    assert claims.take_claim(tmp_path, "case") is not None


def test_two_containers_of_one_name_with_the_same_process_ids_do_not_take_each_others_cases(tmp_path, hurried):
    held(tmp_path, "case", pid=1, pid_started="1", pid_namespace="pid:[4026532201]")
    assert claims.take_claim(tmp_path, "case") is None
    time.sleep(0.15)
    assert claims.take_claim(tmp_path, "case") is not None


def test_a_living_owner_on_this_machine_may_be_silent_and_a_dead_one_is_known_at_once(tmp_path, hurried):
    file = held(tmp_path, "case")
    assert not silent(claims.owner_identity(), file)
    assert not claims.is_owner_alive(claims.owner_identity() | {"pid": 2**22 - 1}, held(tmp_path, "fresh"))
    assert not claims.is_owner_alive(claims.owner_identity() | {"pid_started": "1"}, held(tmp_path, "fresh"))


def test_another_host_name_on_the_same_kernel_and_namespace_is_looked_at_all_the_same(tmp_path):
    assert not claims.is_owner_alive(
        claims.owner_identity() | {"host": "alias", "pid": 2**22 - 1}, held(tmp_path, "case")
    )


def test_a_process_that_the_kernel_hides_is_not_taken_for_dead(tmp_path, monkeypatch, hurried):
    def kill(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    assert silent(claims.owner_identity() | {"pid": 2**22 - 1}, held(tmp_path, "case"))


def test_a_claim_as_an_earlier_version_wrote_it_is_judged_by_its_silence(tmp_path, hurried):
    assert silent(
        {"host": claims.owner_identity()["host"], "pid": 2**22 - 1, "pid_started": "1"}, held(tmp_path, "case")
    )


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": "no number"}', '{"pid": 1e999}', "[" * 100_000])
def test_a_claim_that_names_no_owner_is_stale_when_it_stays_so(tmp_path, content, hurried, monkeypatch):
    monkeypatch.setattr(claims, "_HALF_WRITTEN_S", 0.1)
    held(tmp_path, "case").write_text(content)
    assert claims.take_claim(tmp_path, "case") is None
    time.sleep(0.15)
    assert claims.take_claim(tmp_path, "case") is not None


def test_claims_of_dead_owners_are_swept_and_others_stay(tmp_path):
    held(tmp_path, "dead", pid=2**22 - 1)
    kept = {held(tmp_path, "living"), held(tmp_path, "elsewhere", boot_id="another")}
    assert claims.remove_stale_claims(tmp_path) == 1
    assert set((tmp_path / "claims").iterdir()) == kept


def test_abandoned_claims_are_told_from_those_of_owners_at_work(tmp_path, impatient):
    foreign = {"boot_id": "another"}
    held(tmp_path, "silent", **foreign)
    held(tmp_path, "dead", pid=2**22 - 1)
    held(tmp_path, "living")
    released, touched = held(tmp_path, "released", **foreign), held(tmp_path, "touched", **foreign)

    def others():
        time.sleep(0.4)
        released.unlink()
        os.utime(touched)

    began = time.monotonic()
    other = threading.Thread(target=others)
    other.start()
    names = ["silent", "dead", "living", "released", "touched", "never there"]
    waited_for = claims.heartbeats_of_dead_owners([claims.claim_path(tmp_path, name) for name in names])
    found = {path.stem: time.monotonic() - began for path in waited_for}
    other.join()
    assert set(found) == {"dead", "silent"}
    assert found["dead"] < 1.0 < found["silent"]


def test_the_living_are_not_waited_for(tmp_path):
    claim = claims.take_claim(tmp_path, "x")
    began = time.monotonic()
    assert list(claims.heartbeats_of_dead_owners([claims.claim_path(tmp_path, "x")])) == []
    assert time.monotonic() - began < 0.5
    claim.release()


def test_a_case_that_a_failed_node_has_claimed_is_measured_at_the_end_when_its_silence_is_long_enough(
    tmp_path, impatient
):
    c = campaign(tmp_path, "write_good()")
    held(tmp_path, supervise.claim_name_of_case(CASES[0], c), boot_id="of the failed node")
    assert [record.case["batch_size"] for record in supervise.run_cases(CASES, c)] == [2, 1]
    assert list((tmp_path / "claims").iterdir()) == []


def test_what_the_failed_node_had_finished_is_not_measured_again(tmp_path, impatient):
    seen = []
    c = campaign(tmp_path, "write_good()", on_record=seen.append)
    owner = claims.owner_identity() | {"boot_id": "of the failed node"}
    held(tmp_path, supervise.claim_name_of_case(CASES[0], c), **owner)
    left = attempts.create_attempt(tmp_path, CASES[0], "s", 1, "sys", owner)
    (left.folder / "result.json").write_text(good_outcome().to_json())
    assert [record.attempt_id for record in supervise.run_cases(CASES[:1], c)] == [left.id]
    assert [record.attempt_id for record in seen] == [left.id]
    assert list(supervise.run_cases(CASES[:1], c)) == []


def test_what_the_failed_node_had_begun_is_closed_and_measured_anew(tmp_path, impatient):
    c = campaign(tmp_path, "write_good()")
    owner = claims.owner_identity() | {"boot_id": "of the failed node"}
    held(tmp_path, supervise.claim_name_of_case(CASES[0], c), **owner)
    attempts.create_attempt(tmp_path, CASES[0], "s", 1, "sys", owner)
    assert [record.status for record in supervise.run_cases(CASES[:1], c)] == ["ok"]
    assert sorted(record.status for _, record in attempts.find_closed_attempts(tmp_path)) == ["crashed", "ok"]
    assert list(attempts.find_open_attempts(tmp_path)) == []


#: A supervisor on a host whose clock is wrong, and whose processes cannot be looked at from here: argv[1] is the
#: results folder, argv[2] the clock's error [s].
WRONG_CLOCK = """
import datetime, os, sys, time
from pathlib import Path
from dlbench import process_identity
from dlbench.launch import attempts, claims, supervise
from tests.launch.test_supervise import CASES, campaign
error_s = float(sys.argv[2])
real, utime, place = time.time, os.utime, process_identity.boot_id_and_pid_namespace
class Wrong(datetime.datetime):
    @classmethod
    def now(cls, tz=None): return datetime.datetime.now(tz) + datetime.timedelta(seconds=error_s)
time.time = lambda: real() + error_s
os.utime = lambda path, times=None: utime(path, times or (time.time(), time.time()))
attempts.datetime = supervise.datetime = Wrong
process_identity.boot_id_and_pid_namespace = lambda: place() | {"boot_id": "of another host"}
claims.DEAD_AFTER_S, claims.HEARTBEAT_S, claims._POLL_S = 3.0, 0.5, 0.05
body = "(folder / 'running').write_text(''); time.sleep(5); write_good()"
print(*(r.status for r in supervise.run_cases(CASES[:1], campaign(Path(sys.argv[1]), body))), flush=True)
"""


@pytest.mark.parametrize("error_s", [-600, 600, -40_000, 40_000])
def test_a_host_whose_clock_is_wrong_loses_no_case_to_others_and_takes_none(tmp_path, monkeypatch, error_s):
    monkeypatch.setattr(claims, "DEAD_AFTER_S", 3.0)
    monkeypatch.setattr(claims, "_POLL_S", 0.05)
    argv = [sys.executable, "-c", WRONG_CLOCK, str(tmp_path), str(error_s)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as theirs:
        while not list(tmp_path.glob("attempts/*/running")):
            assert theirs.poll() is None
            time.sleep(0.05)
        assert supervise.recover_open_attempts(tmp_path) == []
        mine = list(supervise.run_cases(CASES[:1], campaign(tmp_path, "write_good()")))
        assert theirs.communicate(timeout=30)[0].split() == ["ok"]
    assert mine == []
    assert [record.status for _, record in attempts.find_closed_attempts(tmp_path)] == ["ok"]
    assert list(attempts.find_open_attempts(tmp_path)) == []
    again = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    assert again.stdout.split() == []


def test_a_claim_whose_process_was_killed_while_writing_it_is_not_waited_for_as_long_as_another_host(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(claims, "_HALF_WRITTEN_S", 0.5)
    path = held(tmp_path, "case")
    path.write_text("")
    assert claims.is_owner_local_or_gone(path)  # no run waits for another node
    began = time.monotonic()
    assert list(claims.heartbeats_of_dead_owners([path])) == [path]
    assert 0.5 <= time.monotonic() - began < 30
