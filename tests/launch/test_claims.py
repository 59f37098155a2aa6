import json
import os
import threading
import time

import pytest

from dlbench.launch import attempts, claims, supervise
from tests.fakes.workers import good_outcome
from tests.launch.test_supervise import CASES, campaign

#: In which a process id has no meaning here: another machine, another start of this one, another PID namespace.
ELSEWHERE = [{"boot_id": "another"}, {"pid_namespace": "pid:[1]"}, {"boot_id": None}, {"pid_namespace": None}]
LONG_AGO = claims.SILENCE_S + 60


def held(root, name, **changes):
    """A claim as another process would have left it; gives its file."""
    file = root / "claims" / f"{name}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(claims.owner() | {"nonce": "theirs"} | changes))
    return file


def age(file, seconds):
    then = time.time() - seconds
    os.utime(file, (then, then))


@pytest.fixture
def impatient(monkeypatch):
    """Two seconds are a long silence."""
    monkeypatch.setattr(claims, "SILENCE_S", 2.0)
    monkeypatch.setattr(claims, "_POLL_S", 0.05)


@pytest.mark.parametrize("changes", ELSEWHERE)
def test_an_owner_whose_process_cannot_be_looked_at_is_judged_by_its_silence(changes):
    # The process id is that of a living process here, and of none at the second look.
    for pid in (os.getpid(), 2**22 - 1):
        who = claims.owner() | {"pid": pid} | changes
        assert claims.is_alive(who, time.time() - 10)
        assert not claims.is_alive(who, time.time() - LONG_AGO)


def test_two_containers_of_one_name_with_the_same_process_ids_do_not_take_each_others_cases(tmp_path):
    held(tmp_path, "case", pid=1, pid_started="1", pid_namespace="pid:[4026532201]")
    assert claims.take(tmp_path, "case") is None
    age(tmp_path / "claims" / "case.json", LONG_AGO)
    assert claims.take(tmp_path, "case") is not None


def test_a_living_owner_on_this_machine_may_be_silent_and_a_dead_one_is_known_at_once():
    assert claims.is_alive(claims.owner(), time.time() - LONG_AGO)
    assert not claims.is_alive(claims.owner() | {"pid": 2**22 - 1}, time.time())
    assert not claims.is_alive(claims.owner() | {"pid_started": "1"}, time.time())


def test_another_host_name_on_the_same_kernel_and_namespace_is_looked_at_all_the_same():
    assert not claims.is_alive(claims.owner() | {"host": "alias", "pid": 2**22 - 1}, time.time())


def test_a_process_that_the_kernel_hides_is_not_taken_for_dead(monkeypatch):
    def kill(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    hidden = claims.owner() | {"pid": 2**22 - 1}
    assert claims.is_alive(hidden, time.time() - 10)
    assert not claims.is_alive(hidden, time.time() - LONG_AGO)


def test_a_claim_as_an_earlier_version_wrote_it_is_judged_by_its_silence():
    who = {"host": claims.owner()["host"], "pid": 2**22 - 1, "pid_started": "1"}
    assert claims.is_alive(who, time.time())
    assert not claims.is_alive(who, time.time() - LONG_AGO)


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
    found = {name: time.monotonic() - began for name in claims.abandoned(
        tmp_path, ["silent", "dead", "living", "released", "touched", "never there"])}  # fmt: skip
    other.join()
    assert set(found) == {"dead", "silent"}
    assert found["dead"] < 1.0 < found["silent"]


def test_the_living_are_not_waited_for(tmp_path):
    claim = claims.take(tmp_path, "x")
    began = time.monotonic()
    assert list(claims.abandoned(tmp_path, ["x"])) == []
    assert time.monotonic() - began < 0.5
    claim.release()


def test_a_case_that_a_failed_node_has_claimed_is_measured_at_the_end_when_its_silence_is_long_enough(
    tmp_path, impatient
):
    c = campaign(tmp_path, "write_good()")
    held(tmp_path, supervise.claim_name(CASES[0], c), boot_id="of the failed node")
    assert [record.case["batch_size"] for record in supervise.run(CASES, c)] == [2, 1]
    assert list((tmp_path / "claims").iterdir()) == []


def test_what_the_failed_node_had_finished_is_not_measured_again(tmp_path, impatient):
    seen = []
    c = campaign(tmp_path, "write_good()", on_record=seen.append)
    owner = claims.owner() | {"boot_id": "of the failed node"}
    held(tmp_path, supervise.claim_name(CASES[0], c), **owner)
    left = attempts.create(tmp_path, CASES[0], "s", 1, "sys", owner)
    (left.folder / "result.json").write_text(good_outcome().to_json())
    assert [record.attempt_id for record in supervise.run(CASES[:1], c)] == [left.id]
    assert [record.attempt_id for record in seen] == [left.id]
    assert list(supervise.run(CASES[:1], c)) == []


def test_what_the_failed_node_had_begun_is_closed_and_measured_anew(tmp_path, impatient):
    c = campaign(tmp_path, "write_good()")
    owner = claims.owner() | {"boot_id": "of the failed node"}
    held(tmp_path, supervise.claim_name(CASES[0], c), **owner)
    attempts.create(tmp_path, CASES[0], "s", 1, "sys", owner)
    assert [record.status for record in supervise.run(CASES[:1], c)] == ["ok"]
    assert sorted(record.status for _, record in attempts.heads(tmp_path)) == ["crashed", "ok"]
    assert list(attempts.unclosed(tmp_path)) == []
