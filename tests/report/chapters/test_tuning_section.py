"""The chapter of tuned networks, from the records of a search."""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dlbench.report.analysis.content import read_content
from dlbench.report.analysis.tuning import find_tuning_searches
from dlbench.report.chapters.tuning_section import tuning_section
from dlbench.report.figures import figure_style
from dlbench.suites.case import Case, Protocol
from tests.fakes import records as fakes

SHORT = Protocol(min_time_s=0.5, max_time_s=0.5)
FIRST = Case("lenet5", device="cpu", protocol=SHORT)
BEST = dataclasses.replace(FIRST, threads=1, batch_size=64)


def measured(number: int, case: Case, img_per_s: float, suite: str = "tune-lenet5-training-12345678"):
    made = fakes.record(case, fakes.CPU, number)
    (system, values), *_ = made.ranks
    values = dataclasses.replace(values, step_s=(case.batch_size / img_per_s,) * 30, forward_s=(), backward_s=())
    return dataclasses.replace(made, suite=suite, label="throughput", ranks=((system, values),))


@pytest.fixture
def store(tmp_path):
    longer = dataclasses.replace(BEST, protocol=Protocol(min_time_s=2.0, max_time_s=2.0), repeat=1)
    records = [
        measured(0, FIRST, 100.0),
        measured(1, dataclasses.replace(FIRST, batch_size=64), 120.0),
        measured(2, BEST, 170.0),
        measured(3, longer, 180.0),
    ]
    return fakes.fill(tmp_path, records)


def test_as_shipped_stands_beside_as_tuned_with_what_each_lever_gave(store):
    with figure_style.plot_style():
        section = tuning_section(read_content([str(store)]))
    assert section.finding == (
        "LeNet-5 in training with the tuned setting reaches 1.80 times the throughput of the default setting."
    )
    (table,) = [block.table for block in section.blocks if block.table]
    assert [row[0] for row in table.rows] == ["default setting", "+ batch size 64", "+ 1 thread"]
    assert [round(row[3], 2) for row in table.rows] == [1.0, 1.2, 1.8]
    (plot,) = [block.plot for block in section.blocks if block.plot]
    assert plot.figure is not None
    assert len(plot.records) == 4


def test_a_store_without_a_search_has_no_such_chapter(tmp_path):
    store = fakes.fill(tmp_path, [measured(0, FIRST, 100.0, suite="quick")])
    assert not tuning_section(read_content([str(store)])).blocks


def test_a_search_is_told_from_the_rows_that_have_a_setting_and_a_figure(store):
    (part,) = store.glob("*.parquet")
    table = pq.read_table(part)
    place = table.column_names.index("freeze")
    odd = pa.array(["off", b"\xff", "off", "off"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(table.set_column(place, "freeze", odd), part)
    (found,) = find_tuning_searches(read_content([str(store)]).shown)
    assert (found.num_settings, found.shipped) == (2, pytest.approx(100.0))


def test_a_search_for_energy_without_energy_is_none(tmp_path):
    records = [dataclasses.replace(measured(n, FIRST, 100.0), label="energy") for n in range(2)]
    assert not list(find_tuning_searches(read_content([str(fakes.fill(tmp_path, records))]).shown))
