"""Whatever happens to the results folder under a run: one line, and nothing is made anew or measured twice."""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dlbench import atomic_file
from dlbench.cli import main
from dlbench.errors import StoreError
from dlbench.launch import attempts, claims, leftovers, results_folder, supervise
from dlbench.results import store
from dlbench.results.records import Outcome
from tests.fakes.quick import make_python
from tests.fakes.records import quick
from tests.fakes.runtimes import install
from tests.fakes.workers import good_outcome
from tests.launch.test_supervise import CASES, campaign

ROOT = Path(__file__).parents[2]
#: A worker that has begun and goes on for as long as it is let.
BEGINS = "(folder / 'running').write_text(''); time.sleep(30)"


def when_running(root, what):
    """Do it as soon as a worker has begun."""

    def wait():
        while not list(root.glob("attempts/*/running")):
            time.sleep(0.05)
        what()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def replaced(root):
    """The folder deleted and one of the same name in its place, which often has the same inode number."""
    shutil.rmtree(root)
    root.mkdir()


VANISHING = {
    "moved": lambda root: root.rename(root.with_name("elsewhere")),
    "deleted": shutil.rmtree,
    "replaced": replaced,
    "attempts deleted": lambda root: shutil.rmtree(root / "attempts"),
}


@pytest.mark.parametrize("how", VANISHING)
def test_a_folder_that_vanishes_under_a_case_ends_the_run_and_is_not_made_anew(tmp_path, how):
    root = tmp_path / "results"
    root.mkdir()
    thread = when_running(root, lambda: VANISHING[how](root))
    began = time.monotonic()
    with pytest.raises(results_folder.ResultsFolderMissing, match="was moved, deleted or unmounted during the run"):
        list(supervise.run_cases(CASES, campaign(root, BEGINS)))
    thread.join()
    assert time.monotonic() - began < 15  # not at the end of the case
    assert not (root / "attempts").exists()
    assert root.exists() == (how in ("replaced", "attempts deleted"))


def test_what_had_begun_in_a_folder_that_was_moved_is_closed_at_its_new_place_and_measured_there(tmp_path):
    root, new = tmp_path / "results", tmp_path / "new"
    root.mkdir()
    list(supervise.run_cases(CASES[1:], campaign(root, "write_good()")))
    thread = when_running(root, lambda: root.rename(new))
    with pytest.raises(results_folder.ResultsFolderMissing):
        list(supervise.run_cases(CASES[:1], campaign(root, BEGINS)))
    thread.join()
    # Its owner, this process, lives on in this test.
    (open_one,) = attempts.find_open_attempts(new)
    owner = open_one[0].folder / "owner.json"
    owner.write_text(owner.read_text().replace(f'"pid": {os.getpid()}', f'"pid": {2**22 - 1}'))
    shutil.rmtree(new / "claims")
    assert [record.status for record in supervise.recover_open_attempts(new)] == ["crashed"]
    assert [record.case_id for record in supervise.run_cases(CASES, campaign(new, "write_good()"))] == [CASES[0].id]
    assert not root.exists()


@pytest.mark.parametrize("how", VANISHING)
def test_a_folder_that_vanishes_between_two_cases_is_not_made_anew(tmp_path, how):
    root = tmp_path / "results"
    root.mkdir()
    running = supervise.run_cases(CASES, campaign(root, "write_good()"))
    assert next(running).status == "ok"
    VANISHING[how](root)
    with pytest.raises(results_folder.ResultsFolderMissing):
        next(running)
    assert not (root / "attempts").exists()


