"""The chapter on how cases changed over the days that the results hold."""

from __future__ import annotations

from dlbench.report.analysis import history
from dlbench.report.analysis.change_points import MIN_POINTS
from dlbench.report.analysis.content import Content
from dlbench.report.chapters.history_tables import changes_table, lines_table
from dlbench.report.document import Block, Section
from dlbench.report.figures import plots_history


def history_section(content: Content) -> Section:
    """Lines and changes; without blocks where no case was measured on enough days."""
    title = ("history", "History")
    if content.attempts.empty or content.attempts["started_at"].dt.date.nunique() < MIN_POINTS:
        return Section(*title)
    found = history.history_of_report(content)
    if not any(line.is_long_enough for line in found.lines):
        return Section(*title)
    changes = changes_table(found)
    words = "No line changed." if not changes.rows else ""
    return Section(
        *title,
        [
            Block(words=words, plot=plots_history.history_plot(found.lines)),
            *([Block(heading="Changes", table=changes)] if changes.rows else []),
            Block(heading="Lines", table=lines_table(found), folded=True),
        ],
    )
