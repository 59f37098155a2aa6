"""`show`, `query`, `export` and `report --with-reference`, as a user types them."""

import csv
import dataclasses
import io
import json
import re
import shlex

import pytest

import dlbench
from dlbench import bundled_files
from dlbench.__main__ import main
from dlbench.json_text import dump_json
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.export import MLPERF_FIELDS
from dlbench.suites.case import Case
from tests.fakes import records as fakes


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    records = fakes.quick()
    failed = fakes.record(Case("vgg16", batch_size=99, device="cpu"), fakes.CPU, 50, "oom")
    ranks = fakes.record(
        Case("vgg16", device="cuda", devices_per_node=2), number=60, warnings=("busy_host: \x1b[31mred",)
    )
    return fakes.fill(tmp_path_factory.mktemp("data") / "results", [*records, failed, ranks])


def ids():
    return [record.attempt_id for record in fakes.quick()]


def run(capsys, *arguments, status=0):
    assert main([str(a) for a in arguments]) == status
    return capsys.readouterr()


# show


def test_show_prints_all_of_one_record_by_a_part_of_its_id(results, capsys):
    wanted = ids()[0]
    on_progress = run(capsys, "show", wanted[-12:], "--results", results).out
    for word in (wanted, "lenet5", "Throughput", "AMD EPYC 7B13", "min_time_s", "dlbench run fake.toml"):
        assert word in on_progress
    assert re.search(r"^Timed steps +\d+ ", on_progress, re.MULTILINE)
    assert not re.search(r"^(Timed steps|Outliers) .*\d\.\d", on_progress, re.MULTILINE)
    assert "folder " not in on_progress  # this store has no attempts' folders
    (results / "attempts" / wanted).mkdir(parents=True)
    on_progress = run(capsys, "show", wanted, "--results", results).out
    assert f"{results}/attempts/{wanted}" in on_progress
    assert f"--fresh --results {results}" in on_progress


def test_show_calls_a_setting_without_value_not_set_and_keeps_what_is_zero(capsys, tmp_path):
    cases = [
        Case("lenet5", device="cuda"),
        Case("lenet5", device="cuda", power_cap_w=300, clock_mhz=1200, cudnn_benchmark_limit=0),
        Case("lenet5", threads=4),
    ]
    systems = (fakes.GPU, fakes.GPU, fakes.CPU)
    records = [fakes.record(c, s, n, page_faults=0) for n, (c, s) in enumerate(zip(cases, systems, strict=True))]
    store = fakes.fill(tmp_path / "results", records)
    shown = [run(capsys, "show", record.attempt_id, "--results", store).out for record in records]
    values = [dict(re.findall(r"^(\w+) {2,}(\S.*)$", text, re.MULTILINE)) for text in shown]
    names = ("power_cap_w", "clock_mhz", "threads", "warmup_until_c", "cudnn_benchmark_limit")
    assert [[one[name] for name in names] for one in values] == [
        ["not set", "not set", "not set", "not set", "10"],
        ["300 W", "1200 MHz", "not set", "not set", "all"],
        ["not set", "not set", "4", "not set", "10"],
    ]
    assert all(one[name] == "0" for one in values for name in ("page_faults", "repeat", "loader_workers"))
    machine = json.loads(run(capsys, "show", records[0].attempt_id, "--results", store, "--format", "json").out)
    assert machine["case"]["clock_mhz"] == 0


def test_show_as_json_has_every_metric_its_interval_and_each_ranks_samples(results, capsys):
    record = json.loads(run(capsys, "show", ids()[1], "--results", results, "--format", "json").out)
    assert set(record["metrics"]) == set(METRICS)
    throughput = record["metrics"]["throughput"]
    assert throughput["low"] < throughput["value"] < throughput["high"]
    (rank,) = record["ranks"]
    samples = dlbench.load(results).set_index("attempt_id").loc[ids()[1], "step_s"]
    assert rank["step_s"]["count"] == len(samples)
    assert rank["step_s"]["max"] == max(samples)
    assert record["system"]["cpu_model"] == "AMD EPYC 7B13"
    assert record["protocol"]["min_time_s"] == 1.0
    assert record["metrics"]["energy_per_image"] == {"value": None, "unit": "J/img"}


def test_show_tells_each_rank_and_lets_no_terminal_code_through(results, capsys):
    on_progress = run(capsys, "show", "T083000", "--results", results).out
    assert "Samples of rank 0" in on_progress
    assert "Samples of rank 1" in on_progress
    assert "busy_host" in on_progress
    assert "\x1b" not in on_progress


