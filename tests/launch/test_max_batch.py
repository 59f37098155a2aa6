"""The search for the largest batch, with stand-ins for the runs; and its processes, with stand-in workers."""

from __future__ import annotations

import argparse
import os
import re
import sys

import pytest

from dlbench.cli import main
from dlbench.commands import maxbatch
from dlbench.errors import BadInput, UnknownName
from dlbench.launch.max_batch import BatchTrial, TrialRunner, find_largest_batch, parse_case_without_batch
from dlbench.launch.worker_process import WorkerFailed
from dlbench.suites.case import Case


def outcome(limit, predicted, within=0.0, budget=1000):
    trials = find_largest_batch(lambda batch: BatchTrial(batch, batch <= limit), predicted, budget, within)
    fitting = max((t.batch_size for t in trials if t.fits), default=0)
    failing = min((t.batch_size for t in trials if not t.fits), default=None)
    assert len({t.batch_size for t in trials}) == len(trials)
    return fitting, failing, len(trials)


@pytest.mark.parametrize("limit", [1, 2, 3, 99, 100, 101, 150, 1000, 123_456])
@pytest.mark.parametrize("scale", [0.5, 1.0, 10.0])
def test_the_largest_batch_is_found_whatever_was_predicted(limit, scale):
    fitting, failing, _ = outcome(limit, lambda batch: batch * scale)
    assert (fitting, failing) == (limit, limit + 1)


def test_without_a_prediction_it_starts_at_one():
    assert outcome(37, None)[:2] == (37, 38)


def test_where_not_even_one_image_fits_it_ends():
    fitting, failing, runs = outcome(0, lambda batch: batch * 0.5)
    assert (fitting, failing) == (0, 1)
    assert runs < 20


def test_a_good_prediction_needs_few_runs():
    assert outcome(990, lambda batch: float(batch), within=0.01)[2] <= 6


def test_the_setting_comes_from_axes():
    case = parse_case_without_batch("lenet5", ["mode=inference", "precision=amp_bf16"], "cpu")
    assert (case.mode, case.precision, case.device) == ("inference", "amp_bf16", "cpu")


@pytest.mark.parametrize(
    "override", ["batch_size=4", "global_batch=4", "mode=training,inference", "devices_per_node=2"]
)
def test_what_cannot_be_looked_for_is_one_line(override):
    with pytest.raises(BadInput, match="maxbatch"):
        parse_case_without_batch("lenet5", [override], "cpu")


def test_another_model_than_the_one_asked_for_is_refused():
    with pytest.raises(BadInput, match="give the model only once"):
        parse_case_without_batch("lenet5", ["model=vgg16"], "cpu")


@pytest.mark.parametrize("text", ["nan", "inf", "0", "-1", "1e99", "."])
def test_a_time_limit_that_is_none_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        main(["maxbatch", "lenet5", f"--timeout={text}"])
    assert f"argument --timeout: {text}: must be a time above 0 s" in capsys.readouterr().err


def test_an_unknown_axis_is_named():
    with pytest.raises(UnknownName, match="colour"):
        parse_case_without_batch("lenet5", ["colour=red"], "cpu")


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2 * 2**30), ("1.5 MB", 1_500_000), ("512", 512), ("4g", 4 * 10**9)]
)
def test_sizes_are_read(text, size):
    assert maxbatch._parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "0", "0.5", "3 elephants", "9" * 400, "99999999TiB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        maxbatch._parse_bytes(text)


WORKER = """
import json, os, sys
from pathlib import Path
from dlbench.suites import worker_request as requests
from dlbench.worker.jobs.job_answer import write_job_answer

worker_request = requests.read_request(Path(sys.argv[1]))

def work():
    Path({pids!r}).open("a").write(f"{{os.getpid()}}\\n")
    if worker_request["kind"] == "predict":
        return json.dumps({{"lines": [[500, 10], [0, 100]], "process_bytes": 50, "room_bytes": 620}})
    batch = worker_request["case"]["batch_size"]
    assert worker_request["limit_bytes"] == 1000
    if {kind!r} == "killed" and batch > 7:
        os.kill(os.getpid(), 9)
    if {kind!r} == "broken" or {kind!r} == "indices" and batch > 7:
        raise ValueError("no weights")
    if batch > 7:
        raise MemoryError("no room")
    return json.dumps({{"memory_allocated_peak_bytes": None, "memory_rss_peak_bytes": 100 * batch}})

sys.exit(write_job_answer(Path(sys.argv[1]), work))
"""


def runs_of(tmp_path, monkeypatch, kind):
    (tmp_path / "stand_in.py").write_text(WORKER.format(kind=kind, pids=str(tmp_path / "pids")))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return TrialRunner(Case("lenet5"), tmp_path / "runs", 1000, 60.0, [sys.executable, "-m", "stand_in"])


