"""The report as files: one self-contained HTML page, Markdown, CSV and figures; and the short table for a terminal.

The same store gives the same bytes: no clock is read, no order is left to chance.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from dlbench import units
from dlbench.errors import StoreError
from dlbench.report import figure_style, tables
from dlbench.report.content import Block, Content, Section, read
from dlbench.report.labels import short
from dlbench.report.render import Cell, Column, Table, csv_text, escape_markdown, markdown, shown, text
from dlbench.report.sections import SECTIONS
from dlbench.spec.case import AXES
from dlbench.version import __version__

TEMPLATES = Path(__file__).parent
#: A terminal is at least so wide.
TERMINAL_WIDTH = 100
#: Columns of the comparison that a terminal does without, the first ones first.
_DISPENSABLE = (
    *("distance_to_bound", "iqr", "flop_per_image", "memory_rss", "step_time", "flop_rate"),
    *("sustained_throughput", "memory_allocated", "energy_per_image", "steps"),
)


def build(sources: Sequence[Path | str], out: Path, title: str | None = None) -> Path:
    """Write the report of all results in `sources` into the folder `out`; gives the path of the HTML page.

    Args:
        sources: results folders, Parquet files or glob patterns.
        out: made if it is not there; gets index.html, report.md, metrics.csv, comparison.csv and figures/.
        title: above the report; by default it says what was measured on which machine.

    Raises:
        StoreError: a source does not exist, or `out` cannot be written.
    """
    content = read(sources)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _write(content, out, title or _title(content))
    except OSError as error:
        raise StoreError(f"cannot write the report to {out}: {error.strerror or error}") from error


def summary_table(sources: Sequence[Path | str]) -> str:
    """The measured cases as an aligned table for a terminal, at most 100 columns wide unless the names forbid it.

    Raises:
        StoreError: a source does not exist.
    """
    content = read(sources)
    if content.shown.empty:
        failed = f"{units.counted(len(content.failed), 'case')} failed" if len(content.failed) else "the store is empty"
        return f"no measured case: {failed}\n"
    parts = []
    for system, name in content.system_names.items():
        cases = content.of_system(system)
        if len(cases):
            table = tables.comparison(cases, {})
            parts.append(_fitted(Table(table.columns, table.rows, name)))
    if len(content.failed):
        parts.append(f"{units.counted(len(content.failed), 'case')} failed; the report says why.\n")
    return "\n".join(parts)


def _write(content: Content, out: Path, title: str) -> Path:
    with figure_style.style():
        sections = [section(content) for section in SECTIONS]
        svgs = {
            block.plot.name: figure_style.save(block.plot.figure, out / "figures", block.plot.name)
            for section in sections
            for block in section.blocks
            if block.plot and block.plot.figure
        }
    (out / "metrics.csv").write_text(tables.tidy_csv(content.attempts), encoding="utf-8")
    if len(content.shown):
        comparison = tables.comparison(content.shown, content.system_names)
        (out / "comparison.csv").write_text(csv_text(comparison), encoding="utf-8")
    (out / "report.md").write_text(_markdown(sections, title), encoding="utf-8")
    page = out / "index.html"
    page.write_text(_html(content, sections, svgs, title), encoding="utf-8")
    return page


def _html(content: Content, sections: list[Section], svgs: dict[str, str], title: str) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        title=title,
        subtitle=_subtitle(content),
        sections=sections,
        drawn=lambda block: _inline(block, svgs),
        cells=_cells,
        heading=_heading,
        alignments=_alignments,
        choices=_choices,
        version=__version__,
        css=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=digest,
    )


def _inline(block: Block, svgs: dict[str, str]) -> Markup:
    assert block.plot
    # matplotlib escapes all texts of a figure, and the caption is escaped here.
    label = str(escape(block.plot.caption))
    return Markup(figure_style.for_page(svgs[block.plot.name], block.plot.name, label))


def _cells(table: Table, row: Sequence[Cell]) -> list[tuple[str, Cell]]:
    """Of each cell the shown text, and the value to sort by."""
    return [((column.show or shown)(cell), cell) for column, cell in zip(table.columns, row, strict=True)]


def _heading(column: Column) -> tuple[str, str]:
    """A column's title and its unit, which the page puts below it."""
    title, bracket, unit = column.heading.partition(" [")
    return title, unit.removesuffix("]") if bracket else ""