def test_show_breaks_long_lists_between_their_items(capsys, tmp_path):
    libraries = [f"/usr/lib/a/long/way/down/lib{i}.so" for i in range(40)]
    system = dataclasses.replace(fakes.CPU, details={"libraries": libraries})
    made = fakes.record(Case("lenet5"), system)
    store = fakes.fill(tmp_path / "store", [made])
    on_progress = run(capsys, "show", made.attempt_id, "--results", store).out
    assert max(map(len, on_progress.splitlines())) <= 130
    assert all(library in on_progress for library in libraries)


def test_show_of_a_failed_attempt_says_why(results, capsys):
    on_progress = run(capsys, "show", "T082500", "--results", results).out
    assert "out of memory: tried to allocate 12.3 GiB" in on_progress
    assert "Samples" not in on_progress


@pytest.mark.parametrize(
    ("wanted", "message"),
    [("nothing", "no record 'nothing' in"), ("20261120", "matches 14 records")],
)
def test_show_says_when_no_or_no_single_record_is_meant(results, capsys, wanted, message):
    error = run(capsys, "show", wanted, "--results", results, status=2).err
    assert message in error
    assert len(error.splitlines()) == 1


def test_the_command_that_show_advises_lists_the_records_of_the_same_results(results, capsys):
    error = run(capsys, "show", "nothing", "--results", results, status=2).err
    command = shlex.split(re.search(r"`dlbench (.*)`", error)[1])
    assert ids()[0] in run(capsys, *command).out


# query


def test_a_query_gives_rows_in_each_format(results, capsys):
    sql = "select model, count(*) as n, max(started_at) as last from records where status = 'ok' group by 1 order by 1"

    def asked(format):
        return run(capsys, "query", sql, "--results", results, "--format", format).out

    assert json.loads(asked("json"))[0] == {"model": "alexnet", "n": 2, "last": "2026-11-20T08:01:30+00:00"}
    assert next(csv.DictReader(io.StringIO(asked("csv"))))["n"] == "2"
    assert asked("markdown").startswith("| model | n | last |")
    assert "alexnet        2  2026-11-20" in asked("text")


def test_a_query_sees_the_raw_samples(results, capsys):
    sql = "select list_median(step_s) as m, len(step_s) as n, step_s from records where model = 'lenet5' limit 1"
    (row,) = json.loads(run(capsys, "query", sql, "--results", results, "--format", "json").out)
    assert sorted(row["step_s"])[0] <= row["m"] <= sorted(row["step_s"])[-1]
    assert len(row["step_s"]) == row["n"]
    assert "in all)]" in run(capsys, "query", sql, "--results", results).out


def test_views_without_data_are_empty_and_have_their_columns(results, capsys):
    for view, column in (("ceilings", "best_flop_per_s"), ("layers", "forward_s"), ("all_reduces", "size_bytes")):
        assert (
            run(capsys, "query", f"select {column} from {view}", "--results", results, "--format", "csv").out
            == f"{column}\n"
        )


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to '{}/out.csv'",
        "copy (select 1) to '{}/results/merged-fake.parquet' (format parquet)",
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from read_text('{}/secret')",
        "attach '{}/db.duckdb' as d",
        "set enable_external_access = true; select * from read_text('/etc/hostname')",
        "set lock_configuration = false",
        "install httpfs",
        "export database '{}/all'",
        "select * from sources",
        "select * from connection",
    ],
)
def test_a_query_neither_reads_nor_writes_anything_else(results, capsys, sql):
    folder = results.parent
    (folder / "secret").write_text("secret")
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    done = run(capsys, "query", sql.format(folder), "--results", results, status=2)
    assert "SQL error" in done.err
    assert done.out == ""
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_a_wrong_query_is_one_line(results, capsys):
    error = run(capsys, "query", "selct 1", "--results", results, status=2).err
    assert "syntax error" in error
    assert len(error.splitlines()) == 1
    assert "no results at 'nowhere'" in run(capsys, "query", "select 1", "--results", "nowhere", status=2).err
    beyond = run(capsys, "query", "select timestamp '290000-01-01'", "--results", results, status=2).err
    assert len(beyond.splitlines()) == 1


# export


