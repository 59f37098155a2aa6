"""What an A/B experiment (`dlbench ab`) found, as the command prints it."""

from __future__ import annotations

from dlbench.report.analysis.ab_experiments import AbComparison, compare_experiments
from dlbench.report.analysis.content import Content
from dlbench.report.chapters.comparison_tables import comparison_table, for_terminal, summary_line
from dlbench.report.document import Block
from dlbench.table import Table

#: What a page has no room for beside the interval.
_LEFT_OUT = ("adjusted_p_value", "chance_target_larger")


def ab_blocks(content: Content) -> list[Block]:
    """A table of verdicts for each experiment: a row per case."""
    return [_experiment_block(one, content) for one in compare_experiments(content)]


def ab_sentence(content: Content) -> str:
    """How many cases of the experiment have which verdict; "" where its sides were not measured both."""
    return " ".join(
        f"{one.sides[1].title} against {one.sides[0].title}: {summary_line(one.result)}."
        for one in compare_experiments(content)
    )


def _experiment_block(one: AbComparison, content: Content) -> Block:
    (a, b), names = one.sides, content.system_names
    table = for_terminal(comparison_table(one.result, ("A", "B")))
    kept = [i for i, column in enumerate(table.columns) if column.key not in _LEFT_OUT]
    rows = [[row[i] for i in kept] for row in table.rows]
    notes = [note for note in table.notes if not note.startswith("Effect:")]
    where = "" if content.sides else f"; {' and '.join(dict.fromkeys(names.get(s, 'unknown') for s in one.systems))}"
    return Block(
        heading=f"Verdict per case: {b.title} against {a.title}",
        words=f"{table.title}{where}.",
        table=Table([table.columns[i] for i in kept], rows, notes=notes),
    )
