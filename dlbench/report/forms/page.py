"""The report as files: one self-contained HTML page, PDF, Markdown, LaTeX, CSV, figures; and the table for a terminal.

The same store gives the same bytes: no clock is read, no order is left to chance.
"""

from __future__ import annotations

import base64
import gc
import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from dlbench import units
from dlbench.errors import StoreError
from dlbench.report.analysis.content import Content, read
from dlbench.report.analysis.labels import short
from dlbench.report.chapters import tables
from dlbench.report.chapters.sections import SECTIONS, variability
from dlbench.report.document import Block, Section
from dlbench.report.figures import figure_style, pdf_fonts
from dlbench.report.forms import latex
from dlbench.report.forms.links import Links
from dlbench.report.forms.parallel import Crew, Pending, results
from dlbench.report.forms.whole import write_whole
from dlbench.suites.case import AXES
from dlbench.table import (
    Cell,
    Column,
    Table,
    alignments,
    csv_text,
    escape_markdown,
    markdown,
    shown,
    text,
)
from dlbench.version import __version__

TEMPLATES = Path(__file__).parent
#: A table with more rows than this can be searched.
MIN_SEARCHED = 12
_CODE = re.compile("`([^`]+)`")
#: A terminal is at least so wide.
TERMINAL_WIDTH = 100
#: Columns of the comparison that a terminal does without, the first ones first.
_DISPENSABLE = (
    *("attempt_id", "distance_to_layer_bound", "distance_to_bound", "iqr", "flop_per_image", "memory_rss"),
    *("step_time", "flop_rate", "sustained_throughput", "memory_allocated", "energy_per_image", "steps"),
)


class MissingForm(UserWarning):
    """One file of a report could not be written; the others are there."""


@dataclass(frozen=True)
class Report:
    """Everything that the forms of a report are written from."""

    content: Content
    sections: Sequence[Section]
    svgs: dict[str, str]  # of each figure by its name
    title: str
    folder: Path


def build(sources: Sequence[Path | str], out: Path, title: str | None = None) -> Path:
    """Write the report of all results in `sources` into the folder `out`; gives the path of the HTML page.

    Args:
        sources: results folders, Parquet files or glob patterns.
        out: made if it is not there; gets each of `FORMS` and figures/.
        title: above the report; by default it says what was measured on which machine.

    Raises:
        StoreError: a source does not exist, or `out` cannot be written.
    """
    return write(read(sources), out, title)


def write(content: Content, out: Path, title: str | None = None, progress: Callable[[str], None] | None = None) -> Path:
    """Write the report of what was read already; gives the path of the HTML page.

    Args:
        progress: is told what is being made.

    Raises:
        StoreError: `out` cannot be written.
    """
    tell = progress or _silent
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Queued tasks draw figures as well, which takes the style.
        with figure_style.style(), _seldom_collected(), Crew() as crew:
            problems = _write(crew, content, out, title or _title(content), tell)
    except OSError as error:
        raise StoreError(f"cannot write the report to {out}: {error.strerror or error}") from error
    for problem in problems:
        warnings.warn(problem, MissingForm, stacklevel=2)
    return out / "index.html"


def _form(write_form: Callable[[Report, Path], None], report: Report, path: Path) -> str:
    """Write one file; gives why it is not there, where a library that only it needs is missing."""
    try:
        write_form(report, path)
    except ImportError as error:
        path.unlink(missing_ok=True)  # of an earlier report
        return f"no {path.name}: {error}; all other files are written"
    return ""


def _write(crew: Crew, content: Content, out: Path, title: str, tell: Callable[[str], None]) -> list[str]:
    """All sections, and beside them what takes long: their figures, and the files; gives what is missing and why."""

    def begun(report: Report, names: Iterable[str]) -> list[Pending]:
        return [crew.start(partial(_form, FORMS[name], report, out / name)) for name in FORMS if name in names]

    fonts = crew.start(pdf_fonts.usual)
    files = begun(Report(content, (), {}, title, out), _OF_DATA)
    found: dict[Callable[[Content], Section], Section] = {}
    figures: list[Pending] = []
    # The figures of raw samples take longest to draw.
    for section in sorted(SECTIONS, key=lambda section: section is not variability):
        found[section] = section(content)
        plots = {b.plot.name: b.plot.figure for b in found[section].blocks if b.plot and b.plot.figure}
        if plots:
            pdf_fonts.remember(fonts.result())
        for names in crew.shares(list(plots)):
            some = {name: plots[name] for name in names}
            figures.append(crew.start(partial(figure_style.save_all, some, out / "figures")))
        if found[section].blocks:
            tell(found[section].title)
    report = Report(content, [found[section] for section in SECTIONS if found[section].blocks], {}, title, out)
    files += begun(report, FORMS.keys() - _OF_DATA - _OF_FIGURES)
    drawn = results(figures, lambda done: tell(f"{done} of {len(figures)} batches of figures"))
    # The document takes longest.
    files += begun(replace(report, svgs={name: svg for share in drawn for name, svg in share.items()}), _OF_FIGURES)
    return [problem for problem in results(files, lambda done: tell(f"{done} of {len(files)} files")) if problem]