def test_export_as_csv_and_json_has_every_attempt_with_intervals(results, capsys, tmp_path):
    rows = list(csv.DictReader(io.StringIO(run(capsys, "export", results, "--format", "csv").out)))
    assert len(rows) == 14
    assert set(METRICS) <= set(rows[0])
    run(capsys, "export", results, "--format", "json", "-o", tmp_path / "deep" / "all.json")
    text = (tmp_path / "deep" / "all.json").read_text()
    whole = json.loads(text)
    # Numbers have the fewest digits that give the same number, in either of two forms: 1e-05 or 0.00001.
    assert [line.split(": ")[0] for line in text.splitlines()] == [
        line.split(": ")[0] for line in dump_json(whole).splitlines()
    ]
    assert {m["name"] for m in whole["metrics"]} == set(METRICS)
    first = whole["attempts"][0]
    assert first["throughput_low"] < first["throughput"] < first["throughput_high"]
    assert first["system"] == "AMD EPYC 7B13"
    assert first["energy_per_image"] is None


def test_export_describes_systems_in_mlperfs_fields(results, capsys):
    systems = json.loads(run(capsys, "export", results, "--format", "mlperf").out)
    assert [list(system) for system in systems] == [list(MLPERF_FIELDS)] * 2
    gpu = next(s for s in systems if s["accelerators_per_node"])
    assert gpu["accelerator_model_name"] == "NVIDIA H200"
    assert gpu["host_processor_model_name"] == "AMD EPYC 9654 96-Core Processor"
    assert all(system["host_processor_core_count"] > 0 for system in systems)
    assert gpu["framework"] == "PyTorch 2.15.0+cu130"
    assert "CUDA 13.0" in gpu["other_software_stack"]
    assert gpu["boot_firmware_version"] == "BIOS 2.3.6, VBIOS 96.00.89.00.01"
    assert gpu["submitter"] == gpu["division"] == gpu["cooling"] == ""
    cpu = next(s for s in systems if not s["accelerators_per_node"])
    assert cpu["accelerator_model_name"] == cpu["accelerator_frequency"] == ""


def test_export_as_parquet_is_the_same_store(results, capsys, tmp_path):
    run(capsys, "export", results, "--format", "parquet", "-o", tmp_path / "all.parquet")
    assert dlbench.load(tmp_path / "all.parquet").equals(dlbench.load(results))
    assert "needs -o FILE" in run(capsys, "export", results, "--format", "parquet", status=2).err
    assert (
        "--public needs --format parquet" in run(capsys, "export", results, "--format", "csv", "--public", status=2).err
    )


# report --with-reference


def test_a_report_stands_beside_the_reference_systems(results, capsys, tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    monkeypatch.setattr(bundled_files, "REPORTS", checkout / "reports")
    error = run(capsys, "report", results, "--with-reference", "-o", tmp_path / "out", status=2).err
    assert "no reference systems in" in error
    own = fakes.fill(tmp_path / "own", fakes.quick()[:1])
    fakes.fill(checkout / "reports" / "reference-h200", fakes.quick(fakes.GPU)[:1])
    run(capsys, "report", own, "--with-reference", "-o", tmp_path / "out")
    with (tmp_path / "out" / "comparison.csv").open() as file:
        assert {row["system"] for row in csv.DictReader(file)} == {"reference-h200", "AMD EPYC 7B13"}
    assert (tmp_path / "out" / "report.pdf").stat().st_size > 10_000


def test_a_report_says_on_stderr_what_it_could_not_read(capsys, tmp_path):
    own = fakes.fill(tmp_path / "own", fakes.quick()[:1])
    (own / "torn.parquet").write_bytes(b"PAR1")
    on_progress = run(capsys, "report", own, "-o", tmp_path / "out")
    assert "dlbench: warning: cannot read" in on_progress.err
    assert "torn.parquet" in on_progress.err
    assert "cannot read" not in on_progress.out


def test_an_empty_folder_does_not_replace_a_report(capsys, tmp_path, results):
    out, empty = tmp_path / "report", tmp_path / "empty"
    empty.mkdir()
    assert main(["report", str(results), "-o", str(out)]) == 0
    before = (out / "index.html").read_bytes()
    assert main(["report", str(empty), "-o", str(out)]) == 2
    assert f"{empty} has no records; run `dlbench run quick` first" in capsys.readouterr().err
    assert (out / "index.html").read_bytes() == before
    assert main(["report", str(empty), "-o", str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()


@pytest.mark.filterwarnings("default::dlbench.results.store.SkippedPart")
def test_an_export_says_on_stderr_what_it_could_not_read(capsys, tmp_path):
    own = fakes.fill(tmp_path / "own", fakes.quick()[:1])
    (own / "torn.parquet").write_bytes(b"PAR1")
    on_progress = run(capsys, "export", own, "--format", "csv")
    assert "dlbench: warning: cannot read" in on_progress.err
    assert "torn.parquet" in on_progress.err
    assert on_progress.out.count("\n") == 2
