"""Stores that other programs have written again: the same rows, whatever types, folders and orders they chose."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dlbench
from dlbench.campaign.results_maintenance import rebuild_parquet_parts
from dlbench.errors import StoreError
from dlbench.launch import attempts
from dlbench.results import store
from dlbench.results.query import query
from tests.results.test_store import record


@pytest.fixture
def written(tmp_path):
    for n in range(3):
        store.append_record(tmp_path / "own", record(f"a{n}"))
    return store.read_rows(tmp_path / "own"), dlbench.load(tmp_path / "own"), tmp_path / "theirs"


def cast(kinds):
    def change(table):
        for place, f in enumerate(table.schema):
            if to := kinds(f.type):
                table = table.set_column(place, f.name, table[f.name].cast(to))
        return table

    return change


CHANGES = {
    "large texts": cast(lambda kind: pa.large_string() if kind == pa.string() else None),
    "views of texts": cast(lambda kind: pa.string_view() if kind == pa.string() else None),
    "large lists": cast(lambda kind: pa.large_list(pa.float64()) if kind == pa.list_(pa.float64()) else None),
    "times as texts": cast(lambda kind: pa.string() if pa.types.is_timestamp(kind) else None),
    "short numbers": cast(lambda kind: {pa.int64(): pa.int32(), pa.float64(): pa.float32()}.get(kind)),
    "categories": lambda table: pa.table(
        {
            n: c.dictionary_encode() if c.type == pa.string() else c
            for n, c in zip(table.column_names, table.columns, strict=True)
        }
    ),
    "shuffled": lambda table: table.select(table.column_names[::-1]).take(list(range(table.num_rows))[::-1]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_types_and_orders_of_other_programs_are_read_as_our_own(written, change):
    table, whole, folder = written
    folder.mkdir()
    pq.write_table(change(table), folder / "x.parquet")
    assert dlbench.load(folder).equals(whole)


def test_keys_in_the_names_of_folders_are_columns(written):
    polars = pytest.importorskip("polars")
    table, whole, folder = written
    polars.from_arrow(table).write_parquet(folder, partition_by=["model", "rank"], mkdir=True)
    for part in folder.rglob("*.parquet"):
        pq.write_table(pq.ParquetFile(part).read().drop_columns(["model", "rank"]), part)
    assert dlbench.load(folder).equals(whole)


def test_rows_of_an_older_dlbench_that_were_joined_with_newer_ones_have_the_same_setting(written):
    table, whole, folder = written
    folder.mkdir()
    older = table.slice(0, 2).drop_columns(["loader_workers", "freeze", "threads"])
    joined = pa.concat_tables([older, table.slice(2)], promote_options="default")
    pq.write_table(joined, folder / "joined.parquet")
    assert joined["freeze"].null_count == 2
    assert dlbench.load(folder).equals(whole)


def test_missing_columns_that_say_what_was_measured_are_named(written):
    table, _, folder = written
    folder.mkdir()
    pq.write_table(table.drop_columns(["protocol", "device"]), folder / "x.parquet")
    with pytest.raises(StoreError, match="no column 'device', 'protocol'"):
        dlbench.load(folder / "x.parquet")


def test_a_record_whose_id_leads_elsewhere_or_is_null_takes_its_folder_s_name(tmp_path):
    root = tmp_path / "a" / "b" / "results"
    for name, odd in (("one", "../../../ESCAPED"), ("two", None)):
        folder = attempts.attempts_folder(root) / name
        folder.mkdir(parents=True)
        made = record(name, status="crashed", ranks=0)
        values = json.loads(made.to_json()) | {"attempt_id": odd}
        (folder / "record.json").write_text(json.dumps(values))
    assert rebuild_parquet_parts(root, attempts.find_closed_attempts(root)) == 2
    assert sorted(p.name for p in root.glob("*.parquet")) == ["one.parquet", "two.parquet"]
    assert not list(tmp_path.rglob("*ESCAPED*"))


def test_a_folder_that_may_not_be_read_is_named_and_the_rest_read(written, monkeypatch):
    _, whole, folder = written
    root = folder.parent / "own"
    (root / "closed").mkdir()
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.warns(store.SkippedPart, match="closed: Permission denied"):
        assert dlbench.load(root).equals(whole)


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("columns", [None, ["attempt_id", "window_s"]])
def test_an_attempt_with_a_step_that_no_clock_gives_is_named_whatever_is_asked_for(written, bad, columns):
    table, _, folder = written
    folder.mkdir()
    at = table.column_names.index("step_s")
    spoilt = pa.array([[0.1, bad], *table["step_s"].to_pylist()[1:]])
    pq.write_table(table.set_column(at, "step_s", spoilt), folder / "x.parquet")
    with pytest.warns(store.SkippedPart, match=f"attempt 'a0' is skipped: step_s contains {bad}; times must be"):
        assert set(dlbench.load(folder, columns)["attempt_id"]) == {"a1", "a2"}
    with pytest.warns(store.SkippedPart, match="step_s contains"):
        assert query("select count(*) from records", [folder])[1] == [(4,)]


def test_one_bad_attempt_of_a_file_is_named_and_the_others_read(written):
    table, whole, folder = written
    folder.mkdir()
    at = table.column_names.index("precision")
    spoilt = pa.array(["fp8", *["fp32"] * (table.num_rows - 1)])
    pq.write_table(table.set_column(at, "precision", spoilt), folder / "x.parquet")
    with pytest.warns(store.SkippedPart, match="attempt 'a0' is skipped: precision is 'fp8'"):
        assert dlbench.load(folder).equals(whole[whole["attempt_id"] != "a0"].reset_index(drop=True))
