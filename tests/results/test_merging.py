"""What others put into a results folder, and what is merged there: nothing that is held nowhere else is ever deleted."""

import dataclasses
import math
import os
import resource
import shutil
import signal
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import dlbench
from dlbench.errors import StoreError
from dlbench.results import merging, parts, store
from tests.results.test_store import record

#: As somebody keeps who makes a summary of a store: no samples, hardly any columns.
SLIM = (
    *("attempt_id", "rank", "case_id", "suite", "suite_version", "status", "started_at", "model", "mode", "precision"),
    *("batch_size", "device", "protocol", "system_key", "window_s", "forward_flop", "parameters"),
)


@pytest.fixture
def results(tmp_path):
    for n in range(4):
        store.append_record(tmp_path, record(f"20261123T05000{n}-a{n}"))
    return tmp_path


def files(folder):
    return {part.name: part.read_bytes() for part in folder.glob("*.parquet")}


def slim_by_pyarrow(table, file):
    pq.write_table(table.select(SLIM), file)  # keeps the metadata of the schema, and so any mark in it


def slim_by_duckdb(rows, file):
    duckdb = pytest.importorskip("duckdb")
    duckdb.sql(f"copy (select {', '.join(SLIM)} from rows) to '{file}' (format parquet)")


def slim_by_polars(table, file):
    polars = pytest.importorskip("polars")
    polars.from_arrow(table.select(SLIM)).write_parquet(file)


def one_rank(table, file):
    pq.write_table(table.filter(pc.equal(table["rank"], 0)), file)


def fewer_samples(table, file):
    at = table.column_names.index("step_s")
    pq.write_table(table.set_column(at, table.schema.field(at), pc.list_slice(table["step_s"], 0, 1)), file)


def without_a_column(table, file):
    pq.write_table(table.drop_columns(["energy_j"]), file)


LESSER = (slim_by_pyarrow, slim_by_duckdb, slim_by_polars, one_rank, fewer_samples, without_a_column)


@pytest.mark.parametrize(
    ("write", "name"),
    [
        *((write, "merged-summary.parquet") for write in LESSER),
        *((slim_by_pyarrow, name) for name in ("20000101T000000-a0.parquet", "a/b/summary.parquet")),
    ],
)
def test_a_file_that_holds_less_replaces_hides_and_deletes_nothing(results, write, name):
    before, whole = files(results), dlbench.load(results)
    (results / name).parent.mkdir(parents=True, exist_ok=True)
    write(store.read_rows(results), results / name)
    theirs = (results / name).read_bytes()
    store.drop_contained_parts(results)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", store.SkippedPart)
        assert dlbench.load(results).equals(whole)
        assert dlbench.load([results / name, results]).equals(whole)
        assert (results / name).read_bytes() == theirs
        assert before.items() <= files(results).items()
        store.merge_parts_by_month(results)
        assert (results / name).read_bytes() == theirs
        assert dlbench.load(results).equals(whole)


@pytest.mark.parametrize("write", LESSER[:4])
def test_an_attempt_of_which_only_a_summary_is_left_is_not_stored(results, write):
    write(store.read_rows(results), results / "summary.parquet")
    for part in results.glob("2*.parquet"):
        part.unlink()
    assert store.complete_attempt_ids(results) == set()


def test_a_case_whose_samples_are_lost_has_not_ended(results):
    assert len(store.finished_keys(results)) == 1
    slim_by_pyarrow(store.read_rows(results), results / "summary.parquet")
    for part in results.glob("2*.parquet"):
        part.unlink()
    assert store.finished_keys(results) == set()


def test_a_whole_copy_by_others_is_never_deleted_and_holds_all(results):
    duckdb = pytest.importorskip("duckdb")
    duckdb.sql(f"copy (select * from '{results}/*.parquet') to '{results}/all.parquet' (format parquet)")
    whole, ids = dlbench.load(results), store.complete_attempt_ids(results)
    copy = (results / "all.parquet").read_bytes()
    store.merge_parts_by_month(results)
    store.drop_contained_parts(results)
    assert (results / "all.parquet").read_bytes() == copy
    for part in set(results.glob("*.parquet")) - {results / "all.parquet"}:
        part.unlink()
    assert store.complete_attempt_ids(results) == ids
    assert dlbench.load(results).equals(whole)


def test_copies_under_other_names_are_left_where_they_are(results):
    first = min(results.glob("*.parquet"))
    shutil.copy(first, results / "my-backup.parquet")
    assert parts.is_written_by_dlbench(first)
    assert not parts.is_written_by_dlbench(results / "my-backup.parquet")
    store.merge_parts_by_month(results)
    store.drop_contained_parts(results)
    assert (results / "my-backup.parquet").exists()