@pytest.fixture
def disk(tmp_path):
    """Mounts a file system of its own, with these options; skips where that is not permitted."""
    mounted = []

    def mount(options):
        folder = tmp_path / "disk"
        folder.mkdir()
        argv = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        if shutil.which("mount") is None or subprocess.run(argv, capture_output=True, check=False).returncode != 0:
            pytest.skip("mounting is not permitted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_becomes_read_only_ends_the_run(disk):
    root = disk("size=200m")
    running = supervise.run_cases(CASES, campaign(root, "write_good()"))
    assert next(running).status == "ok"
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
    with pytest.raises(StoreError, match=r"cannot write .*: Read-only file system"):
        next(running)


def test_a_disk_that_fills_up_ends_the_run_before_the_next_case(disk):
    root = disk("size=80m")
    running = supervise.run_cases(CASES, campaign(root, "write_good()"))
    assert next(running).status == "ok"
    (root / "big").write_bytes(bytes(30 * 2**20))
    with pytest.raises(StoreError, match=r"only \d+ MiB free in .*, but a campaign needs 64 MiB"):
        next(running)
    assert len(list(attempts.find_closed_attempts(root))) == 1


def test_a_disk_that_fills_up_under_a_case_ends_the_run_and_the_case_is_measured_later(disk):
    root = disk("size=80m")
    fill = """
import shutil
with open(folder.parents[1] / 'big', 'wb') as file:
    try:
        while True: file.write(bytes(4096))
    except OSError: pass
"""
    with pytest.raises(StoreError, match=r"cannot write .*: No space left on device"):
        list(supervise.run_cases(CASES, campaign(root, fill)))
    (root / "big").unlink()
    assert [record.status for record in supervise.run_cases(CASES[1:], campaign(root, "write_good()"))] == ["ok"]
    assert len(list(attempts.find_open_attempts(root))) == 1


def test_a_disk_without_inodes_ends_the_run_before_the_next_case(disk):
    root = disk("size=200m,nr_inodes=300")
    running = supervise.run_cases(CASES, campaign(root, "write_good()"))
    assert next(running).status == "ok"
    for number in range(250):
        with contextlib.suppress(OSError):
            (root / f"file{number}").touch()
    with pytest.raises(StoreError, match=r"only \d+ free inodes in .*, but a case needs 100"):
        next(running)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EDQUOT, errno.EACCES])
def test_a_record_that_cannot_be_written_ends_the_run_and_the_result_is_found_by_the_next(
    tmp_path, monkeypatch, number
):
    replace = Path.replace

    def failing(self, target):
        if Path(target).name == "record.json":
            raise OSError(number, os.strerror(number))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(StoreError, match=f"cannot write .*: {os.strerror(number)}"):
        list(supervise.run_cases(CASES[:1], campaign(tmp_path, "write_good()")))
    monkeypatch.undo()
    (open_one,) = attempts.find_open_attempts(tmp_path)
    owner = open_one[0].folder / "owner.json"
    owner.write_text(owner.read_text().replace(f'"pid": {os.getpid()}', f'"pid": {2**22 - 1}'))
    assert [record.status for record in supervise.run_cases(CASES[:1], campaign(tmp_path, "sys.exit(1)"))] == ["ok"]


def test_a_result_that_cannot_be_read_is_no_verdict_on_the_case(tmp_path, monkeypatch):
    read = attempts.read_text

    def failing(path):
        if path.name == "result.json":
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return read(path)

    monkeypatch.setattr(attempts, "read_text", failing)
    with pytest.raises(StoreError, match=r"cannot read .*result\.json: Stale file handle"):
        list(supervise.run_cases(CASES[:1], campaign(tmp_path, "write_good()")))
    monkeypatch.undo()
    assert list(attempts.find_closed_attempts(tmp_path)) == []


@pytest.fixture
def command(tmp_path):
    """The command line of a run of two cases of a second by a stand-in worker, and its environment."""
    install(tmp_path / "bin", "srun")
    python = make_python(tmp_path / "python")
    suite = tmp_path / "suite.toml"
    suite.write_text(
        'name = "s"\n[axes]\nmodel = ["lenet5"]\nbatch_size = [1, 2]\n[protocol]\nprocesses = 1\nmin_time_s = 1\n'
    )
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def run(results, together=False):
        where = [f"--results={results}"] if together else ["--results", results]
        argv = [sys.executable, "-m", "dlbench", "run", suite, *where, "--launcher", "srun"]
        argv = [os.fspath(word) for word in [*argv, "--", "srun", "{ranks}", python]]
        return subprocess.Popen(
            argv, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, errors="replace"
        )

    return run


