"""From each figure and each row of a page to the records behind it: the rows of the table of attempts.

A figure of ceilings or profiles leads to the rows of the table of their runs instead.
"""

from collections.abc import Sequence
from itertools import islice

from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import network_title, setting_label, varying_axes
from dlbench.report.document import Block, Plot, Section
from dlbench.table import Cell, Table

#: Below a figure at most so many of its records are listed; the comparison has all.
MAX_LISTED = 60


class RecordLinks:
    """Where on a page each attempt stands with its folder and its command."""

    def __init__(self, content: Content, sections: Sequence[Section]) -> None:
        tables = [block.table for section in sections for block in section.blocks if block.table]
        self._home = next((table for table in tables if _is_attempts_or_runs_table(table, "attempt_id")), None)
        self._known = {str(row["attempt_id"]) for row in self._home.records()} if self._home else set()
        self._home_of_runs = next((table for table in tables if _is_attempts_or_runs_table(table, "run_id")), None)
        runs = self._home_of_runs.records() if self._home_of_runs else []
        self._runs = {str(row["run_id"]): f"{row['measured']}, {row['started_at']}" for row in runs}
        axes = ["mode", "precision", "batch_size", *varying_axes(content.shown)]
        names = content.system_names if len(content.system_names) > 1 else {}
        self._labels = {
            case["attempt_id"]: ", ".join(
                part
                for part in (names.get(case["system_id"], ""), network_title(case["model"]), setting_label(case, axes))
                if part
            )
            for case in content.shown[["attempt_id", "system_id", "model", *axes]].to_dict("records")
        }

    def row_id(self, table: Table, row: Sequence[Cell]) -> str:
        """The id of a row of the table of attempts, or of that of runs; "" for every other table."""
        if table is self._home_of_runs:
            return f"run-{_find_cell_of_column(table, row, 'run_id')}"
        return (
            self.find_row_id_of_attempt(_find_cell_of_column(table, row, "attempt_id")) if table is self._home else ""
        )

    def find_row_id_of_attempt(self, attempt_id: Cell) -> str:
        """The id of the row that tells all of this attempt; "" where the page does not hold it."""
        return f"attempt-{attempt_id}" if attempt_id in self._known else ""

    def is_attempt_link_column(self, table: Table, key: str) -> bool:
        """Whether the cells of this column lead to the table of attempts."""
        return key == "attempt_id" and table is not self._home

    def attempt_links_of_figure(self, block: Block) -> list[tuple[str, str]]:
        """The ids of the rows of the attempts and runs that a figure shows, and what to call them."""
        listed = (r for r in _attempt_ids_of_plot(block.plot) if self.find_row_id_of_attempt(r) and r in self._labels)
        attempts = [(self.find_row_id_of_attempt(r), self._labels[r]) for r in islice(listed, MAX_LISTED)]
        runs = block.plot.runs if block.plot else ()
        return attempts + [(f"run-{r}", self._runs[r]) for r in runs if r in self._runs]

    def num_unlisted_attempts(self, block: Block) -> int:
        """How many of a figure's attempts `attempt_links_of_figure` leaves out."""
        listed = sum(
            1 for r in _attempt_ids_of_plot(block.plot) if self.find_row_id_of_attempt(r) and r in self._labels
        )
        return len(_attempt_ids_of_plot(block.plot)) - min(listed, MAX_LISTED)


def _attempt_ids_of_plot(plot: Plot | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(plot.records)) if plot else ()


def _is_attempts_or_runs_table(table: Table, key: str) -> bool:
    return {key, "command"} <= {column.key for column in table.columns}


def _find_cell_of_column(table: Table, row: Sequence[Cell], key: str) -> Cell:
    return next(cell for column, cell in zip(table.columns, row, strict=True) if column.key == key)
