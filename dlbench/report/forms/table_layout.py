"""Tables on paper: how wide each column is, and where a table that is too wide is cut into several."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dlbench.report.analysis.labels import shorten_in_middle
from dlbench.table import Table, cell_texts, column_alignments

#: A column asks for no more characters than this: longer texts are broken into lines.
MAX_COLUMN = 52
#: A word longer than this is broken as well.
_MAX_WORD = 26
_MIN_COLUMN = 4
#: Headings are bold, and so much wider.
_BOLD_FACTOR = 1.15
#: No cell has more lines than this, nor more characters than so many lines hold: it must fit a page.
MAX_LINES = 18


@dataclass(frozen=True)
class TableSheet:
    """A table, or the part of it that fits the width of a page: texts, and of each column its width in characters."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    aligns: Sequence[str]
    widths: Sequence[float]
    wrapped: Sequence[bool]  # whether the column breaks its texts into lines

    def rows_with_break_points(self) -> list[list[str]]:
        """The rows, with `add_break_points` to the texts of the columns that break them."""
        return [[add_break_points(c) if w else c for c, w in zip(row, self.wrapped, strict=True)] for row in self.rows]


def split_into_sheets(table: Table, page_width: float, max_rows: int) -> list[TableSheet]:
    """`table` as sheets that are at most `page_width` characters wide; each repeats the first column.

    Args:
        max_rows: further rows are left out; `notes_with_omitted_rows` says so.
    """
    rows = cell_texts(Table(table.columns, table.rows[:max_rows]))
    headings = [column.heading for column in table.columns]
    columns = list(zip(headings, *rows, strict=True))
    wanted = [min(_column_width(_longest_line_length, *cells), MAX_COLUMN) for cells in columns]
    least = [max(_MIN_COLUMN, min(_column_width(_longest_word_length, *cells), _MAX_WORD)) for cells in columns]
    aligns = column_alignments(table)
    found = []
    for part in _columns_per_sheet(least, page_width):
        widths = _fit_column_widths([wanted[i] for i in part], [least[i] for i in part], page_width)
        found.append(
            TableSheet(
                headings=[headings[i] for i in part],
                rows=[[_truncate_cell_text(row[i], w) for i, w in zip(part, widths, strict=True)] for row in rows],
                aligns=[aligns[i] for i in part],
                widths=widths,
                wrapped=[max(map(_longest_line_length, columns[i])) > w for i, w in zip(part, widths, strict=True)],
            )
        )
    return found


def notes_with_omitted_rows(table: Table, max_rows: int) -> list[str]:
    """The notes of a table, and a sentence about the rows beyond `max_rows`."""
    if len(table.rows) <= max_rows:
        return list(table.notes)
    left = f"These are the first {max_rows} of {len(table.rows)} rows; the HTML page and the CSV files hold more."
    return [left, *table.notes]


def add_break_points(text: str) -> str:
    """`text` with an invisible place to break a line behind signs and in very long words."""
    text = re.sub(r"(?<=[_/.:-])(?=\S)", "\u200b", text)
    return re.sub(r"[^\s\u200b]{20}(?=[^\s\u200b])", "\\g<0>\u200b", text)


def _truncate_cell_text(text: str, width: float) -> str:
    """`text` in no more than `MAX_LINES` lines of its own, and in no more characters than these hold at this width."""
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"… and {len(lines) - MAX_LINES + 1} more lines"]
    return shorten_in_middle("\n".join(lines), int(MAX_LINES * width))


def _columns_per_sheet(least: Sequence[float], page_width: float) -> list[list[int]]:
    """The columns of each sheet, so that the narrowest that they can be fits the page."""
    parts, part = [], [0]
    for i in range(1, len(least)):
        if len(part) > 1 and sum(least[j] for j in part) + least[i] > page_width:
            parts.append(part)
            part = [0]
        part.append(i)
    return [*parts, part]


def _fit_column_widths(wanted: Sequence[float], least: Sequence[float], page_width: float) -> list[float]:
    """As wide as wanted; where that is too much, all give way in proportion to what they can spare."""
    wanted = [max(w, m) for w, m in zip(wanted, least, strict=True)]
    spare = sum(wanted) - sum(least)
    share = min(1.0, max(0.0, (page_width - sum(least)) / spare)) if spare else 1.0
    return [m + share * (w - m) for w, m in zip(wanted, least, strict=True)]


def _column_width(measure: Callable[[str], int], heading: str, *cells: str) -> float:
    return max(_BOLD_FACTOR * measure(heading), *map(measure, cells)) if cells else _BOLD_FACTOR * measure(heading)


def _longest_line_length(text: str) -> int:
    return max(map(len, text.split("\n")))


def _longest_word_length(text: str) -> int:
    return max(map(len, text.split()), default=0)