def test_the_command_says_in_one_line_that_the_folder_is_gone_and_ends_with_1(tmp_path, command):
    results = tmp_path / "results"
    process = command(results)
    while not list(results.glob("attempts/*/rank-0.json")):
        assert process.poll() is None
        time.sleep(0.02)
    results.rename(tmp_path / "moved")
    said = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 1
    assert said[-1].startswith(f"dlbench: '{results}' was moved, deleted or unmounted during the run; stopped. ")
    assert said[-1].endswith("to resume, run the same command with the new path as --results")
    assert not results.exists()
    assert "Traceback" not in "\n".join(said)
    again = command(tmp_path / "moved")
    again.communicate(timeout=60)
    assert again.returncode == 0
    assert len(attempts.finished_keys(tmp_path / "moved")) == 2


def test_a_name_that_is_not_utf_8_is_refused_at_once(tmp_path, command):
    process = command(os.fsdecode(os.fsencode(tmp_path) + b"/r\xff"))
    said = process.communicate(timeout=60)[1].splitlines()
    assert (process.returncode, len(said)) == (2, 1)
    assert r"/r\xff': it is not UTF-8" in said[0]
    with pytest.raises(StoreError, match="the name is not UTF-8"):
        results_folder.require_writable_folder(Path(os.fsdecode(b"r\xff")))


def test_a_path_that_leaves_no_room_for_files_inside_is_refused_at_once(tmp_path):
    deep = tmp_path.joinpath(*["x" * 200] * 19)
    with pytest.raises(StoreError, match=r"its path has .* bytes, and files inside need"):
        results_folder.require_writable_folder(deep)
    assert not (tmp_path / ("x" * 200)).exists()


ODD = ["new\nline 'quo\"te", "[x]*? sp ace ", "-leading", "a=b", "$(touch x) {ranks} %s # \\ ünïcode"]


