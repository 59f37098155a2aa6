"""What a report reads: the same whatever the store's shape, and a fair choice where there is too much to show."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import dlbench
from dlbench.report.analysis import content, derived_metrics
from dlbench.report.analysis.content import limit_shown_cases, read_content
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.forms.frame_csv import csv_chunks
from dlbench.results import reader, store
from dlbench.results.schema import SCHEMA, to_table
from dlbench.suites.case import Case
from tests.fakes import records as fakes
from tests.fakes.reports import build_report


def both_systems():
    return [*fakes.quick(fakes.GPU), *fakes.quick(fakes.CPU), fakes.record(Case("vgg16"), number=99, status="oom")]


def same(a, b):
    pd.testing.assert_frame_equal(a.attempts, b.attempts)
    pd.testing.assert_frame_equal(a.shown, b.shown)
    pd.testing.assert_frame_equal(a.rows, b.rows)


def test_parts_pieces_and_a_merged_store_give_the_same_content(tmp_path, monkeypatch):
    records = both_systems()
    for record in records:
        store.append_record(tmp_path / "parts" / "store", record)
    merged = read_content([fakes.fill(tmp_path / "merged", records)])
    same(read_content([tmp_path / "parts" / "store"]), merged)
    monkeypatch.setattr(reader, "BATCH_BYTES", 10_000)
    monkeypatch.setattr(reader, "_SMALL_PART_BYTES", 0)
    same(read_content([tmp_path / "merged"]), merged)


def test_the_content_holds_the_metrics_of_all_columns_read_at_once(tmp_path):
    folder = fakes.fill(tmp_path / "s", both_systems())
    found, plain = read_content([folder]), derived_metrics.attempts_from_rows(dlbench.load(folder))
    names = [name for name in METRICS if plain[name].notna().any()]
    pd.testing.assert_frame_equal(found.attempts[names], plain[names], check_dtype=False)
    shown = found.shown.set_index("attempt_id")["samples"]
    for attempt, steps in plain.set_index("attempt_id")["samples"].items():
        if len(steps):
            assert np.array_equal(shown[attempt], steps)


@pytest.mark.parametrize("bad", [0.0, float("nan"), -0.1])
def test_one_bad_step_without_synchronisation_costs_that_case_its_communication_alone(tmp_path, bad):
    case = Case("alexnet", device="cuda", devices_per_node=2)
    spoilt, fine = (fakes.record(case, number=i, unsynced_step_s=(0.1,) * 30) for i in range(2))
    fine = dataclasses.replace(fine, suite="fine")
    (system, a), (_, b) = spoilt.ranks
    ranks = (system, dataclasses.replace(a, unsynced_step_s=(0.1,) * 29 + (bad,))), (system, b)
    found = read_content([fakes.fill(tmp_path / "s", [dataclasses.replace(spoilt, ranks=ranks), fine])]).shown
    assert found["unsynced"].isna().tolist() == [True, False]
    assert found["unsynced_low"].isna().tolist() == [True, False]


def test_rows_hold_no_samples_and_the_details_of_each_system_once(tmp_path):
    found = read_content([fakes.fill(tmp_path / "s", both_systems())])
    assert not set(reader.NUMBER_LISTS) & set(found.rows.columns)
    on_progress = found.rows[found.rows["system_details"].notna()]
    assert sorted(on_progress["system_id"]) == sorted(found.system_names)
    assert all(json.loads(text)["libraries"] for text in on_progress["system_details"])


def test_an_attempt_in_two_sources_counts_once(tmp_path):
    records = fakes.quick()
    a, b = fakes.fill(tmp_path / "a", records[:8]), fakes.fill(tmp_path / "b", records[4:])
    found = read_content([a, b])
    assert len(found.attempts) == len(records)
    assert found.shown["samples"].map(len).gt(0).all()


def test_of_too_many_cases_every_system_network_and_setting_keeps_some(tmp_path, monkeypatch):
    cases = [Case(m, batch_size=b, repeat=r) for r in range(3) for m in ("lenet5", "vgg16") for b in (1, 2, 4)]
    records = [fakes.record(c, s, i) for s in (fakes.CPU, fakes.GPU) for i, c in enumerate(cases)]
    records = [dataclasses.replace(r, attempt_id=f"{i:03d}") for i, r in enumerate(records)]
    folder = fakes.fill(tmp_path / "s", records)
    everything = read_content([folder])
    monkeypatch.setattr(content, "MAX_CASES", 12)
    found = read_content([folder])
    assert (len(everything.shown), everything.left_out) == (36, 0)
    assert (len(found.shown), found.left_out) == (12, 24)
    assert len(found.shown.groupby(["system_id", "model", "batch_size"])) == 12
    assert set(found.shown["repeat"]) == {2}
    fastest = limit_shown_cases(everything.shown, 4).groupby(["system_id", "model"])["throughput"].max()
    assert fastest.equals(
        everything.shown[everything.shown["repeat"] == 2].groupby(["system_id", "model"])["throughput"].max()
    )
    text = build_report([folder], tmp_path / "report").read_text()
    assert "too many cases" in text
    assert len(pd.read_csv(tmp_path / "report" / "metrics.csv")) == 36


def test_a_store_of_an_older_and_one_of_a_newer_schema_still_report(tmp_path):
    old = to_table(fakes.quick()[:4]).drop_columns(
        ["unsynced_step_s", "phase_stride", "warmup_step_s", "system_details", "warnings", "power_w", "backend"]
    )
    (tmp_path / "old").mkdir()
    pq.write_table(old.replace_schema_metadata({"dlbench_schema_version": "0"}), tmp_path / "old" / "x.parquet")
    new = to_table(fakes.quick(fakes.GPU)[:4]).append_column("news", pa.array(["?"] * 4))
    (tmp_path / "new").mkdir()
    pq.write_table(new.replace_schema_metadata({"dlbench_schema_version": "99"}), tmp_path / "new" / "y.parquet")
    path = build_report([tmp_path / "old", tmp_path / "new"], tmp_path / "report")
    assert "y.parquet has schema 99, newer than" in path.read_text()
    rows = pd.read_csv(tmp_path / "report" / "metrics.csv")
    assert len(rows) == 8
    assert rows[["throughput", "forward_time"]].notna().all(axis=None)


def test_an_empty_store_has_all_columns(tmp_path):
    (tmp_path / "s").mkdir()
    found = read_content([tmp_path / "s"])
    assert set(METRICS) <= set(found.attempts.columns)
    assert {"samples", "power_w", "unsynced", "allreduce", "throughput_low"} <= set(found.shown.columns)
    facts = {name for name in SCHEMA.names if name.startswith("system_")}
    assert content.ROW_COLUMNS | facts <= set(found.rows.columns)


def test_many_unreadable_parts_are_counted_not_listed(tmp_path):
    store.append_record(tmp_path, fakes.quick()[0])
    for i in range(30):
        (tmp_path / f"broken-{i:02d}.parquet").write_bytes(b"no")
    found = read_content([tmp_path])
    assert len(found.skipped) == 21
    assert found.skipped[-1] == "10 more parts like these"


def as_pandas_says(frame):
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def test_the_csv_is_that_of_pandas(tmp_path, monkeypatch):
    attempts = read_content([fakes.fill(tmp_path / "s", both_systems())]).attempts
    attempts.loc[0, "error"] = 'a "quoted", text\nof two lines'
    attempts.loc[1, ["throughput", "started_at"]] = 1.5e-7, pd.Timestamp("2026-11-20 08:00:00.125", tz="UTC")
    attempts.loc[2, "throughput"] = -0.0
    plain = attempts.drop(columns=["warnings", "throttle_reasons"])
    assert "".join(csv_chunks(attempts, list(plain))) == as_pandas_says(plain)
    monkeypatch.setattr("dlbench.report.forms.frame_csv._ROWS_PER_PART", 7)
    assert "".join(csv_chunks(attempts, list(plain))) == as_pandas_says(plain)


@pytest.mark.parametrize("frame", [pd.DataFrame({"a": [], "b": []}), pd.DataFrame({"a": [True, None], "b": ["", "x"]})])
def test_the_csv_of_little_is_that_of_pandas(frame):
    assert "".join(csv_chunks(frame, ["a", "b"])) == as_pandas_says(frame)


def test_lists_stand_in_one_field_of_the_csv():
    frame = pd.DataFrame({"a": [np.array(["x", "y"], dtype=object), np.array([]), None], "b": [1, 2, 3]})
    assert "".join(csv_chunks(frame, ["a", "b"])) == "a,b\nx; y,1\n,2\n,3\n"


def of_two_cases(folder, time):
    good, bad = fakes.record(Case("lenet5"), number=0), fakes.record(Case("vgg16"), number=1)
    system, measurement = bad.ranks[0]
    steps = (time, *measurement.step_s[1:])
    bad = dataclasses.replace(bad, ranks=((system, dataclasses.replace(measurement, step_s=steps)),))
    return read_content([fakes.fill(folder, [good, bad])])


@pytest.mark.parametrize("time", [np.nan, np.inf, -1.0])
def test_a_case_with_a_time_that_no_clock_gives_is_passed_over_by_name(tmp_path, time):
    found = of_two_cases(tmp_path, time)
    assert found.shown["model"].tolist() == ["lenet5"]
    assert found.failed.empty
    assert len(found.skipped) == 1
    assert f"is skipped: step_s contains {time}" in found.skipped[0]


@pytest.mark.parametrize("time", [0.0, 1e308, 5e-324])
def test_a_case_without_a_usable_time_is_named_with_the_failed_ones(tmp_path, time):
    found = of_two_cases(tmp_path, time)
    assert found.shown["model"].tolist() == ["lenet5"]
    assert found.failed[["model", "error"]].to_numpy().tolist() == [["vgg16", content.UNUSABLE_REASON]]