def _silent(what: str) -> None:
    """For those who need not be told."""


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """In this context garbage is looked for seldom: a figure has thousands of parts, which stay until it is drawn."""
    usual = gc.get_threshold()
    gc.set_threshold(50_000, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def summary_table(sources: Sequence[Path | str]) -> str:
    """The measured cases as an aligned table for a terminal, at most 100 columns wide unless the names forbid it.

    Raises:
        StoreError: a source does not exist.
    """
    return terminal(read(sources))


def terminal(content: Content) -> str:
    """`summary_table` of what was read already."""
    if content.shown.empty:
        failed = f"{units.counted(len(content.failed), 'case')} failed" if len(content.failed) else "the store is empty"
        return f"no measured case: {failed}\n"
    parts = []
    for system, name in content.system_names.items():
        cases = content.of_system(system)
        if len(cases):
            table = tables.comparison(cases, {})
            parts.append(_fitted(Table(table.columns, table.rows, name)))
    if content.left_out:
        left = units.counted(content.left_out, "measured case")
        parts.append(f"{left} more; `dlbench export --format csv` has all.\n")
    if len(content.failed):
        parts.append(f"{units.counted(len(content.failed), 'case')} failed; the report says why.\n")
    return "\n".join(parts)


def _write_page(report: Report, path: Path) -> None:
    write_whole(path, [_html(report)])


def _write_markdown(report: Report, path: Path) -> None:
    write_whole(path, [_markdown(report.sections, report.title)])


def _write_metrics(report: Report, path: Path) -> None:
    write_whole(path, tables.tidy_csv_parts(report.content.attempts))


def _write_comparison(report: Report, path: Path) -> None:
    if len(report.content.shown):
        table = tables.comparison(report.content.shown, report.content.system_names)
        write_whole(path, [csv_text(table)])


def _write_latex(report: Report, path: Path) -> None:
    write_whole(path, [latex.tables(report.sections)])
    write_whole(path.with_name("report.tex"), [latex.document(report.title, path.name)])


def _write_pdf(report: Report, path: Path) -> None:
    # fpdf2 takes some time to import, and most uses of this module write no document.
    from dlbench.report.forms import pdf

    attempts = report.content.attempts
    when = attempts["started_at"].max().to_pydatetime() if len(attempts) else datetime(1970, 1, 1, tzinfo=UTC)
    pdf.write(path, report.title, _subtitle(report.content), report.sections, report.folder / "figures", when)


#: The files of a report beside its figures, and what writes each. A new form is a function and an entry.
FORMS: dict[str, Callable[[Report, Path], None]] = {
    "report.pdf": _write_pdf,
    "index.html": _write_page,
    "metrics.csv": _write_metrics,
    "comparison.csv": _write_comparison,
    "report.md": _write_markdown,
    "tables.tex": _write_latex,
}
#: What needs no sections, and what needs figures; all others are tables.
_OF_DATA = {"metrics.csv", "comparison.csv"}
_OF_FIGURES = {"report.pdf", "index.html"}


def _html(report: Report) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["marked"] = _marked
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    links = Links(report.content, report.sections)
    return environment.get_template("page.html").render(
        title=report.title,
        subtitle=_subtitle(report.content),
        sections=report.sections,
        drawn=lambda block: _inline(block, report.svgs),
        cells=_cells,
        heading=_heading,
        alignments=alignments,
        choices=_choices,
        links=links,
        searchable=lambda block: bool(block.filters) or len(block.table.rows) > MIN_SEARCHED,
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


def _marked(text: str) -> Markup:
    """`text` for the page, with what stands between backticks as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _cells(table: Table, row: Sequence[Cell]) -> list[tuple[str, Cell]]:
    """Of each cell the shown text, and the value to sort by."""
    return [((column.show or shown)(cell), cell) for column, cell in zip(table.columns, row, strict=True)]


def _heading(column: Column) -> tuple[str, str]:
    """A column's title and its unit, which the page puts below it."""
    title, bracket, unit = column.heading.partition(" [")
    return title, unit.removesuffix("]") if bracket else ""


def _choices(table: Table, filters: Sequence[str]) -> list[tuple[int, str, list[str]]]:
    """Of each column to filter by its index, heading and different values; a column with one value is no choice."""
    found = []
    for index, column in enumerate(table.columns):
        values = list(dict.fromkeys((column.show or shown)(row[index]) for row in table.rows))
        if column.key in filters and len(values) > 1:
            found.append((index, column.heading, values))
    return found


def _markdown(sections: Sequence[Section], title: str) -> str:
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
