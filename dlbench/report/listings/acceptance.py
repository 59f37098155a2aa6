"""The outcome of an acceptance as a table, and as a page to be signed and filed."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from dlbench import units
from dlbench.report.analysis.acceptance import VERDICTS, AcceptanceFile, CriterionResult
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.forms.html_page import template_environment
from dlbench.results.parts import find_parts
from dlbench.table import Cell, Column, Table, cell_texts, column_alignments, signed_percent_text
from dlbench.version import __version__


def acceptance_table(judgements: Sequence[CriterionResult], raw: bool = False) -> Table:
    """One row per line, with value, interval and margin; `raw`: as numbers in the metric's SI unit, for programs."""
    columns = [
        Column("line", "Line", "right"),
        Column("case", "Case"),
        Column("metric", "Metric"),
        Column("verdict", "Verdict"),  # early: a narrow terminal has no room for the columns at the end
        Column("committed", "Committed"),
        Column("value", "Value", "right"),
        Column("low", "95 % from", "right"),
        Column("high", "to", "right"),
        Column("margin", "Margin", "right", signed_percent_text),
        Column("processes", "Processes", "right"),
        Column("reason", "Reason"),
    ]
    return Table(columns, [_criterion_row(number, one, raw) for number, one in enumerate(judgements, 1)])


def _criterion_row(number: int, one: CriterionResult, raw: bool) -> list[Cell]:
    metric = METRICS[one.line.metric]
    sign = "≥" if one.line.at_least else "≤"
    tolerance = f" {'−' if one.line.at_least else '+'} {units.percent_text(one.line.tolerance)}"
    figures = (one.value, one.low, one.high)
    return [
        number,
        ", ".join(f"{axis} {value}" for axis, value in one.line.case.items()),
        one.line.metric if raw else metric.title,
        one.verdict,
        f"{sign} {metric.format(one.line.bound)}{tolerance if one.line.tolerance else ''}",
        *(value if raw or value is None else metric.format(value) for value in figures),
        one.margin_to_limit,
        one.processes,
        "; ".join(words for words in (one.reason, one.line.note) if words) or None,
    ]


def summary_line(acceptance: AcceptanceFile, judgements: Sequence[CriterionResult]) -> str:
    """The closing line: ``Lot 2: 3 passed, 1 failed, 0 not decided``."""
    counts = Counter(one.verdict for one in judgements)
    return f"{acceptance.name}: {', '.join(f'{counts[verdict]} {verdict}' for verdict in VERDICTS)}"


def acceptance_page(
    acceptance: AcceptanceFile, file: Path, judgements: Sequence[CriterionResult], sources: Sequence[str | Path]
) -> str:
    """A page of HTML for the file: the lines, what they were judged by (with digests), and room for signatures."""
    table = acceptance_table(judgements)
    parts = [part for source in sources for part in find_parts(source)[0]]
    template = template_environment().get_template("acceptance.html")
    return template.render(
        name=acceptance.name,
        summary=summary_line(acceptance, judgements),
        columns=[column.title for column in table.columns],
        rows=cell_texts(table),
        alignments=column_alignments(table),
        file=file.name,
        file_digest=hashlib.sha256(file.read_bytes()).hexdigest(),
        parts=len(parts),
        parts_digest=sha256_of_files(parts),
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=__version__,
    )


def sha256_of_files(files: Sequence[Path]) -> str:
    """SHA-256 over the SHA-256 of each file, by its digest: names and places do not matter."""
    digests = []
    for file in files:
        with file.open("rb") as opened:
            digests.append(hashlib.file_digest(opened, "sha256").hexdigest())
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()
