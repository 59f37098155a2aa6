"""The measured cases as a table for a terminal, one per system."""

import shlex
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from dlbench import units
from dlbench.process_statistics import MIN_PROCESSES
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import shorten_in_middle
from dlbench.report.chapters import tables
from dlbench.stats import reason_without_interval
from dlbench.suites.case import AXES
from dlbench.table import Column, Table, text_table
from dlbench.table_width import terminal_width, wrap_text

#: The width of a table that goes elsewhere than to a terminal.
DEFAULT_WIDTH = 100
#: So many rows are printed: what is more scrolls off the screen.
MAX_LINES = 40
#: Columns of the comparison that a terminal does without, the first ones first.
_COLUMNS_TO_DROP = (
    *("attempt_id", "runs", "distance_to_layer_bound", "distance_to_bound", "iqr", "flop_per_image", "memory_rss"),
    *("step_time", "flop_rate", "sustained_throughput", "memory_allocated", "energy_per_image", "steps", "mfu"),
)


def _why_no_interval(case: Mapping[Hashable, Any]) -> str:
    """Why a row of `merge_repeats_per_case` has no ±: too few or equal processes, or the steps of a single one."""
    if (processes := case.get("processes", 1)) > 1:
        return f"fewer than {MIN_PROCESSES} processes" if processes < MIN_PROCESSES else "processes with equal values"
    return reason_without_interval(case["steps"], case["confidence"])


def terminal_summary(content: Content) -> str:
    """The measured cases as an aligned table, no wider than the terminal unless the names forbid it."""
    width = terminal_width() or DEFAULT_WIDTH
    if content.shown.empty:
        failed = (
            f"{units.count_text(len(content.failed), 'case')} failed" if len(content.failed) else "no records found"
        )
        return f"no measured case: {failed}\n"
    parts, notes, room, left_out = [], list[str](), MAX_LINES, 0
    reasons: Counter[str] = Counter()
    for system, name in content.system_names.items():
        cases = content.cases_of_system(system)
        if len(cases):
            merged = tables.merge_repeats_per_case(cases)
            without = merged[merged["step_time_half_width"].isna() & merged["steps"].notna()]
            reasons.update(map(_why_no_interval, without.to_dict("records")))
            table = tables.case_metrics_table(merged, {})
            left_out += max(0, len(table.rows) - room)
            if room > 0:
                parts.append(_fit_table_to_width(Table(table.columns, table.rows[:room], name), width))
            room -= len(table.rows)
    sources = shlex.join(content.sources)
    for reason, count in reasons.items():
        notes.append(f"no confidence interval (±) in {units.count_text(count, 'case')}: {reason}.")
    if left_out:
        rows = units.count_text(left_out, "more row")
        notes.append(f"{rows}: see the report, or `dlbench export {sources} --format csv`.")
    if content.left_out:
        left = units.count_text(content.left_out, "measured case")
        notes.append(f"{left} more; `dlbench export {sources} --format csv` has all.")
    if len(content.failed):
        notes.append(f"{units.count_text(len(content.failed), 'case')} failed; see the report for the reasons.")
    return "\n".join([*parts, *("\n".join(wrap_text(note, width)) + "\n" for note in notes)])


def _fit_table_to_width(table: Table, width: int) -> str:
    """`table` as text: what is the same in all rows goes to the title, and columns go until it fits."""
    same = [i for i, c in enumerate(table.columns) if c.key in AXES and len({row[i] for row in table.rows}) == 1]
    values = [f"{table.columns[i].heading.lower()} {table.rows[0][i]}" for i in same]
    headed = Table([_shorten_column_heading(c) for c in table.columns], table.rows, " · ".join([table.title, *values]))
    table = _drop_columns(headed, same)
    for key in (None, *_COLUMNS_TO_DROP):
        table = _drop_columns(table, [i for i, column in enumerate(table.columns) if column.key == key])
        title, *lines = text_table(table).splitlines()
        if max(map(len, lines)) <= width:
            break
    return "\n".join([*wrap_text(title, width), *lines]) + "\n"


def _drop_columns(table: Table, indices: Sequence[int]) -> Table:
    kept = [i for i in range(len(table.columns)) if i not in indices]
    return Table([table.columns[i] for i in kept], [[row[i] for i in kept] for row in table.rows], table.title)


def _shorten_column_heading(column: Column) -> Column:
    """`column` under a shorter heading: the unit says enough."""
    title, unit = column.title_and_unit()
    if column.key == "model":
        return Column(column.key, title, "left", lambda name: shorten_in_middle(str(name), 18))
    if column.key in ("throughput", "flop_rate", "energy_per_image"):
        return Column(column.key, unit, column.align, column.show)
    if column.key == "mfu":
        return Column(column.key, "% of peak", column.align, column.show)
    return column