def test_files_that_disagree_are_named_with_the_one_that_is_used(results):
    table = store.read_rows(results)
    at = table.column_names.index("energy_j")
    other = table.set_column(at, table.schema.field(at), pc.add(table["energy_j"], 1.0)).drop_columns(["system_os"])
    pq.write_table(other, results / "zz.parquet")
    with pytest.warns(store.SkippedPart) as caught:
        frame = dlbench.load(results)
    assert set(frame["energy_j"]) == {3.0}
    words = [str(w.message) for w in caught]
    assert len(words) == 4
    assert all("zz.parquet differ in attempt" in text and "energy_j" in text for text in words)


def test_attempts_that_two_own_parts_tell_differently_are_not_merged(results):
    other = record("20261123T050000-a0")
    ranks = tuple((s, dataclasses.replace(m, energy_j=4.0)) for s, m in other.ranks)
    again = store.append_record(results, dataclasses.replace(other, ranks=ranks))
    assert again.name == "20261123T050000-a0-2.parquet"
    store.merge_parts_by_month(results)
    assert {"20261123T050000-a0.parquet", again.name} < set(files(results))
    assert store.drop_contained_parts(results) == 0


def test_a_merge_that_was_cut_off_is_tidied_and_equal_parts_leave_one(results):
    small = files(results)
    (merged,) = store.merge_parts_by_month(results)
    for name, content in small.items():
        (results / name).write_bytes(content)
    assert store.drop_contained_parts(results) == len(small)
    assert list(files(results)) == [merged.name]
    for name, content in small.items():
        (results / name).write_bytes(content)
    store.merge_parts_by_month(results)  # parts that share attempts are left alone
    assert set(files(results)) == {merged.name, *small}


def test_a_merge_whose_file_came_out_wrong_deletes_nothing(results, monkeypatch):
    before = files(results)
    whole = merging._PartFileRows.rows_of_same_attempts
    monkeypatch.setattr(
        merging._PartFileRows, "rows_of_same_attempts", lambda self, table: whole(self, table).slice(0, 1)
    )
    store.merge_parts_by_month(results)
    assert len(set(before) & set(files(results))) >= len(before) - 1


def test_a_full_disk_under_a_merge_leaves_all_as_it_was(results):
    before = files(results)
    if os.fork() == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as a disk that takes no more
        try:
            store.merge_parts_by_month(results)
        except StoreError as error:
            os._exit(7 if "cannot write" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
    assert files(results) == before
    assert len(list(results.iterdir())) == len(before)


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_merge_that_is_killed_anywhere_loses_and_doubles_nothing(results, monkeypatch, kept):
    whole = dlbench.load(results)
    if os.fork() == 0:
        contains, calls = merging.duplicates.contains_rows, []

        def killed(*tables):
            calls.append(0)
            return contains(*tables) if len(calls) <= kept else os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(merging.duplicates, "contains_rows", killed)
        store.merge_parts_by_month(results)
        os._exit(0)
    assert os.WTERMSIG(os.wait()[1]) == signal.SIGKILL
    assert len(files(results)) == 5 - kept
    assert dlbench.load(results).equals(whole)
    assert store.drop_contained_parts(results) == 4 - kept
    assert dlbench.load(results).equals(whole)


def test_memory_of_a_merge_is_that_of_some_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "_ROW_GROUP_BYTES", 1)
    monkeypatch.setattr(parts, "_ROWS_PER_PIECE", 2)
    for n in range(3):
        store.append_record(tmp_path, record(f"a{n}", ranks=5))
    before = dlbench.load(tmp_path)
    merged = pq.ParquetFile(*store.merge_parts_by_month(tmp_path))
    assert [merged.metadata.row_group(g).num_rows for g in range(merged.num_row_groups)] == [2, 2, 1] * 3
    assert len(files(tmp_path)) == 1
    assert dlbench.load(tmp_path).equals(before)


def test_a_part_that_cannot_be_read_makes_way_and_is_kept(results):
    part = results / "20261123T050000-a0.parquet"
    part.write_bytes(b"PAR1 torn")
    store.append_record(results, record("20261123T050000-a0"))
    assert (results / f"{part.name}.damaged").read_bytes() == b"PAR1 torn"
    assert "20261123T050000-a0" in store.complete_attempt_ids(results)


