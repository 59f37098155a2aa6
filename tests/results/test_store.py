import dataclasses
import os
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dlbench
from dlbench.errors import StoreError
from dlbench.results import store
from dlbench.results.records import Measurement, Outcome, Record, System
from dlbench.results.schema import SCHEMA, to_table
from dlbench.suites.case import Case
from tests.fakes import records as fakes

GOLDEN = Path(__file__).parents[1] / "golden" / "schema.txt"
CASE = Case("lenet5")


def record(attempt_id="a1", status="ok", ranks=2, **more):
    steps = (0.25, 0.5)
    measured = tuple(
        (
            System(hostname=f"n{r}", details={"libraries": ["libm.so.6"]}),
            Measurement(rank=r, world_size=ranks, step_s=steps, window_s=0.75, energy_j=3.0),
        )
        for r in range(ranks)
    )
    times = {"started_at": "2026-11-23T05:00:00+00:00", "finished_at": "2026-11-23T05:01:00+00:00"}
    return Record(attempt_id, CASE.id, "quick", 1, CASE.to_dict(), status=status, ranks=measured, **times, **more)


def test_the_schema_changes_only_on_purpose():
    lines = [f"{f.name}: {f.type} {(f.metadata or {}).get(b'unit', b'').decode()}".rstrip() for f in SCHEMA]
    if os.environ.get("DLBENCH_UPDATE_GOLDEN"):
        GOLDEN.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert lines == GOLDEN.read_text(encoding="utf-8").splitlines()


def test_every_quantity_has_its_unit_in_the_metadata():
    assert SCHEMA.field("step_s").metadata[b"unit"] == b"s"
    assert SCHEMA.field("energy_j").metadata[b"unit"] == b"J"
    assert SCHEMA.field("memory_rss_peak_bytes").metadata[b"unit"] == b"B"


def test_a_record_comes_back_with_a_row_per_rank(tmp_path):
    store.append_record(tmp_path, record())
    frame = dlbench.load(tmp_path)
    assert list(frame["rank"]) == [0, 1]
    assert list(frame["system_hostname"]) == ["n0", "n1"]
    assert list(frame["step_s"].iloc[1]) == [0.25, 0.5]
    assert frame["started_at"].iloc[0].isoformat() == "2026-11-23T05:00:00+00:00"


def test_a_failed_case_is_a_row_too_and_what_is_missing_is_null_not_zero(tmp_path):
    store.append_record(tmp_path, record(status="oom", ranks=0, error="needs 96 GB of 80 GB"))
    frame = dlbench.load(tmp_path)
    assert list(frame["status"]) == ["oom"]
    assert frame["energy_j"].isna().all()
    assert frame["error"].iloc[0] == "needs 96 GB of 80 GB"


def test_duckdb_and_polars_read_the_parts_without_our_code(tmp_path):
    duckdb, polars = pytest.importorskip("duckdb"), pytest.importorskip("polars")
    store.append_record(tmp_path, record("a1"))
    store.append_record(tmp_path, record("a2"))
    sql = f"select model, list_sum(step_s), energy_j from '{tmp_path}/*.parquet' order by attempt_id, rank"
    assert duckdb.sql(sql).fetchall() == [("lenet5", 0.75, 3.0)] * 4
    frame = polars.read_parquet(f"{tmp_path}/*.parquet")
    assert frame["step_s"].list.sum().to_list() == [0.75] * 4


def test_a_corrupt_part_is_passed_over_with_a_warning_and_the_others_are_read(tmp_path):
    store.append_record(tmp_path, record("a1"))
    (tmp_path / "a2.parquet").write_bytes(b"PAR1 not really")
    with pytest.warns(store.SkippedPart, match=r"a2\.parquet"):
        assert list(dlbench.load(tmp_path)["attempt_id"].unique()) == ["a1"]
    assert store.complete_attempt_ids(tmp_path) == {"a1"}
    assert len(store.finished_keys(tmp_path)) == 1


