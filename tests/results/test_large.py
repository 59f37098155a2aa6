"""Large stores: texts beyond 2 GiB, columns read only where they are needed, parts judged together."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dlbench
from dlbench.errors import UnknownName
from dlbench.results import query, store
from dlbench.results.frame_builder import FrameBuilder
from dlbench.results.reader import StoreReader
from dlbench.results.schema import IN_MEMORY, SCHEMA, to_table
from dlbench.suites.case import Case
from tests.fakes import records as fakes


def test_more_than_two_gib_of_text_are_loaded_and_asked(tmp_path):
    text = '{"libraries": "' + "x" * 19_000 + '"}'
    row = to_table([fakes.record(Case("alexnet", device="cuda"))])
    row = row.set_column(row.schema.get_field_index("system_details"), SCHEMA.field("system_details"), [[text]])
    with pq.ParquetWriter(tmp_path / "merged-fake.parquet", SCHEMA, compression="zstd") as writer:
        for begin in range(0, 120_000, 4000):
            rows = row.take(pa.array(np.zeros(4000, int)))
            ids = pa.array([f"a{i:06}" for i in range(begin, begin + 4000)])
            writer.write_table(rows.set_column(0, SCHEMA.field("attempt_id"), ids))
    assert SCHEMA.names[0] == "attempt_id"
    frame = dlbench.load(tmp_path, columns=["system_details", "attempt_id"])
    assert list(frame.columns) == ["system_details", "attempt_id"]
    assert len(frame) * len(text) > 2**31
    assert {id(value) for value in frame["system_details"]} == {id(frame["system_details"][0])}
    assert frame["system_details"][119_999] == text
    sql = "select count(*), min(length(system_details)), max(length(system_details)) from records"
    assert query.query(sql, [tmp_path])[1] == [(120_000, len(text), len(text))]


def test_rows_in_memory_hold_a_repeated_text_once_with_offsets_of_64_bits(tmp_path):
    fakes.fill(tmp_path / "s", [fakes.record(Case("alexnet", device="cuda"), number=i) for i in range(5)])
    (table,) = StoreReader.from_sources([tmp_path / "s"]).attempt_tables(SCHEMA.names)
    assert table.schema.equals(IN_MEMORY)
    assert table["system_details"].type == pa.dictionary(pa.int32(), pa.large_string())
    assert len(table["system_details"].combine_chunks().dictionary) == 1
    assert table.cast(SCHEMA).equals(store.read_rows(tmp_path / "s").cast(SCHEMA))


def test_pieces_of_a_column_whose_texts_are_all_equal_share_their_memory():
    schema = pa.schema([("a", pa.string()), ("b", pa.string())])
    texts = [["x"] * 1000, ["x"] * 900 + ["y"] * 100, [None] * 1000, ["x"] * 1200, [None, "x"] * 500, []]
    frame = FrameBuilder(schema)
    for piece in texts:
        frame.add(pa.table([piece, ["same"] * len(piece)], schema))
    found = frame.build()
    assert found["a"].astype(object).where(found["a"].notna(), None).tolist() == [
        text for piece in texts for text in piece
    ]
    assert found["b"].tolist() == ["same"] * len(found)
    held = {buffer.address: buffer.size for c in found["b"].array._pa_array.chunks for buffer in c.buffers() if buffer}
    assert sum(held.values()) < 2.5 * 12 * 1200  # each text takes 12 bytes: twice the longest piece so far


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("select model from records where status = 'ok'", {"model", "status"}),
        ("select max(list_max(step_s)) from records", {"step_s"}),
        ("select count(*) from records a join records b using (attempt_id)", {"attempt_id"}),
        ("select * from records limit 1", set(SCHEMA.names)),
    ],
)
def test_a_query_reads_the_columns_that_it_names(tmp_path, monkeypatch, sql, columns):
    fakes.fill(tmp_path / "s", [fakes.record(Case("alexnet", device="cuda"), number=i) for i in range(3)])
    read = []
    whole = StoreReader.attempt_tables

    def watched(self, names, on_progress=None):
        read.extend(names)
        return whole(self, names, on_progress)

    monkeypatch.setattr(StoreReader, "attempt_tables", watched)
    _, rows = query.query(sql, [tmp_path / "s"])
    assert rows
    assert set(read) == columns


def test_a_column_that_no_store_has_is_named(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'step_s'"):
        dlbench.load(tmp_path, columns=["step_ss"])


def test_one_bad_part_among_many_small_ones_is_named_and_costs_no_other(tmp_path):
    parts = [
        store.append_record(tmp_path, fakes.record(Case("alexnet", device="cuda"), number=i, step_s=(0.1,)))
        for i in range(40)
    ]
    table = pq.read_table(parts[7])
    at = table.schema.get_field_index("mode")
    pq.write_table(table.set_column(at, SCHEMA.field("mode"), [["juggling"]]), parts[7])
    reader = StoreReader.from_sources([tmp_path])
    found = pa.concat_tables(reader.attempt_tables(["mode"]))
    assert found.num_rows == 39
    (problem,) = reader.problems
    assert str(parts[7]) in problem
    assert "mode is 'juggling'" in problem
    assert set(reader.first_part_of_attempts(found["attempt_id"].to_pylist()).values()) == set(parts) - {parts[7]}
