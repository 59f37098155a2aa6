"""What a worker process is asked to do, and what it does with a folder that holds no such request."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dlbench.errors import BadInput, UnknownName
from dlbench.launch import attempts, supervise
from dlbench.results.records import Record
from dlbench.suites import worker_request as requests
from dlbench.suites.case import Case
from dlbench.worker import __main__ as worker
from tests.fakes.workers import good_outcome

LENET = Case("lenet5", batch_size=2)


def _leave_open(root: Path, name: str, text: str) -> Path:
    """An attempt whose supervisor was killed after its worker had finished."""
    folder = attempts.attempts_folder(root) / f"20260101T000000-{LENET.id}-abcdef"
    folder.mkdir(parents=True)
    head = {"suite": "s", "suite_version": 1, "system_key": "k", "started_at": "2026-01-01T00:00:00+00:00"}
    (folder / "owner.json").write_text(json.dumps({"host": "gone", "pid": 2**22, "boot_id": "x", **head}))
    (folder / name).write_text(text)
    (folder / "result.json").write_text(good_outcome().to_json())
    return folder


def test_every_kind_is_served_by_a_module():
    assert set(worker._JOB_MODULES) == set(requests.KINDS)


def test_a_case_is_read_as_it_was_written(tmp_path):
    requests.write_request(tmp_path, requests.measure_request(LENET))
    assert requests.requested_case(requests.read_request(tmp_path)) == LENET


def test_the_case_of_an_earlier_version_is_a_request_to_measure_it(tmp_path):
    (tmp_path / "case.json").write_text(json.dumps(LENET.to_dict()))
    assert requests.read_request(tmp_path) == requests.measure_request(LENET)


@pytest.mark.parametrize(
    ("name", "text"),
    [("case.json", json.dumps(LENET.to_dict())), ("request.json", json.dumps(requests.measure_request(LENET)))],
)
def test_attempts_of_this_version_and_earlier_ones_are_found_and_closed(name, text, tmp_path):
    folder = _leave_open(tmp_path, name, text)
    ((attempt, owner),) = attempts.find_open_attempts(tmp_path)
    assert (attempt.folder, attempt.case, owner["host"]) == (folder, LENET, "gone")
    record = supervise._close_open_attempt(attempt, owner)
    assert (record.status, record.case_id, record.case) == ("ok", LENET.id, LENET.to_dict())
    assert Record.from_json((folder / "record.json").read_text()).attempt_id == folder.name
    assert list(attempts.find_open_attempts(tmp_path)) == []


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"kind": "mesure"}, "did you mean 'measure'"),
        ([], "must be a JSON object"),
        ({}, "unknown kind of request 'None'"),
    ],
)
def test_what_is_no_request_is_refused(request_, words, tmp_path):
    (tmp_path / "request.json").write_text(json.dumps(request_))
    with pytest.raises(BadInput, match=words):
        requests.read_request(tmp_path)


def test_a_request_without_its_case_is_refused():
    with pytest.raises(BadInput, match="a worker request of kind 'profile' needs a case"):
        requests.requested_case({"kind": "profile"})
    with pytest.raises(UnknownName, match="unknown axis"):
        requests.requested_case({"kind": "profile", "case": {"modle": "lenet5"}})


@pytest.mark.parametrize("text", [None, "{", '{"kind": "sing"}', "[" * 100_000])
def test_a_worker_without_a_request_says_so_in_one_line_and_exits_with_2(text, tmp_path):
    if text is not None:
        (tmp_path / "request.json").write_text(text)
    done = subprocess.run([sys.executable, "-m", "dlbench.worker", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "request.json" in done.stderr