def test_somebody_elses_parquet_is_passed_over_with_a_warning(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.warns(store.SkippedPart, match="is not a dlbench store"):
        assert dlbench.load(tmp_path).empty


def test_a_part_written_before_a_column_existed_is_read_with_nulls(tmp_path):
    part = store.append_record(tmp_path, record("a1"))
    table = pq.read_table(part)
    pq.write_table(table.drop_columns(["energy_j", "system_os"]), part)
    frame = dlbench.load(tmp_path)
    assert list(frame.columns) == SCHEMA.names
    assert frame["energy_j"].isna().all()


def test_a_part_of_a_newer_schema_is_read_with_a_warning(tmp_path):
    part = store.append_record(tmp_path, record("a1"))
    table = pq.read_table(part).append_column("news", pa.array([1, 2]))
    pq.write_table(table.replace_schema_metadata({"dlbench_schema_version": "99"}), part)
    with pytest.warns(store.SkippedPart, match="of this dlbench: the file's additional columns"):
        assert len(dlbench.load(tmp_path)) == 2


def test_merging_keeps_every_row_once(tmp_path):
    for n in range(5):
        store.append_record(tmp_path, record(f"a{n}"))
    before = dlbench.load(tmp_path)
    (merged,) = store.merge_parts_by_month(tmp_path)
    assert [p.name for p in tmp_path.glob("*.parquet")] == [merged.name]
    assert dlbench.load(tmp_path).equals(before)
    assert store.complete_attempt_ids(tmp_path) == {f"a{n}" for n in range(5)}
    assert store.merge_parts_by_month(tmp_path) == []


def test_a_merge_that_was_cut_off_doubles_nothing(tmp_path):
    kept = [store.append_record(tmp_path, record(f"a{n}")).read_bytes() for n in range(3)]
    store.merge_parts_by_month(tmp_path)
    (tmp_path / "a1.parquet").write_bytes(kept[1])
    assert len(dlbench.load(tmp_path)) == 6


def test_an_unwritable_folder_is_a_clear_error(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        store.append_record(tmp_path / "f" / "g", record())


def test_no_results_is_a_clear_error_and_an_empty_folder_an_empty_table(tmp_path):
    with pytest.raises(StoreError, match="no results at"):
        dlbench.load(tmp_path / "nothing")
    assert dlbench.load(tmp_path).empty


def test_nothing_half_written_is_ever_seen(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(StoreError, match="No space left"):
        store.append_record(tmp_path, record())
    assert list(tmp_path.iterdir()) == []


def test_an_outcome_survives_json_and_nan_becomes_null():
    outcome = Outcome("ok", None, ((System(), Measurement(step_s=(1.0, float("nan")), loss_last=float("inf"))),))
    back = Outcome.from_json(outcome.to_json())
    assert back.ranks[0][1].step_s == (1.0, None)
    assert back.ranks[0][1].loss_last is None


def test_an_outcome_of_a_newer_version_is_read(tmp_path):
    text = Outcome("ok", None, ((System(), Measurement()),)).to_json().replace('"rank": 0', '"rank": 0, "news": 1')
    assert Outcome.from_json(text).ranks[0][1] == Measurement()


def test_a_record_survives_json_without_its_ranks():
    full = record()
    assert Record.from_json(full.to_json()) == dataclasses.replace(full, ranks=())


def test_reading_many_sources_reads_each_row_once(tmp_path):
    store.append_record(tmp_path / "x", record("a1"))
    store.append_record(tmp_path / "y", record("a2"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(dlbench.load([tmp_path / "x", tmp_path / "y", tmp_path])) == 4
        assert len(dlbench.load(f"{tmp_path}/*")) == 4


@pytest.mark.parametrize("column", ["attempt_id", "rank", "protocol", "model", "batch_size", "started_at"])
def test_rows_that_do_not_say_what_was_measured_make_their_part_unreadable(tmp_path, column):
    table = to_table([fakes.record(Case("lenet5"), fakes.CPU)])
    at = table.column_names.index(column)
    spoilt = table.set_column(at, table.schema.field(column), pa.nulls(1, table.schema.field(column).type))
    pq.write_table(spoilt, tmp_path / "part.parquet")
    with pytest.raises(StoreError, match=f"some rows have no value in column '{column}'"):
        store.read_part(tmp_path / "part.parquet")
