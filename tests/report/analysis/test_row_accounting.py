"""A report over 5,000 cases of two settings and two node types of one CPU: every row is shown, or named as left out."""

from __future__ import annotations

import dataclasses
import io
import shutil
from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow.parquet as pq
import pytest

import dlbench
from dlbench.report import export
from dlbench.report.analysis import derived_metrics, row_accounting
from dlbench.report.analysis.content import MAX_CASES, read_content
from dlbench.report.chapters.findings import findings_table
from dlbench.report.chapters.provenance import provenance_section
from dlbench.report.chapters.sections import comparison_section
from dlbench.report.figures import plots_batch, plots_rates
from dlbench.report.forms import markdown
from dlbench.report.listings import summary
from dlbench.report.loading import stores
from dlbench.results.query import query
from dlbench.results.schema import to_table
from dlbench.suites.case import Case
from tests.fakes import records as fakes

#: One key for all, as in records of earlier versions: cores, threads and memory alone tell them apart.
SYSTEMS = [
    dataclasses.replace(fakes.CPU, cpu_cores=cores, cpu_threads=cores, torch_threads=cores, memory_bytes=gib * 2**30)
    for cores in (1, 2)
    for gib in (64, 128)
]
NAMES = [
    f"AMD EPYC 7B13 ({cores}, memory of {gib} GiB)"
    for cores in ("1 core, 1 thread", "2 cores, 2 threads")
    for gib in (64, 128)
]
PER_SYSTEM = 1250
STEPS = fakes.noisy_steps(0.01, 30, 1)
START = datetime(2026, 11, 20, tzinfo=UTC)


def made(system, number, **changes):
    """A quick record: the measurement of one case for all, with the same id where case and number are the same."""
    case = Case("lenet5", batch_size=1 + number % PER_SYSTEM, **changes.pop("axes", {}))
    base = dataclasses.replace(BASE, rank=0, world_size=case.world_size)
    started = START + timedelta(seconds=number)
    failed = changes.get("status", "ok") != "ok"
    return dataclasses.replace(
        RECORD,
        attempt_id=f"{started:%Y%m%dT%H%M%S}-{case.id}-{SYSTEMS.index(system)}",
        case_id=case.id,
        case=case.to_dict(),
        started_at=started.isoformat(),
        ranks=()
        if failed
        else tuple((system, dataclasses.replace(base, rank=rank)) for rank in range(case.world_size)),
        **changes,
    )