def _alignments(table: Table) -> list[str]:
    """Of each column "left" or "right": numbers to the right, where the column says nothing else."""
    columns = zip(
        table.columns, zip(*table.rows, strict=True) if table.rows else ((),) * len(table.columns), strict=True
    )
    return [
        c.align or ("right" if any(isinstance(v, int | float) for v in values) else "left") for c, values in columns
    ]


def _choices(table: Table, filters: Sequence[str]) -> list[tuple[int, str, list[str]]]:
    """Of each column to filter by its index, heading and different values; a column with one value is no choice."""
    found = []
    for index, column in enumerate(table.columns):
        values = list(dict.fromkeys((column.show or shown)(row[index]) for row in table.rows))
        if column.key in filters and len(values) > 1:
            found.append((index, column.heading, values))
    return found


def _markdown(sections: list[Section], title: str) -> str:
    lines = [f"# {escape_markdown(title)}", ""]
    for section in sections:
        lines += [f"## {escape_markdown(section.title)}", ""]
        for block in section.blocks:
            lines += [line for part in _markdown_block(block) for line in (part, "")]
    return "\n".join(lines)


def _markdown_block(block: Block) -> list[str]:
    parts = [f"### {escape_markdown(block.heading)}"] if block.heading else []
    parts += [escape_markdown(block.words)] if block.words else []
    figures = [f"- **{escape_markdown(f.value)}** {escape_markdown(f'{f.label} ({f.note})')}" for f in block.figures]
    parts += ["\n".join(figures)] if figures else []
    if block.plot:
        caption = escape_markdown(block.plot.caption)
        parts += [f"![{caption}](figures/{block.plot.name}.svg)"] if block.plot.figure else []
        parts.append(f"*{caption}*")
    return parts + ([markdown(block.table)] if block.table else [])


def _title(content: Content) -> str:
    names = list(content.system_names.values())
    machine = " and ".join(names) if len(names) <= 2 else f"{len(names)} systems"
    return f"Convolutional networks on {machine}" if names else "Convolutional networks"


def _subtitle(content: Content) -> str:
    if content.attempts.empty:
        return "No results yet"
    versions = content.attempts[["suite", "suite_version"]].drop_duplicates().sort_values(["suite", "suite_version"])
    suites = [f"{name} v{version}" for name, version in versions.itertuples(index=False)]
    first, last = content.attempts["started_at"].min(), content.attempts["started_at"].max()
    days = f"{first:%Y-%m-%d}" if f"{first:%Y%m%d}" == f"{last:%Y%m%d}" else f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
    return f"Suite {', '.join(suites)} · measured {days}"


def _fitted(table: Table) -> str:
    """`table` as text: what is the same in all rows goes to the title, and columns go until it fits a terminal."""
    same = [i for i, c in enumerate(table.columns) if c.key in AXES and len({row[i] for row in table.rows}) == 1]
    values = [f"{table.columns[i].heading.lower()} {table.rows[0][i]}" for i in same]
    table = _without(Table([_terminal(c) for c in table.columns], table.rows, " · ".join([table.title, *values])), same)
    for key in (None, *_DISPENSABLE):
        table = _without(table, [i for i, column in enumerate(table.columns) if column.key == key])
        printed = text(table)
        if max(map(len, printed.splitlines())) <= TERMINAL_WIDTH:
            return printed
    return printed


def _without(table: Table, indices: Sequence[int]) -> Table:
    kept = [i for i in range(len(table.columns)) if i not in indices]
    return Table([table.columns[i] for i in kept], [[row[i] for i in kept] for row in table.rows], table.title)


def _terminal(column: Column) -> Column:
    """`column` under a shorter heading: the unit says enough."""
    title, unit = _heading(column)
    if column.key == "model":
        return Column(column.key, title, "left", lambda name: short(str(name), 18))
    if column.key in ("throughput", "flop_rate", "energy_per_image"):
        return Column(column.key, unit, column.align, column.show)
    return column