@pytest.mark.parametrize("kind", ["full", "killed"])
def test_real_processes_find_it_and_none_is_left(tmp_path, monkeypatch, capsys, kind):
    runs = runs_of(tmp_path, monkeypatch, kind)
    line = runs.predict_memory_by_batch()
    assert (line(1), line(10)) == (50 + 510, 50 + 1000)  # the higher one of both lines
    assert runs.room_bytes == 620
    trials = find_largest_batch(lambda batch: runs.run_trial(batch, line), line, runs.room_bytes)
    assert trials[0].batch_size == 5  # what is left beside context and libraries, not the whole limit
    assert max(t.batch_size for t in trials if t.fits) == 7
    failed = next(t for t in trials if not t.fits)
    assert failed.reason
    said = re.findall(r"^batch (\d+): ", capsys.readouterr().err, re.MULTILINE)
    assert list(map(int, said)) == [t.batch_size for t in trials]
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_another_failure_is_no_answer(tmp_path, monkeypatch):
    runs = runs_of(tmp_path, monkeypatch, "broken")
    with pytest.raises(WorkerFailed, match="no weights"):
        find_largest_batch(lambda batch: runs.run_trial(batch, None), lambda batch: batch * 100.0, 1000)


def test_a_limit_that_is_none_of_memory_is_found_and_named(tmp_path, monkeypatch):
    runs = runs_of(tmp_path, monkeypatch, "indices")
    trials = find_largest_batch(lambda batch: runs.run_trial(batch, None), lambda batch: batch * 100.0, 1000)
    assert max(t.batch_size for t in trials if t.fits) == 7
    assert all(
        "failed for a reason other than memory: " in t.reason and "no weights" in t.reason for t in trials if not t.fits
    )


MIB = 2**20
FITS = BatchTrial(2845, True, 975 * MIB, None, 1100 * MIB, 4.7)
FULL = "out of memory on the CPU: 161 MiB more needed, 130 MiB available."


def printed(capsys, trials, device="cpu", form="text"):
    case = Case("lenet5", device=device)
    maxbatch._print_trials(case, trials, 1300 * MIB, form)
    return capsys.readouterr().out


def test_the_first_line_says_what_was_found_and_what_limits(capsys):
    head, _, columns, _, *rows = printed(capsys, [BatchTrial(3363, False, reason=FULL, seconds=9.0), FITS]).splitlines()
    assert head == (
        "lenet5, training, fp32: the largest batch that fits is 2845, which uses 1.07 GiB of 1.27 GiB; batch 3363 does not fit "
        "(161 MiB more needed, 130 MiB available)"
    )
    assert columns.split() == ["batch", "fits", "predicted", "resident", "time", "[s]"]
    assert [row.split()[:2] for row in rows] == [["2845", "yes"], ["3363", "no"]]
    on_gpu = printed(capsys, [BatchTrial(64, True, 975 * MIB, 1200 * MIB, 400 * MIB, 4.7)], "cuda").splitlines()
    assert on_gpu[0].endswith("is 64, which uses 1.17 GiB of 1.27 GiB; larger batches were not tried")
    assert on_gpu[2].split()[3] == "allocated"


def test_a_limit_other_than_memory_and_no_batch_at_all_are_said_in_the_first_line(capsys):
    other = BatchTrial(3363, False, reason="failed for a reason other than memory: index out of range")
    head = printed(capsys, [FITS, other]).splitlines()[0]
    assert head.endswith("; batch 3363 failed for a reason other than memory: index out of range")
    head = printed(capsys, [BatchTrial(1, False, reason=FULL)]).splitlines()[0]
    assert head.endswith("no batch fits into 1.27 GiB; batch 1 does not fit (161 MiB more needed, 130 MiB available)")


def test_a_file_gets_every_trial_with_all_that_is_known_of_it(capsys):
    lines = printed(capsys, [BatchTrial(3363, False, reason=FULL), BatchTrial(9, True), FITS], form="csv").splitlines()
    assert lines[0] == "batch_size,fits,predicted_bytes,allocated_peak_bytes,rss_peak_bytes,seconds,reason"
    assert [line.split(",")[0] for line in lines[1:]] == ["3363", "9", "2845"]
    assert FULL in lines[1]


def test_a_limit_below_what_the_libraries_take_is_memory_and_no_import_error(capfd):
    assert main(["maxbatch", "lenet5", "--memory", "50M"]) == 1
    said = capfd.readouterr()
    assert "no batch fits into" in said.out
    assert "the libraries themselves do not fit" in said.out
    assert "ImportError" not in said.out + said.err
