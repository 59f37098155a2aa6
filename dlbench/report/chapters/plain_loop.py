"""The chapter of the defaults on a CPU: what they give over a plain PyTorch loop, and why."""

import json

import pandas as pd

from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import network_title, setting_label, varying_axes
from dlbench.report.document import Block, Section
from dlbench.suites.case import AXES
from dlbench.table import Cell, Column, Table

_REASON = (
    "On a CPU, dlbench keeps the memory that a step frees (protocol.heap), as PyTorch does on a GPU. A plain loop, "
    "such as your own script, returns this memory to the kernel and allocates it again in every step, with page faults."
)
_HOW_TO_MEASURE = (
    "To also see the throughput without this setting, run the suite again into the same results folder, with -P "
    "protocol.heap=system."
)
_TITLE = "Effect of keeping freed CPU memory"


def plain_loop_section(content: Content) -> Section:
    """Both figures where both heaps were measured, else how to get them; without blocks where no CPU was measured."""
    cases = content.shown[content.shown["device"] == "cpu"]
    if cases.empty:
        return Section("plain-loop", _TITLE)
    table = plain_loop_comparison_table(cases)
    blocks = [Block(words=_REASON if table.rows else f"{_REASON} {_HOW_TO_MEASURE}")]
    return Section("plain-loop", _TITLE, [*blocks, Block(table=table)] if table.rows else blocks)


def plain_loop_comparison_table(cases: pd.DataFrame) -> Table:
    """One row per case that was measured with both heaps."""
    keys = ["system_id", *(axis for axis in AXES if axis != "repeat"), "rest"]
    parsed = cases["protocol"].map(lambda text: json.loads(text) if isinstance(text, str) else {})
    rest = parsed.map(lambda values: json.dumps({k: v for k, v in values.items() if k != "heap"}, sort_keys=True))
    by_heap = cases.assign(heap=parsed.map(lambda values: values.get("heap", "keep")), rest=rest)
    both = by_heap.pivot_table(index=keys, columns="heap", values="throughput", aggfunc="median").reset_index()
    columns = [
        Column("case", "Case"),
        Column("plain", "Plain loop [1/s]", "right"),
        Column("ours", "dlbench [1/s]", "right"),
        Column("ratio", "Times as fast", "right"),
    ]
    if not {"keep", "system"} <= set(both.columns):
        return Table(columns, [])
    axes = ["mode", "precision", "batch_size", *varying_axes(cases)]
    rows: list[list[Cell]] = []
    for row in both.dropna(subset=["keep", "system"]).to_dict("records"):
        plain, ours = float(row["system"]), float(row["keep"])
        rows.append([f"{network_title(row['model'])}, {setting_label(row, axes)}", plain, ours, ours / plain])
    notes = ["Samples per second, medians over processes. They differ because dlbench keeps freed memory."]
    return Table(columns, rows, notes=notes)
