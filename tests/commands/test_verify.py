"""`dlbench verify`: ten ways of doctoring a store are found, and honest stores pass."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlbench.__main__ import main
from dlbench.results import store
from dlbench.results.reader import StoreReader
from dlbench.results.records import Outcome
from dlbench.suites.case import Case, Protocol
from tests.fakes import records as fakes

ROOT = Path(__file__).parents[2]
CASES = [Case("vgg16", device="cuda", batch_size=batch, protocol=Protocol(min_time_s=1.0)) for batch in (8, 16, 32)]


@pytest.fixture
def results(tmp_path):
    """Three attempts with their folders, as `dlbench run` leaves them."""
    root = tmp_path / "results"
    root.mkdir()
    for number, case in enumerate(CASES):
        record = fakes.record(case, number=number)
        folder = root / "attempts" / record.attempt_id
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(record.to_json())
        (folder / "result.json").write_text(Outcome("ok", None, record.ranks).to_json())
        store.append_record(root, record)
    return root


def edit(results, column, change, keep_folder=False):
    """Change a column of the first attempt, as somebody with pandas would."""
    part = sorted(results.glob("*.parquet"))[0]
    table = pq.read_table(part)
    place = table.column_names.index(column)
    values = [change(value) for value in table[column].to_pylist()]
    table = table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))
    pq.write_table(table, part)
    if not keep_folder:
        for file in (results / "attempts").glob("*/*.json"):
            file.unlink()


def verify(results, capsys):
    status = main(["verify", str(results)])
    output = capsys.readouterr()
    return status, output.out, output.err


def test_an_honest_store_passes_and_what_was_looked_at_is_listed(results, capsys):
    status, out, err = verify(results, capsys)
    assert status == 0, out
    assert "3 rows: nothing found" in err
    assert "the case id fits the case's axes and protocol" in out


@pytest.mark.parametrize(
    "source",
    ["docs/experiments/data/aa.parquet", *sorted(map(str, (ROOT / "reports").glob("reference-*/*.parquet")))],
)
def test_stores_that_were_really_measured_pass(source, capsys):
    status, out, _ = verify(ROOT / source, capsys)
    assert status == 0, out[:3000]


@pytest.mark.parametrize(
    ("column", "change", "finding"),
    [
        ("batch_size", lambda v: 2 * v, "axes and protocol give case id"),
        (
            "protocol",
            lambda v: v.replace('"min_time_s": 1.0', '"min_time_s": 0.1'),
            "axes and protocol give case id",
        ),
        ("step_s", lambda v: [s * 0.9 for s in v], "steps sum to"),
        ("forward_flop", lambda v: 100 * v, "above the peak of 67.0 TFLOP/s"),
        ("energy_j", lambda v: 0.7 * v, "neither with the device's energy counter nor with its sampled power"),
        ("power_w", lambda v: [0.5 * w for w in v], "the mean of the power samples"),
        ("power_limit_w", lambda v: 50.0, "above the power limit of 50 W"),
        (
            "step_s",
            lambda v: v[: len(v) // 2] + v[: len(v) - len(v) // 2],
            "have the same times as an earlier block of steps",
        ),
        ("sm_clock_min_mhz", lambda v: 2500.0, "above the device's highest, 1980 MHz"),
        ("started_at", lambda v: v.replace(year=v.year - 1), "apart, but the attempt took"),
        ("parameters", lambda v: v - 1_000_000, "VGG-16 has 138357544"),
        ("forward_macs", lambda v: v // 2, "VGG-16 gives 15470264320"),
        ("warmup_steps", lambda v: 0, "warm-up steps, but the protocol requires"),
        ("window_s", lambda v: 0.2 * v, "by the host's clock"),
        ("memory_allocated_peak_bytes", lambda v: 10 * v, ") is larger than "),
    ],
)
def test_a_doctored_value_is_found(results, capsys, column, change, finding):
    edit(results, column, change)
    if column == "step_s" and "same times" in finding:
        part = sorted(results.glob("*.parquet"))[0]
        total = sum(pq.read_table(part)["step_s"].to_pylist()[0])
        edit(results, "device_window_s", lambda v: total)
        edit(results, "window_s", lambda v: total * 1.001)
    status, out, _ = verify(results, capsys)
    assert status == 1
    assert finding in out


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("loss_last", lambda v: v - 0.5),
        ("status", lambda v: "unstable"),
        ("system_driver_version", lambda v: "999.9"),
        ("wall_s", lambda v: v + 1),
        ("system_details", lambda v: "{}"),
    ],
)
def test_parquet_that_differs_from_the_attempt_is_found_whatever_was_edited(results, capsys, column, change):
    edit(results, column, change, keep_folder=True)
    status, out, _ = verify(results, capsys)
    assert status == 1
    assert f"the row differs from the attempt's own files in {column}" in out


def test_samples_of_another_attempt_are_found(results, capsys):
    first, second = sorted(results.glob("*.parquet"))[:2]
    samples = pq.read_table(first)
    table = pq.read_table(second)
    for name in ("step_s", "device_window_s", "window_s"):
        table = table.set_column(table.column_names.index(name), table.schema.field(name), samples[name])
    pq.write_table(table, second)
    status, out, _ = verify(results, capsys)
    assert status == 1
    assert "step times are the same as in attempt" in out


def test_attempts_that_still_run_or_end_meanwhile_are_not_left_out(results, capsys, monkeypatch):
    running = results / "attempts" / "20261129T000000-0123456789ab-abcdef"
    running.mkdir()
    late = fakes.record(CASES[0], number=9)
    list_parts = StoreReader.from_sources

    def then_one_ends(sources):
        found = list_parts(sources)
        (running / "record.json").write_text(dataclasses.replace(late, attempt_id=running.name).to_json())
        return found

    monkeypatch.setattr(StoreReader, "from_sources", then_one_ends)
    status, out, _ = verify(results, capsys)
    assert status == 0, out


def test_an_attempt_that_was_taken_out_is_found(results, capsys):
    sorted(results.glob("*.parquet"))[0].unlink()
    status, out, _ = verify(results, capsys)
    assert status == 1
    assert "the attempt ended as ok, but is in no Parquet file" in out


def test_a_rank_that_was_taken_out_is_found(tmp_path, capsys):
    case = Case("vgg16", device="cuda", devices_per_node=2, protocol=Protocol(min_time_s=1.0))
    record = fakes.record(case)
    store.append_record(tmp_path, dataclasses.replace(record, ranks=record.ranks[:1]))
    status, out, _ = verify(tmp_path, capsys)
    assert status == 1
    assert "the store has rows of only 1 of 2 ranks" in out


def test_another_protocol_within_one_suite_is_found(tmp_path, capsys):
    case = Case("vgg16", device="cuda", protocol=Protocol(min_time_s=1.0))
    easier = dataclasses.replace(case, protocol=Protocol(min_time_s=0.5, min_steps=30))
    fakes.fill(tmp_path, [fakes.record(case), fakes.record(easier, number=1)])
    status, out, _ = verify(tmp_path, capsys)
    assert status == 1
    assert "the protocol differs" in out


def test_an_empty_folder_has_nothing_to_check(tmp_path, capsys):
    assert verify(tmp_path, capsys)[0] == 2
