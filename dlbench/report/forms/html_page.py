"""The report as one self-contained HTML page."""

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from dlbench import units
from dlbench.report.document import Block, Report, Section
from dlbench.report.figures import figure_style
from dlbench.report.forms.record_links import RecordLinks
from dlbench.table import Cell, Table, column_alignments, default_cell_text
from dlbench.version import __version__

TEMPLATES = Path(__file__).parent
#: A table with more rows than this can be searched.
MIN_ROWS_TO_SEARCH = 12
_SPACE_BEFORE_PERCENT = re.compile(r"(?<=[0-9]) (?=%)")
_CODE_SPAN = re.compile("`([^`]+)`")


def template_environment() -> Environment:
    """The HTML templates of this folder: texts are escaped, and a name without a value is an error."""
    loader = FileSystemLoader(TEMPLATES)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def html_page(report: Report) -> str:
    """The whole page, with styles, script and figures inside it."""
    environment = template_environment()
    environment.filters["marked"] = _backticks_to_code_spans
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    links = RecordLinks(report.content, report.sections)
    return environment.get_template("page.html").render(
        title=report.title,
        subtitle=report.subtitle,
        sections=report.sections,
        drawn=lambda block: _inline_svg(block, report.svgs, links),
        more=_count_folded_figures_and_tables,
        runs=_unfolding_run_links,
        cells=_cell_texts_and_sort_values,
        sorted_by=lambda value: format(value, ".9g") if isinstance(value, float) else value,
        heading=lambda column: column.title_and_unit(),
        alignments=column_alignments,
        choices=_filter_choices,
        links=links,
        searchable=lambda block: bool(block.filters) or len(block.table.rows) > MIN_ROWS_TO_SEARCH,
        version=__version__,
        css=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=digest,
    )


def _inline_svg(block: Block, svgs: dict[str, str], links: RecordLinks) -> Markup:
    plot = block.plot
    assert plot
    # matplotlib escapes all texts of a figure, and the caption is escaped here.
    svg = figure_style.adapt_svg_for_page(svgs[plot.name], plot.name, str(escape(plot.caption)))
    marks = plot.marks

    def add_tooltip(found: re.Match[str]) -> str:
        mark = marks.get(found[1])
        if mark is None:
            return found[0]
        series = f' data-series="{escape(mark.series)}"' if mark.series else ""
        if found[2]:
            return f"<g{series}>"
        target = links.find_row_id_of_attempt(mark.record)
        to = f' data-target="{escape(target)}"' if target else ""
        return f'<g class="mark" tabindex="0"{series}{to}><title>{escape(mark.text)}</title>'

    return Markup(re.sub(f'<g id="{re.escape(plot.name)}-(mark-[0-9]+)(-[a-z]+)?">', add_tooltip, svg))


def _unfolding_run_links(links: RecordLinks, attempts: Cell) -> Markup:
    """The runs behind a row as a number that unfolds into links."""
    ids = str(attempts).split()
    targets = [(links.find_row_id_of_attempt(attempt), attempt.partition("-")[2] or attempt) for attempt in ids]
    items = Markup("<br>").join(Markup('<a href="#{}">{}</a>').format(*one) if one[0] else one[1] for one in targets)
    return Markup("<details><summary>{}</summary>{}</details>").format(len(ids), items)


def _count_folded_figures_and_tables(section: Section) -> str:
    """What a folded chapter holds: "2 figures, 3 tables"."""
    rest = section.remaining_blocks()
    figures = sum(1 for block in rest if block.plot and block.plot.figure)
    tables = sum(1 for block in rest if block.table)
    parts = [units.count_text(n, noun) for n, noun in ((figures, "figure"), (tables, "table")) if n]
    return ", ".join(parts) or "text"


def _backticks_to_code_spans(text: str) -> Markup:
    """`text` for the page, with what stands between backticks as code."""
    escaped = _SPACE_BEFORE_PERCENT.sub("\u00a0", str(escape(text)))  # no line begins with a %
    return Markup(_CODE_SPAN.sub(r"<code>\1</code>", escaped))


def _cell_texts_and_sort_values(table: Table, row: Sequence[Cell]) -> list[tuple[str, Cell]]:
    """The shown text of each cell, and the value to sort by."""
    return [((column.show or default_cell_text)(cell), cell) for column, cell in zip(table.columns, row, strict=True)]


def _filter_choices(table: Table, filters: Sequence[str]) -> list[tuple[int, str, list[str]]]:
    """Index, heading and different values of each column to filter by; a column with one value is no choice."""
    found = []
    for index, column in enumerate(table.columns):
        values = list(dict.fromkeys((column.show or default_cell_text)(row[index]) for row in table.rows))
        if column.key in filters and len(values) > 1:
            found.append((index, column.heading, values))
    return found
