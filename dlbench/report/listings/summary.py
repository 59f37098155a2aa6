"""The measured cases as a table for a terminal, one per system."""

from __future__ import annotations

from collections.abc import Sequence

from dlbench import units
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import short
from dlbench.report.chapters import tables
from dlbench.suites.case import AXES
from dlbench.table import Column, Table, text
from dlbench.table_width import terminal_width

#: The width of a table that goes elsewhere than to a terminal.
DEFAULT_WIDTH = 100
#: So many rows are printed: what is more scrolls off the screen.
MAX_LINES = 40
#: Columns of the comparison that a terminal does without, the first ones first.
_DISPENSABLE = (
    *("attempt_id", "runs", "distance_to_layer_bound", "distance_to_bound", "iqr", "flop_per_image", "memory_rss"),
    *("step_time", "flop_rate", "sustained_throughput", "memory_allocated", "energy_per_image", "steps", "mfu"),
)


def terminal(content: Content) -> str:
    """The measured cases as an aligned table, no wider than the terminal unless the names forbid it."""
    width = terminal_width() or DEFAULT_WIDTH
    if content.shown.empty:
        failed = f"{units.counted(len(content.failed), 'case')} failed" if len(content.failed) else "the store is empty"
        return f"no measured case: {failed}\n"
    parts, room, left_out = [], MAX_LINES, 0
    for system, name in content.system_names.items():
        cases = content.of_system(system)
        if len(cases):
            table = tables.comparison(tables.merged(cases), {})
            left_out += max(0, len(table.rows) - room)
            if room > 0:
                parts.append(_fitted(Table(table.columns, table.rows[:room], name), width))
            room -= len(table.rows)
    if left_out:
        rows = units.counted(left_out, "more row")
        parts.append(f"{rows}: see the report, or `dlbench export RESULTS --format text | less`.\n")
    if content.left_out:
        left = units.counted(content.left_out, "measured case")
        parts.append(f"{left} more; `dlbench export --format csv` has all.\n")
    if len(content.failed):
        parts.append(f"{units.counted(len(content.failed), 'case')} failed; see the report for the reasons.\n")
    return "\n".join(parts)


def _fitted(table: Table, width: int) -> str:
    """`table` as text: what is the same in all rows goes to the title, and columns go until it fits."""
    same = [i for i, c in enumerate(table.columns) if c.key in AXES and len({row[i] for row in table.rows}) == 1]
    values = [f"{table.columns[i].heading.lower()} {table.rows[0][i]}" for i in same]
    table = _without(Table([_terminal(c) for c in table.columns], table.rows, " · ".join([table.title, *values])), same)
    for key in (None, *_DISPENSABLE):
        table = _without(table, [i for i, column in enumerate(table.columns) if column.key == key])
        printed = text(table)
        if max(map(len, printed.splitlines())) <= width:
            return printed
    return printed


def _without(table: Table, indices: Sequence[int]) -> Table:
    kept = [i for i in range(len(table.columns)) if i not in indices]
    return Table([table.columns[i] for i in kept], [[row[i] for i in kept] for row in table.rows], table.title)


def _terminal(column: Column) -> Column:
    """`column` under a shorter heading: the unit says enough."""
    title, unit = column.title_and_unit()
    if column.key == "model":
        return Column(column.key, title, "left", lambda name: short(str(name), 18))
    if column.key in ("throughput", "flop_rate", "energy_per_image"):
        return Column(column.key, unit, column.align, column.show)
    if column.key == "mfu":
        return Column(column.key, "% of peak", column.align, column.show)
    return column
