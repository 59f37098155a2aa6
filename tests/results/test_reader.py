"""A store read in pieces gives the same as one read whole, whatever its parts look like."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dlbench
from dlbench.errors import StoreError
from dlbench.results import reader, store
from dlbench.results.reader import NUMBER_LISTS, StoreReader, tables_to_frame
from dlbench.results.schema import SCHEMA, to_table
from dlbench.suites.case import Case
from tests.fakes import records as fakes

COLUMNS = [name for name in SCHEMA.names if name not in NUMBER_LISTS]


def made(count, ranks=1, **changes):
    """Records with different numbers of steps."""
    case = Case("alexnet", device="cuda", devices_per_node=ranks)
    return [
        fakes.record(case, number=i, step_s=tuple(0.01 * (k + 1) for k in range(i % 7)), **changes)
        for i in range(count)
    ]


def rows_and_steps(found):
    """All rows of a reader and, by attempt and rank, the steps; asserts that an attempt is never torn apart."""
    tables, steps, seen = [], {}, set()
    for batch in found.attempt_batches(SCHEMA.names):
        keys = list(zip(batch.scalars["attempt_id"].to_pylist(), batch.scalars["rank"].to_pylist(), strict=True))
        attempts = {attempt for attempt, _ in keys}
        assert keys == sorted(keys)
        assert not attempts & seen
        seen |= attempts
        steps |= {key: list(batch.lists["step_s"].row(row)) for row, key in enumerate(keys)}
        tables.append(batch.scalars)
    return tables_to_frame(tables, COLUMNS), steps


def check(folder):
    whole = dlbench.load(folder)
    rows, steps = rows_and_steps(StoreReader.from_sources([folder]))
    assert rows[COLUMNS].equals(whole[COLUMNS])
    expected = {(a, r): list(s) for a, r, s in whole[["attempt_id", "rank", "step_s"]].itertuples(index=False)}
    assert steps == expected


def test_small_parts_are_read_as_a_whole_store_is(tmp_path):
    for record in made(20, ranks=3):
        store.append_record(tmp_path, record)
    check(tmp_path)


def test_a_signed_part_of_one_attempt_is_opened_once_and_all_its_rows_are_counted(tmp_path, monkeypatch):
    parts = [store.append_record(tmp_path, record) for record in made(6, ranks=3)]
    # A copy under another name is no signed part, and holds what another part holds.
    (tmp_path / "copy.parquet").write_bytes(parts[2].read_bytes())
    opened = []
    whole = reader.store.open_part

    def counted(part):
        opened.append(part.name)
        return whole(part)

    monkeypatch.setattr(reader.store, "open_part", counted)
    found = StoreReader.from_sources([tmp_path])
    assert sum(table.num_rows for table in found.attempt_tables(["model"])) == 18
    assert (found.num_rows, found.num_held, found.num_copies) == (21, 21, 3)
    assert {opened.count(part.name) for part in parts if part != parts[2]} == {1}


@pytest.mark.parametrize("batch_bytes", [1, 5_000, 10**9])
def test_a_large_part_is_read_in_pieces_that_tear_no_attempt_apart(tmp_path, monkeypatch, batch_bytes):
    monkeypatch.setattr(reader, "BATCH_BYTES", batch_bytes)
    monkeypatch.setattr(reader, "_SMALL_PART_BYTES", 0)
    pq.write_table(to_table(made(40, ranks=3)), tmp_path / "merged-fake.parquet", row_group_size=17)
    check(tmp_path)


def test_a_large_part_whose_rows_are_shuffled_is_read_right_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "BATCH_BYTES", 5_000)
    monkeypatch.setattr(reader, "_SMALL_PART_BYTES", 0)
    table = to_table(made(30, ranks=2))
    pq.write_table(table.take(np.random.default_rng(1).permutation(table.num_rows)), tmp_path / "x.parquet")
    check(tmp_path)


def test_an_attempt_in_several_parts_is_read_once(tmp_path):
    records = made(6, ranks=2)
    for record in records:
        store.append_record(tmp_path, record)
    pq.write_table(to_table(records[2:5]), tmp_path / "merged-of-some.parquet")
    check(tmp_path)


def test_the_samples_of_some_attempts_are_found_where_they_were_read(tmp_path):
    records = made(10)
    pq.write_table(to_table(records[:6]), tmp_path / "merged-fake.parquet")
    for record in records[6:]:
        store.append_record(tmp_path, record)
    found = StoreReader.from_sources([tmp_path])
    list(found.attempt_batches(["status"]))
    wanted = [records[i].attempt_id for i in (3, 8, 5)]
    (batch,) = found.read_attempts(wanted, ["step_s"])
    assert batch.scalars["attempt_id"].to_pylist() == sorted(wanted)
    assert list(batch.lists["step_s"].row_lengths) == [3, 5, 1]


def test_old_parts_lack_columns_and_new_ones_are_told_of(tmp_path):
    old, new, _ = (store.append_record(tmp_path, record) for record in made(3))
    pq.write_table(pq.read_table(old).drop_columns(["step_s", "energy_j", "warnings"]), old)
    table = pq.read_table(new).append_column("news", pa.array([1]))
    pq.write_table(table.replace_schema_metadata({"dlbench_schema_version": "99"}), new)
    found = StoreReader.from_sources([tmp_path])
    rows, steps = rows_and_steps(found)
    assert len(rows) == 3
    assert rows["energy_j"].isna().tolist() == [True, False, False]
    assert [len(s) for s in steps.values()] == [0, 1, 2]
    (problem,) = found.problems
    assert f"{new} has schema 99, newer than" in problem


def test_what_cannot_be_read_is_told_and_the_rest_is_read(tmp_path):
    for record in made(3):
        store.append_record(tmp_path, record)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "foreign.parquet")
    wrong = to_table(made(1)).drop_columns(["batch_size"]).append_column("batch_size", pa.array(["many"]))
    pq.write_table(wrong, tmp_path / "wrong.parquet")
    found = StoreReader.from_sources([tmp_path])
    rows, _ = rows_and_steps(found)
    assert len(rows) == 3
    assert [problem.split(": ")[0].rpartition("/")[2] for problem in found.problems] == [
        "broken.parquet", "foreign.parquet", "wrong.parquet",
    ]  # fmt: skip


def test_damage_inside_a_large_part_costs_what_lies_behind_it(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "BATCH_BYTES", 5_000)
    monkeypatch.setattr(reader, "_SMALL_PART_BYTES", 0)
    part = tmp_path / "merged-fake.parquet"
    pq.write_table(to_table(made(40)), part, row_group_size=10, compression="zstd")
    index = pq.ParquetFile(part).schema_arrow.names.index("status")
    place = pq.ParquetFile(part).metadata.row_group(3).column(index).data_page_offset
    content = bytearray(part.read_bytes())
    content[place : place + 20] = b"\xff" * 20
    part.write_bytes(content)
    found = StoreReader.from_sources([tmp_path])
    rows, _ = rows_and_steps(found)
    assert 0 < len(rows) < 40
    assert f"only the first {len(rows)} rows of the file were read" in found.problems[0]


def test_one_file_that_cannot_be_read_is_an_error_when_it_is_named(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"no")
    with pytest.raises(StoreError, match="cannot read"):
        StoreReader.from_sources([tmp_path / "x.parquet"])
    with pytest.raises(StoreError, match="no results at"):
        StoreReader.from_sources([tmp_path / "nothing"])


def test_an_empty_folder_has_no_rows_but_all_columns(tmp_path):
    rows, steps = rows_and_steps(StoreReader.from_sources([tmp_path]))
    assert list(rows.columns) == COLUMNS
    assert rows.empty
    assert steps == {}


def test_readers_are_told_how_far_it_is(tmp_path):
    for record in made(70):
        store.append_record(tmp_path, record)
    on_progress = []
    list(StoreReader.from_sources([tmp_path]).attempt_batches(["status"], lambda *counts: on_progress.append(counts)))
    assert on_progress == [(32, 70), (64, 70), (70, 70)]