@pytest.mark.parametrize("name", ODD)
def test_results_are_kept_and_found_by_every_command_in_a_folder_of_any_name(tmp_path, name, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = Path(name)
    results_folder.require_writable_folder(root)
    keep = campaign(root, "write_good()", on_record=lambda record: store.append_record(root, record))
    (record,) = supervise.run_cases(CASES[:1], keep)
    assert record.status == "ok"
    assert list(supervise.run_cases(CASES[:1], keep)) == []
    source = f"./{name}" if name.startswith("-") else name
    assert main(["collect", "--wait", f"--results={name}"]) == 0
    assert main(["query", "select attempt_id from records", f"--results={name}", "--format", "csv"]) == 0
    assert main(["show", record.attempt_id, f"--results={name}"]) == 0
    assert main(["export", source, "--format", "csv"]) == 0
    assert capsys.readouterr().out.count(record.attempt_id) >= 3
    assert main(["compare", source, source]) == 2
    assert "share 1 attempts" in capsys.readouterr().err


def test_a_report_of_a_folder_of_any_name_shows_its_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "a=b [x]*?\n"
    Path(name).mkdir()
    store.append_record(Path(name), quick()[0])
    assert main(["report", name, "-o", "report"]) == 0
    assert quick()[0].attempt_id in (tmp_path / "report" / "index.html").read_text()


def test_the_command_measures_into_a_folder_whose_name_begins_with_a_dash(tmp_path, command):
    process = command("-x", together=True)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    assert len(attempts.finished_keys(tmp_path / "-x")) == 2


def test_half_written_files_of_the_dead_are_swept_and_those_of_the_living_stay(tmp_path):
    dead = subprocess.run(
        [sys.executable, "-c", "from dlbench.atomic_file import *; print(temporary_name(Path('a.parquet')).name)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    (tmp_path / dead).touch()
    (tmp_path / "attempts" / dead.replace("a.parquet", "b")).mkdir(parents=True)
    (tmp_path / "attempts" / dead.replace("a.parquet", "b") / "owner.json").touch()
    mine = atomic_file.temporary_name(tmp_path / "c.parquet")
    elsewhere = tmp_path / ".d.parquet.00000000-1-1.tmp"
    others = [tmp_path / name for name in (".e.tmp", ".nfs0001", "f.tmp", ".g.parquet.12345678.tmp.txt")]
    for file in (mine, elsewhere, *others):
        file.touch()
    assert leftovers.remove_leftovers(tmp_path) == 2
    assert {file.name for file in tmp_path.iterdir()} == {f.name for f in (mine, elsewhere, *others)} | {"attempts"}
    assert list((tmp_path / "attempts").iterdir()) == []


@pytest.mark.parametrize("name", [".d.parquet.00000000-1-1.tmp", ".e.parquet.123.tmp", ".write-test-123"])
def test_half_written_files_of_unseen_writers_are_swept_when_nothing_changes(tmp_path, monkeypatch, name):
    monkeypatch.setattr(claims, "DEAD_AFTER_S", 0.3)
    file = tmp_path / name
    file.touch()
    os.utime(file, (0, 0))
    assert leftovers.remove_leftovers(tmp_path) == 0
    time.sleep(0.35)
    file.write_text("it goes on")
    assert leftovers.remove_leftovers(tmp_path) == 0
    time.sleep(0.35)
    assert leftovers.remove_leftovers(tmp_path) == 1


def test_empty_attempts_are_swept_but_for_those_whose_case_is_claimed(tmp_path):
    folder = tmp_path / "attempts"
    for case_id in ("0" * 12, "1" * 12):
        (folder / f"20260101T000000-{case_id}-abcdef").mkdir(parents=True)
    (folder / f"20260101T000000-{'2' * 12}-abcdef").mkdir()
    (folder / f"20260101T000000-{'2' * 12}-abcdef" / "notes").touch()
    (folder / "somebody's").mkdir()
    claim = claims.take_claim(tmp_path, f"s-1-{'1' * 12}-sys")
    assert leftovers.remove_leftovers(tmp_path) == 1
    claim.release()
    assert leftovers.remove_leftovers(tmp_path) == 1
    assert sorted(path.name for path in folder.iterdir()) == [f"20260101T000000-{'2' * 12}-abcdef", "somebody's"]


def test_what_a_killed_worker_was_writing_goes_when_its_attempt_is_closed(tmp_path):
    body = "(folder / '.result.json.123').write_text('half'); os.kill(os.getpid(), 9)"
    assert [record.status for record in supervise.run_cases(CASES[:1], campaign(tmp_path, body))] == ["crashed"]
    assert list(tmp_path.rglob(".*")) == []


def test_an_attempt_starts_later_than_those_before_it_whatever_the_clock_says(tmp_path):
    (first,) = supervise.run_cases(CASES[:1], campaign(tmp_path, "write_good()"))
    ahead = f"29990101T000000-{CASES[0].id}-abcdef"
    (tmp_path / "attempts" / first.attempt_id).rename(tmp_path / "attempts" / ahead)
    (second,) = supervise.run_cases(CASES[:1], campaign(tmp_path, "write_good()"), fresh=True)
    assert second.started_at.startswith("2999-01-01T00:00:01")
    assert second.attempt_id > ahead
    assert second.finished_at > second.started_at
    stored = frozenset([f"30000101T000000-{CASES[1].id}-abcdef"])
    (third,) = supervise.run_cases(CASES[1:], campaign(tmp_path, "write_good()", stored_ids=stored), fresh=True)
    assert third.started_at.startswith("3000-01-01T00:00:01")


def test_a_measured_case_without_its_samples_is_measured_again(tmp_path):
    (record,) = supervise.run_cases(CASES[:1], campaign(tmp_path, "write_good()"))
    (tmp_path / "attempts" / record.attempt_id / "result.json").unlink()
    assert [one.status for one in supervise.run_cases(CASES[:1], campaign(tmp_path, "write_good()"))] == ["ok"]


def test_an_open_attempt_of_an_owner_that_cannot_be_seen_is_respected_without_its_claim(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "DEAD_AFTER_S", 1.0)
    monkeypatch.setattr(claims, "_POLL_S", 0.05)
    notes = []
    owner = claims.owner_identity() | {"boot_id": "of another node"}
    theirs = attempts.create_attempt(tmp_path, CASES[0], "s", 1, "sys", owner)
    touching = threading.Timer(0.5, os.utime, [theirs.folder])
    touching.start()
    assert list(supervise.run_cases(CASES[:1], campaign(tmp_path, "write_good()", on_note=notes.append))) == []
    touching.join()
    assert len(notes) == 1
    assert "1 case claimed by runs on other nodes" in notes[0]
    # And when it gives no sign of life any more, its result counts.
    (theirs.folder / "result.json").write_text(Outcome.to_json(good_outcome()))
    (record,) = supervise.run_cases(CASES[:1], campaign(tmp_path, "sys.exit(1)"))
    assert (record.attempt_id, record.status) == (theirs.id, "ok")
