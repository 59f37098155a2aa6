"""What is done already costs little: attempts are looked at once, parts are merged as a campaign goes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dlbench.__main__ import main
from dlbench.campaign import results_maintenance
from dlbench.launch import attempts, claims, supervise
from dlbench.launch.case_counts import count_cases
from dlbench.results import merging, store
from dlbench.results.records import DONE_STATUSES
from dlbench.suites.case import Case, Protocol
from dlbench.suites.suite import load_suite
from tests.launch.test_supervise import campaign

ROOT = Path(__file__).parents[2]
MANY = [Case("lenet5", repeat=n, protocol=Protocol(timeout_s=20)) for n in range(6)]


def measured(root, cases=MANY, **more):
    """The cases measured, each with a Parquet part; gives the records."""
    keep = campaign(root, "write_good()", on_record=lambda record: store.append_record(root, record), **more)
    return list(supervise.run_cases(cases, keep))


def cpu_s(work):
    """The CPU time [s] of this process for what `work` does."""
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.fixture
def opened(monkeypatch):
    """The files of attempts whose text was read."""
    seen = []
    read = attempts.read_text

    def noting(path):
        seen.append(path.parent.name)
        return read(path)

    monkeypatch.setattr(attempts, "read_text", noting)
    return seen


def test_a_further_case_opens_no_attempt_of_another_case(tmp_path, opened):
    measured(tmp_path, MANY[:5])
    opened.clear()
    (record,) = measured(tmp_path, MANY[5:])
    assert set(opened) <= {record.attempt_id}


def test_a_resume_opens_each_attempt_once_and_those_of_a_merged_file_not_at_all(tmp_path, opened):
    records = measured(tmp_path)
    opened.clear()
    found = results_maintenance.read_stored_attempts(tmp_path)
    assert Counter(opened) == Counter(record.attempt_id for record in records)
    assert len(found.ended) == len(MANY)
    store.merge_parts_by_month(tmp_path)
    opened.clear()
    again = results_maintenance.read_stored_attempts(tmp_path)
    assert opened == []
    assert (again.ended, again.tried, again.ids) == (found.ended, found.tried, found.ids)
    assert measured(tmp_path, stored=frozenset(again.ended), stored_ids=again.ids) == []


def test_a_signed_part_is_not_opened_and_any_other_file_is(tmp_path):
    first, second, third, *_ = measured(tmp_path, MANY[:3])
    part = tmp_path / f"{first.attempt_id}.parquet"
    fewer = tmp_path / f"{second.attempt_id}.parquet"
    # As somebody who writes the file anew, with its metadata and fewer columns; and a file that was cut off.
    table = pq.read_table(fewer)
    pq.write_table(table.drop_columns(["step_s"]), fewer)
    cut = tmp_path / f"{third.attempt_id}.parquet"
    cut.write_bytes(cut.read_bytes()[:-100])
    found = results_maintenance.read_stored_attempts(tmp_path)
    assert found.own_parts == 1
    assert {folder.name for folder, _ in found.without_part} == {second.attempt_id, third.attempt_id}
    results_maintenance.rebuild_parquet_parts(tmp_path, found.without_part)
    with pytest.warns(store.SkippedPart):  # the one with fewer columns is there still, and named
        assert sorted(map(len, store.read_rows(tmp_path)["step_s"].to_pylist())) == [3, 3, 3]
    assert part.exists()


def test_a_part_under_the_name_of_another_attempt_is_no_part_of_its_own(tmp_path):
    measured(tmp_path)
    assert results_maintenance.read_stored_attempts(tmp_path).own_parts == len(MANY)
    # One part under the name of another attempt's.
    one, other = sorted(tmp_path.glob("*.parquet"))[-2:]
    other.write_bytes(one.read_bytes())
    assert results_maintenance.read_stored_attempts(tmp_path).own_parts == len(MANY) - 1


@pytest.mark.parametrize("broken", ['{"case": {"model": ["a"]}}', "[" * 5000, "{"])
def test_a_record_that_cannot_be_read_is_named_by_collect_and_by_a_run(tmp_path, capsys, broken):
    (record, _) = measured(tmp_path, MANY[:2])
    (tmp_path / f"{record.attempt_id}.parquet").unlink()
    file = tmp_path / "attempts" / record.attempt_id / "record.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "case": {**values["case"], "model": ["a"]}}) if "model" in broken else broken)
    assert main(["collect", "--results", str(tmp_path)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert sum(f"cannot read {file}: " in line for line in said) == 1, said
    results_maintenance.read_stored_attempts(tmp_path)
    assert f"cannot read {file}: " in capsys.readouterr().err


def test_what_others_rewrote_with_fewer_samples_is_held_against_the_attempts_and_rebuilt(tmp_path, capsys):
    records = measured(tmp_path, MANY[:3])
    before = store.read_rows(tmp_path)
    at = before.column_names.index("step_s")
    short = before.set_column(at, before.schema.field(at), pc.list_slice(before["step_s"], 0, 1))
    for part in tmp_path.glob("*.parquet"):
        part.unlink()
    pq.write_table(short.cast(before.schema), tmp_path / "all.parquet")
    assert main(["collect", "--results", str(tmp_path), "--merge"]) == 0
    said = capsys.readouterr().err
    assert "rebuilt: 3" in said
    assert "not merged: all.parquet (1 in total); another program or an earlier dlbench wrote these files" in said
    assert (tmp_path / "all.parquet").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", store.SkippedPart)
        after = store.read_rows(tmp_path)
    assert after["step_s"].equals(before["step_s"])
    assert len(records) == 3
    # A whole copy is as good as the parts.
    for part in tmp_path.glob("*.parquet"):
        part.unlink()
    pq.write_table(before, tmp_path / "all.parquet")
    assert main(["collect", "--results", str(tmp_path)]) == 0
    assert "rebuilt: 0" in capsys.readouterr().err


def test_samples_that_are_lost_are_missing_and_named_once(tmp_path, capsys):
    records = measured(tmp_path, MANY[:5])
    for record in records:
        (tmp_path / f"{record.attempt_id}.parquet").unlink()
        (tmp_path / "attempts" / record.attempt_id / "result.json").unlink()
    found = results_maintenance.read_stored_attempts(tmp_path)
    assert found.ended == set()
    assert results_maintenance.rebuild_parquet_parts(tmp_path, found.without_part) == 0
    assert capsys.readouterr().err.count("\n") == 1
    assert store.read_rows(tmp_path).num_rows == 0


def test_parts_are_merged_a_bounded_number_at_a_time_the_oldest_first(tmp_path, monkeypatch):
    records = measured(tmp_path)
    monkeypatch.setattr(results_maintenance, "MAX_PARTS_PER_MERGE", 4)
    assert results_maintenance.merge_parquet_parts(tmp_path, 6) == 2
    left = {path.name for path in tmp_path.glob("*.parquet")}
    latest = sorted(record.attempt_id for record in records)[4:]
    assert {f"{attempt_id}.parquet" for attempt_id in latest} < left
    assert len(left) == 3
    assert store.read_rows(tmp_path).num_rows == 6
    assert claims.claim_names(tmp_path) == []


def test_one_process_at_a_time_merges(tmp_path):
    measured(tmp_path)
    claim = claims.take_claim(tmp_path, "merge")
    results_maintenance.merge_parquet_parts(tmp_path, 6)
    assert len(list(tmp_path.glob("*.parquet"))) == 6
    claim.release()


def test_a_run_merges_its_parts_as_it_goes(tmp_path, monkeypatch):
    from dlbench.launch.results_folder import ResultsFolder

    monkeypatch.setattr(results_maintenance, "MIN_PARTS_TO_MERGE", 3)
    from dlbench.campaign.measure import measure_cases

    what = campaign(tmp_path, "write_good()", folder=ResultsFolder(tmp_path))
    assert measure_cases(what, MANY, fresh=False) == 0
    assert len(list(tmp_path.glob("merged-*.parquet"))) >= 1
    assert len(list(tmp_path.glob("*.parquet"))) < len(MANY)
    assert store.read_rows(tmp_path).num_rows == len(MANY)
    assert measure_cases(what, MANY, fresh=False) == 0
    assert len(list(attempts.find_closed_attempts(tmp_path))) == len(MANY)


def test_at_its_end_a_run_closes_what_it_has_watched_long_enough(tmp_path, monkeypatch):
    from dlbench.launch.results_folder import ResultsFolder

    monkeypatch.setattr(claims, "DEAD_AFTER_S", 0.5)
    owner = claims.owner_identity() | {"boot_id": "of another node"}
    theirs = attempts.create_attempt(tmp_path, MANY[5], "another suite", 1, "sys", owner)
    from dlbench.campaign.measure import measure_cases

    what = campaign(tmp_path, "time.sleep(1); write_good()", folder=ResultsFolder(tmp_path))
    assert measure_cases(what, MANY[:1], fresh=False) == 0
    assert {record.attempt_id: record.status for _, record in attempts.find_closed_attempts(tmp_path)}[
        theirs.id
    ] == "crashed"


@pytest.mark.slow
def test_thousands_of_attempts_cost_a_further_case_and_a_resume_little(tmp_path):
    empty, tmp_path = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    tmp_path.mkdir()
    (record,) = measured(tmp_path, MANY[:1])
    pattern = tmp_path / "attempts" / record.attempt_id
    texts = [(pattern / name).read_text() for name in ("record.json", "result.json", "owner.json", "request.json")]
    for number in range(5000):
        case = Case("lenet5", repeat=1000 + number)
        folder = pattern.with_name(f"20260101T000000-{case.id}-{number:06x}")
        folder.mkdir()
        changed = (text.replace(record.attempt_id, folder.name).replace(record.case_id, case.id) for text in texts)
        for name, text in zip(("record.json", "result.json", "owner.json", "request.json"), changed, strict=True):
            (folder / name).write_text(text)
    began = time.process_time()
    assert len(results_maintenance.read_stored_attempts(tmp_path).ended) == 5001
    assert time.process_time() - began < 5
    # Beside an empty folder: other work and a large test process slow both. Reading 5,000 attempts takes about a second.
    few, many = ([cpu_s(lambda n=n, f=f: measured(f, MANY[n : n + 1])) for n in range(1, 6)] for f in (empty, tmp_path))
    assert min(many) < 3 * min(few) + 0.05
    suite = tmp_path / "s.toml"
    suite.write_text('name = "s"\n[axes]\nmodel = ["lenet5"]\ndevice = ["cpu"]\n')
    began = time.process_time()
    count_cases(tmp_path, load_suite(suite))
    assert time.process_time() - began < 5


STRESS = """
import sys
from pathlib import Path
from dlbench.campaign import results_maintenance, measure
from dlbench.launch import claims
from dlbench.launch.results_folder import ResultsFolder
from tests.launch.test_many_attempts import NUM_STRESS, stress_cases
from tests.launch.test_supervise import campaign as made
results_maintenance.MIN_PARTS_TO_MERGE = 5
root = Path(sys.argv[1])
body = "time.sleep(0.05); write_good()"
sys.exit(measure.measure_cases(made(root, body, folder=ResultsFolder(root)), stress_cases(), fresh=False))
"""
NUM_STRESS = 60


def stress_cases():
    """In another order for each process."""
    cases = [Case("lenet5", repeat=n, protocol=Protocol(timeout_s=20)) for n in range(NUM_STRESS)]
    random.Random(os.getpid()).shuffle(cases)
    return cases


@pytest.mark.slow
def test_eight_supervisors_and_kills_at_random_double_and_lose_no_case(tmp_path):
    chance = random.Random(0)
    root = tmp_path / "results"
    root.mkdir()

    def start():
        argv = [sys.executable, "-c", STRESS, str(root)]
        return subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL)

    running = [start() for _ in range(8)]
    killed = 0
    until = time.monotonic() + 120
    while len(attempts.finished_keys(root)) < NUM_STRESS and time.monotonic() < until:
        time.sleep(chance.uniform(0.2, 0.8))
        if killed < 12:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(running).pid, signal.SIGKILL)
                killed += 1
        running = [process for process in running if process.poll() is None]
        running += [start() for _ in range(4 - len(running))]
    for process in running:
        process.wait(60)
    assert start().wait(60) == 0  # nothing is left to do, and what the dead left is put right
    records = [record for _, record in attempts.find_closed_attempts(root)]
    done = Counter(record.case_id for record in records if record.status in DONE_STATUSES)
    assert killed >= 6
    assert sorted(done.values()) == [1] * NUM_STRESS
    assert list(attempts.find_open_attempts(root)) == []
    assert Counter(store.read_rows(root)["attempt_id"].to_pylist()) == Counter(r.attempt_id for r in records)
    assert [p.name for p in root.rglob("*") if p.name.endswith(".tmp")] == []
    assert claims.claim_names(root) == []
    results_maintenance.merge_parquet_parts(root, NUM_STRESS)  # no claim of the dead stands in the way, and no row goes
    assert any(part.name.startswith(merging._MERGED_PREFIX) for part in root.glob("*.parquet"))
    assert Counter(store.read_rows(root)["attempt_id"].to_pylist()) == Counter(r.attempt_id for r in records)
