"""The report as one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from dlbench.report.document import Block, Report
from dlbench.report.figures import figure_style
from dlbench.report.forms.links import Links
from dlbench.table import (
    Cell,
    Table,
    alignments,
    shown,
)
from dlbench.version import __version__

TEMPLATES = Path(__file__).parent
#: A table with more rows than this can be searched.
MIN_SEARCHED = 12
_CODE = re.compile("`([^`]+)`")


def html_page(report: Report) -> str:
    """The whole page, with styles, script and figures inside it."""
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
        subtitle=report.subtitle,
        sections=report.sections,
        drawn=lambda block: _inline(block, report.svgs),
        cells=_cells,
        heading=lambda column: column.title_and_unit(),
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


def _choices(table: Table, filters: Sequence[str]) -> list[tuple[int, str, list[str]]]:
    """Of each column to filter by its index, heading and different values; a column with one value is no choice."""
    found = []
    for index, column in enumerate(table.columns):
        values = list(dict.fromkeys((column.show or shown)(row[index]) for row in table.rows))
        if column.key in filters and len(values) > 1:
            found.append((index, column.heading, values))
    return found