def test_many_parts_merge_in_several_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "ROW_GROUP", 5)
    for n in range(9):
        store.append_record(tmp_path, record(f"a{n}", ranks=1 + n % 3))
    before = dlbench.load(tmp_path)
    (merged,) = store.merge_parts_by_month(tmp_path)
    assert list(files(tmp_path)) == [merged.name]
    assert pq.ParquetFile(merged).num_row_groups > 2
    assert dlbench.load(tmp_path).equals(before)


def test_samples_that_are_no_numbers_are_the_same_in_both(tmp_path):
    one = record("a1")
    odd = tuple(
        (s, dataclasses.replace(m, power_w=(math.nan, math.inf, None, -0.0), energy_j=math.nan)) for s, m in one.ranks
    )
    for name in ("a1", "a2"):
        store.append_record(tmp_path, dataclasses.replace(one, attempt_id=name, ranks=odd))
    (merged,) = store.merge_parts_by_month(tmp_path)
    assert list(files(tmp_path)) == [merged.name]


def test_each_month_has_a_file_and_a_finished_month_is_not_written_again(tmp_path):
    for day in ("20260930", "20261001", "20261002", "20261130"):
        store.append_record(tmp_path, record(f"{day}T050000-0123456789ab-abcdef", ranks=2))
    before = dlbench.load(tmp_path)
    (october,) = store.merge_parts_by_month(tmp_path)
    assert october.name.startswith("merged-2026-10-")
    assert len(files(tmp_path)) == 3  # the only part of a month stays as it is
    store.append_record(tmp_path, record("20261101T050000-0123456789ab-abcdef", ranks=2))
    (november,) = store.merge_parts_by_month(tmp_path)
    assert november.name.startswith("merged-2026-11-")
    assert october.name in files(tmp_path)
    after = dlbench.load(tmp_path)
    assert len(after) == len(before) + 2
    assert store.merge_parts_by_month(tmp_path) == []


def test_a_file_of_several_months_is_split(tmp_path, monkeypatch):
    for day in ("20260930", "20261001", "20261002"):
        store.append_record(tmp_path, record(f"{day}T050000-0123456789ab-abcdef", ranks=2))
    before = dlbench.load(tmp_path)
    month_of = merging._month_of_attempt
    monkeypatch.setattr(merging, "_month_of_attempt", lambda attempt: "")
    (whole,) = store.merge_parts_by_month(tmp_path)  # as earlier versions merged
    monkeypatch.setattr(merging, "_month_of_attempt", month_of)
    assert [p.name[:15] for p in store.merge_parts_by_month(tmp_path)] == ["merged-2026-09-", "merged-2026-10-"]
    assert whole.name not in files(tmp_path)
    assert dlbench.load(tmp_path).equals(before)


def test_only_small_parts_are_merged_when_asked(results):
    (merged,) = store.merge_parts_by_month(results)
    for n in range(4, 6):
        store.append_record(results, record(f"20261123T05000{n}-a{n}"))
    size = merged.stat().st_size
    (second,) = store.merge_parts_by_month(results, max_bytes=size - 1)
    assert set(files(results)) == {merged.name, second.name}


def test_a_table_contains_another_only_value_by_value():
    from dlbench.results import duplicates

    def table(steps, energy=(1.0, 2.0)):
        return pa.table({"attempt_id": ["a", "a"], "rank": [0, 1], "step_s": steps, "energy_j": pa.array(energy)})

    full = table([[1.0, np.nan], [2.0]])
    assert duplicates.contains_rows(full, full.take([1, 0]))
    assert duplicates.contains_rows(full, table([[1.0, np.nan], None], (1.0, None)))
    assert not duplicates.contains_rows(full, table([[1.0], [2.0]]))
    assert not duplicates.contains_rows(full, table([[1.0, np.nan], [2.5]]))
    assert not duplicates.contains_rows(table([[1.0, np.nan], [2.0]], (1.0, None)), full)
    assert not duplicates.contains_rows(full.slice(0, 1), full)
    assert not duplicates.contains_rows(full.drop_columns(["energy_j"]), full)


@pytest.mark.parametrize("write", LESSER)
def test_a_part_that_somebody_rewrote_with_less_is_no_signed_one(results, write):
    part = results / "20261123T050000-a0.parquet"
    names = {p.stem for p in results.glob("*.parquet")}
    write(pq.read_table(part), part)
    assert not parts.is_written_by_dlbench(part)
    assert all(parts.is_written_by_dlbench(p) for p in results.glob("*.parquet") if p != part)
    store.merge_parts_by_month(results)
    assert part.exists()
    # Which no one can tell from outside.
    whole = write is fewer_samples
    assert (part.stem in store.complete_attempt_ids(results)) == whole
    assert names <= store.complete_attempt_ids(results) | {part.stem}
