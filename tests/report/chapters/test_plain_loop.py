"""What the defaults on a CPU give over a plain PyTorch loop."""

from __future__ import annotations

import dataclasses

from dlbench.report.analysis.content import read_content
from dlbench.report.chapters.plain_loop import plain_loop_section
from dlbench.suites.case import Case, Protocol
from tests.fakes import records as fakes

KEPT = Case("lenet5", device="cpu")
PLAIN = dataclasses.replace(KEPT, protocol=Protocol(heap="system"))


def measured(number: int, case: Case, step_s: float):
    made = fakes.record(case, fakes.CPU, number)
    (system, values), *_ = made.ranks
    values = dataclasses.replace(values, step_s=(step_s,) * 30, forward_s=(), backward_s=())
    return dataclasses.replace(made, ranks=((system, values),))


def test_both_figures_stand_side_by_side_with_the_reason(tmp_path):
    store = fakes.fill(tmp_path, [measured(0, KEPT, 0.01), measured(1, PLAIN, 0.02)])
    section = plain_loop_section(read_content([str(store)]))
    (table,) = [block.table for block in section.blocks if block.table]
    ((case, plain, ours, ratio),) = table.rows
    assert case.startswith("LeNet-5, training, fp32, batch 32")
    assert (round(plain), round(ours), round(ratio, 3)) == (1600, 3200, 2.0)
    assert "keeps the memory that a step frees" in section.blocks[0].words


def test_with_one_of_them_the_report_says_how_to_get_the_other(tmp_path):
    store = fakes.fill(tmp_path, [measured(0, KEPT, 0.01)])
    (block,) = plain_loop_section(read_content([str(store)])).blocks
    assert block.words.endswith("-P protocol.heap=system.")