RECORD = fakes.record(Case("lenet5"), fakes.CPU, system_key="one key")
BASE = dataclasses.replace(
    fakes.measurement(Case("lenet5"), fakes.CPU, step_s=STEPS),
    warmup_step_s=(),
    forward_s=(),
    backward_s=(),
    optimizer_s=(),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A folder with 5,000 cases, and with attempts that do not count, for every reason that there is."""
    root = tmp_path_factory.mktemp("store")
    whole = [made(system, number) for system in SYSTEMS for number in range(PER_SYSTEM)]
    earlier = [made(SYSTEMS[0], number - PER_SYSTEM) for number in range(20)]  # the same cases, before
    failed = [made(SYSTEMS[1], 90_000 + i, status="oom", axes={"precision": "amp_bf16"}) for i in range(7)]
    lost = [made(SYSTEMS[2], 80_000 + i, status="crashed", system_key=None) for i in range(5)]
    pq.write_table(to_table([*whole, *earlier, *failed, *lost]), root / "merged-fake.parquet")
    pq.write_table(to_table(whole[:30]), root / "copy.parquet")
    spoilt = to_table(whole[40:50])
    spoilt = spoilt.set_column(
        spoilt.column_names.index("attempt_id"), "attempt_id", [[f"bad-{i}" for i in range(10)]]
    ).set_column(spoilt.column_names.index("status"), "status", [["what"] * 10])
    pq.write_table(spoilt, root / "spoilt.parquet")
    (root / "broken.parquet").write_bytes(b"PAR1")
    return root


ROWS = 4 * PER_SYSTEM + 20 + 7 + 5 + 30 + 10


@pytest.fixture(scope="module")
def content(store):
    return read_content([store])


def test_rows_read_are_rows_shown_and_rows_named_as_left_out(content):
    account = content.account
    assert account.error is None
    assert account.read == ROWS == sum(account.rows.values())
    assert account.rows == {
        row_accounting.SHOWN: MAX_CASES,
        row_accounting.BEYOND_LIMIT: 4 * PER_SYSTEM - MAX_CASES,
        row_accounting.FAILED: 7,
        row_accounting.SUPERSEDED: 20,
        row_accounting.SYSTEM_UNKNOWN: 5,
        row_accounting.COPIES: 30,
        row_accounting.PASSED_OVER: 10,
    }
    assert list(content.system_names.values()) == NAMES
    assert content.shown.groupby("system_id").size().tolist() == [MAX_CASES // 4] * 4


def test_the_page_says_where_every_row_is(content, store):
    heading = "Stored rows: how many are shown or left out"
    table = next(b.table for b in provenance_section(content).blocks if b.heading == heading)
    rows = {row["what"]: row["rows"] for row in table.records()}
    assert rows.pop("Read") == ROWS == sum(rows.values())
    assert rows[row_accounting.KIND_DESCRIPTIONS[row_accounting.SHOWN]] == MAX_CASES
    assert any("broken.parquet" in problem for problem in content.skipped)
    assert any("spoilt.parquet" in problem for problem in content.skipped)
    found = comparison_section(content).finding
    assert (
        found
        == f"{MAX_CASES} of {4 * PER_SYSTEM} measured cases are in this report and comparison.csv; metrics.csv has all."
    )
    assert (
        f"{4 * PER_SYSTEM - MAX_CASES} measured cases more; `dlbench export {store} --format csv` has all."
        in " ".join(summary.terminal_summary(content).split())
    )
    text = markdown.markdown_report([provenance_section(content)], "t")
    assert f"| {row_accounting.KIND_DESCRIPTIONS[row_accounting.SUPERSEDED]}" in text


@pytest.mark.filterwarnings("ignore::dlbench.results.store.SkippedPart")
def test_the_api_has_every_case_with_its_system(store):
    frame = dlbench.metrics(store)
    assert len(frame) == 4 * PER_SYSTEM
    assert frame.groupby("system").size().to_dict() == dict.fromkeys(sorted(NAMES), PER_SYSTEM)
    assert frame[["throughput", "throughput_low", "throughput_high"]].notna().all(axis=None)
    assert frame["samples"].map(len).eq(30).all()
    account = dict(frame.attrs["rows"])
    assert dlbench.metrics(store, every_attempt=True).attrs["rows"] == {
        "read": ROWS, row_accounting.SHOWN: ROWS - 40, row_accounting.COPIES: 30, row_accounting.PASSED_OVER: 10,
    }  # fmt: skip
    assert account["read"] == ROWS == sum(account.values()) - account["read"]
    assert account[row_accounting.SHOWN] == len(frame)


@pytest.mark.filterwarnings("ignore::dlbench.results.store.SkippedPart")
def test_csv_and_sql_have_every_attempt(store):
    csv = pd.read_csv(io.StringIO("".join(export.export_chunks([store], "csv"))), low_memory=False)
    left_out = 30 + 10  # copies, and what cannot be right
    assert len(csv) == ROWS - left_out
    assert csv["throughput_low"].notna().sum() == 4 * PER_SYSTEM + 20
    _, ((count,),) = query("select count(*) from records", [store])
    assert count == ROWS - left_out
    _, settings = query(
        "select system_cpu_cores, count(*) from records where status = 'ok' group by 1 order by 1", [store]
    )
    assert settings == [(1, 2 * PER_SYSTEM + 20), (2, 2 * PER_SYSTEM)]
    _, rows = query("select * from left_out", [store])
    assert sum(number for _, number in rows) == left_out


@pytest.mark.filterwarnings("ignore::dlbench.results.store.SkippedPart")
def test_copies_in_several_sources_are_counted(store, tmp_path):
    (tmp_path / "again").mkdir()
    shutil.copy(store / "copy.parquet", tmp_path / "again")
    account = read_content([store, tmp_path / "again"]).account
    assert account.error is None
    assert (account.read, account.rows[row_accounting.COPIES]) == (ROWS + 30, 60)


def test_rows_that_disappear_are_an_error_that_the_page_shows(store, monkeypatch):
    real = stores.systems.join_sources
    monkeypatch.setattr(stores.systems, "join_sources", lambda *given: real(*given).iloc[3:])
    content = read_content([store])
    assert content.account.missing == 3
    said = f"{ROWS} rows were read, but only {ROWS - 3} appear in this report: 3 are missing."
    assert content.account.error.startswith(said)
    assert any(said in block.words for block in provenance_section(content).blocks)
    assert findings_table(content).records()[2]["sentence"].startswith(said)


def test_ranks_count_as_rows_and_attempts_as_attempts(tmp_path):
    ranks = [made(SYSTEMS[0], i, axes={"devices_per_node": 2}) for i in range(3)]
    pq.write_table(to_table(ranks), tmp_path / "x.parquet")
    account = read_content([tmp_path]).account
    assert (account.read, account.rows[row_accounting.SHOWN], account.attempts[row_accounting.SHOWN]) == (6, 6, 3)


def test_networks_for_which_a_figure_has_no_room_are_named():
    cases = [Case(f"net{i:02}", batch_size=b, device="cuda") for i in range(26) for b in (1, 2)]
    rows = to_table([fakes.record(case, number=i, step_s=STEPS) for i, case in enumerate(cases)]).to_pandas()
    frame = derived_metrics.add_metric_intervals(derived_metrics.attempts_from_rows(rows))
    drawn = plots_rates.throughput_plot(frame).caption
    assert drawn.endswith("Not drawn: net24, net25; see the tables.")
    panels = plots_batch.batch_curves(frame).caption
    assert "Not drawn: net16 training, net17 training," in panels
    assert panels.endswith("net25 training; see the tables.")
