"""The outcome of an acceptance as a table, and as a page to be signed and filed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from dlbench import units
from dlbench.report.analysis.acceptance import VERDICTS, Acceptance, Judgement
from dlbench.report.analysis.metrics import METRICS
from dlbench.results.parts import find
from dlbench.table import Cell, Column, Table, alignments, shown
from dlbench.version import __version__


def acceptance_table(judgements: Sequence[Judgement]) -> Table:
    """One row per line, with value, interval and margin."""
    columns = [
        Column("line", "Line", "right"),
        Column("case", "Case"),
        Column("metric", "Metric"),
        Column("committed", "Committed"),
        Column("value", "Value"),
        Column("interval", "Interval"),
        Column("margin", "Margin", "right", _signed),
        Column("processes", "Processes", "right"),
        Column("verdict", "Verdict"),
        Column("reason", "Reason"),
    ]
    return Table(columns, [_row(number, one) for number, one in enumerate(judgements, 1)])


def _row(number: int, one: Judgement) -> list[Cell]:
    metric = METRICS[one.line.metric]
    sign = "≥" if one.line.at_least else "≤"
    tolerance = (
        f" − {units.percent(one.line.tolerance)}" if one.line.at_least else f" + {units.percent(one.line.tolerance)}"
    )
    interval = None if one.low is None else f"{metric.show(one.low)} to {metric.show(one.high)}"
    return [
        number,
        ", ".join(f"{axis} {value}" for axis, value in one.line.case.items()),
        metric.title,
        f"{sign} {metric.show(one.line.bound)}{tolerance if one.line.tolerance else ''}",
        None if one.value is None else metric.show(one.value),
        interval,
        one.margin,
        one.processes,
        one.verdict,
        one.reason or one.line.note or None,
    ]


def summary(acceptance: Acceptance, judgements: Sequence[Judgement]) -> str:
    """The closing line: ``Lot 2: 3 passed, 1 failed, 0 not decided``."""
    counts = Counter(one.verdict for one in judgements)
    return f"{acceptance.name}: {', '.join(f'{counts[verdict]} {verdict}' for verdict in VERDICTS)}"


def page(acceptance: Acceptance, file: Path, judgements: Sequence[Judgement], sources: Sequence[str | Path]) -> str:
    """A page of HTML for the file: the lines, what they were judged by (with digests), and room for signatures."""
    table = acceptance_table(judgements)
    cells = [
        [shown(cell) if c.show is None else c.show(cell) for c, cell in zip(table.columns, row, strict=True)]
        for row in table.rows
    ]
    parts = [part for source in sources for part in find(source)[0]]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_PAGE).render(
        name=acceptance.name,
        summary=summary(acceptance, judgements),
        columns=[column.title for column in table.columns],
        rows=cells,
        alignments=alignments(table),
        file=file.name,
        file_digest=hashlib.sha256(file.read_bytes()).hexdigest(),
        parts=len(parts),
        parts_digest=digest_of(parts),
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=__version__,
    )


def digest_of(files: Sequence[Path]) -> str:
    """SHA-256 over the SHA-256 of each file, by its digest: names and places do not matter."""
    digests = []
    for file in files:
        with file.open("rb") as opened:
            digests.append(hashlib.file_digest(opened, "sha256").hexdigest())
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def _signed(cell: Cell) -> str:
    return f"{100 * cell:+.1f} %" if isinstance(cell, int | float) else units.MISSING


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Acceptance: {{ name }}</title>
<style>
body { font: 14px/1.5 sans-serif; color: #1f2933; margin: 2em auto; max-width: 72em; padding: 0 1em }
table { border-collapse: collapse; width: 100%; margin: 1em 0 }
th, td { border-bottom: 1px solid #dfe4ea; padding: .3em .6em; text-align: left; vertical-align: top }
.right { text-align: right } .failed { color: #b02a00; font-weight: bold } .passed { color: #00664a }
code { font-size: 12px; overflow-wrap: anywhere } .sign td { height: 4em; width: 33% }
</style></head><body>
<h1>Acceptance: {{ name }}</h1>
<p><strong>{{ summary }}</strong></p>
<table><thead><tr>{% for title in columns %}<th class="{{ alignments[loop.index0] }}">{{ title }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in rows %}
<tr>{% for cell in row %}<td class="{{ alignments[loop.index0] }} {{ cell if cell in ('passed', 'failed') else '' }}">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
<p>Value: geometric mean over fresh processes; interval at 95 %. Passed: the whole interval keeps the limit. Failed: the
whole interval misses it. Margin: distance of the value from the limit.</p>
<table><tbody>
<tr><td>Acceptance file</td><td>{{ file }}</td><td><code>SHA-256 {{ file_digest }}</code></td></tr>
<tr><td>Results</td><td>{{ parts }} Parquet files</td><td><code>SHA-256 {{ parts_digest }}</code></td></tr>
<tr><td>Judged</td><td>{{ date }}</td><td>dlbench {{ version }}</td></tr>
</tbody></table>
<table class="sign"><thead><tr><th>Name</th><th>Date</th><th>Signature</th></tr></thead>
<tbody><tr><td></td><td></td><td></td></tr><tr><td></td><td></td><td></td></tr></tbody></table>
</body></html>
"""
