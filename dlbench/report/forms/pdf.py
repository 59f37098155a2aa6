"""The report as a PDF document, without a browser: landscape pages, an outline, tables that go on over pages.

The same store gives the same bytes: the document bears the time of the latest attempt, not that of its making.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from fpdf import FPDF
from fpdf.fonts import FontFace, TTFFont
from matplotlib import font_manager
from PIL import Image

from dlbench.report.analysis.labels import short
from dlbench.report.document import Block, KeyFigure, Plot, Section
from dlbench.report.figures.figure_style import INK, MUTED
from dlbench.report.forms.layout import Sheet, left_out, sheets
from dlbench.table import Table
from dlbench.version import __version__

#: A table has at most so many rows here: nobody searches on paper, and the other forms hold all.
MAX_ROWS = 60
_MARGIN, _BOTTOM = 12.0, 14.0  # mm
_SMALL, _NORMAL, _LARGE = 6.2, 9.0, 14.0  # points
#: Width of an average character [mm] in the size of tables, and what a cell keeps free at its sides [mm].
_CHARACTER = 0.65 * _SMALL * 25.4 / 72
_PADDING = 1.0
#: Height of a line in a table, and what a row keeps free above and below [mm].
_LINE, _ABOVE = 3.1, 0.5
_RULE, _SHADE = 210, 240  # grey levels
#: Words below a key figure are no longer than this: its row must fit a page.
_MAX_NOTE = 160
#: matplotlib brings DejaVu along.
_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def write(path: Path, title: str, subtitle: str, sections: Sequence[Section], figures: Path, when: datetime) -> None:
    """Write the document to `path`.

    Args:
        figures: the folder that holds each plot as PNG.
        when: the date that the document bears.
    """
    document = _Document(title, when)
    try:
        document.heading(title, 20)
        document.words(f"{subtitle} · dlbench {__version__}", muted=True)
        for section in sections:
            document.section(section, figures)
        document.output(str(path))
    finally:
        document.close_fonts()


#: Of a table: how wide a column is [mm], and to which side its texts stand.
_Column = tuple[float, str]


@dataclass(frozen=True)
class _Row:
    """A row of a table: of each cell the lines, and how high all are [mm]."""

    texts: Sequence[Sequence[str]]
    bold: bool
    height: float


class _Document(FPDF):
    """An A4 page in landscape with page numbers, and how each kind of block is set on it."""

    def __init__(self, title: str, when: datetime) -> None:
        super().__init__(orientation="landscape", format="A4", unit="mm")
        self._broken_before: dict[tuple[str, float, bool], list[str]] = {}
        self.add_font("DejaVu", "", _FONTS / "DejaVuSans.ttf")
        self.add_font("DejaVu", "B", _FONTS / "DejaVuSans-Bold.ttf")
        self.set_margin(_MARGIN)
        self.set_auto_page_break(True, _BOTTOM)
        self.set_creation_date(when.astimezone(UTC))
        self.set_title(_drawable(title))
        self.set_producer(f"dlbench {__version__}")
        self.set_lang("en")
        self.set_draw_color(_RULE)
        self.add_page()

    def close_fonts(self) -> None:
        """fpdf2 leaves their files open."""
        for font in self.fonts.values():
            if isinstance(font, TTFFont):
                font.ttfont.close()

    def footer(self) -> None:
        self.set_y(-_BOTTOM + 4)
        self._font(_SMALL, muted=True)
        self.cell(0, 4, f"{self.page_no()} / {{nb}}", align="R")

    def section(self, section: Section, figures: Path) -> None:
        """A chapter with all that its blocks hold, folded or not."""
        first = section.blocks[0]
        self._keep_together(40 + _height(first.plot, figures, self.epw))
        self.start_section(_drawable(section.title))
        self.ln(4)
        self.heading(section.title, _LARGE)
        for block in section.blocks:
            self._block(block, figures)

    def heading(self, text: str, size: float) -> None:
        self._font(size, bold=True)
        self.multi_cell(0, size * 0.5, _drawable(text), align="L", new_x="LMARGIN", new_y="NEXT")
        self.ln(1)

    def words(self, text: str, muted: bool = False) -> None:
        """A paragraph, no wider than is good to read."""
        self._font(_NORMAL, muted=muted)
        width = min(self.epw, 210.0)
        self.multi_cell(width, 4.4, _drawable(text), align="L", new_x="LMARGIN", new_y="NEXT")
        self.ln(1.5)

    def _block(self, block: Block, figures: Path) -> None:
        if block.heading:
            self._keep_together(_height(block.plot, figures, self.epw) + 25)
            self.ln(1)
            self.heading(block.heading, 10.5)
        if block.words:
            self.words(block.words)
        if block.figures:
            self._key_figures(block.figures)
        if block.plot:
            self._plot(block.plot, figures)
        if block.table:
            self._table(block.table)

    def _key_figures(self, figures: Sequence[KeyFigure]) -> None:
        styles = [FontFace(size_pt=15, emphasis="BOLD"), FontFace(size_pt=8), FontFace(size_pt=7, color=MUTED)]
        rows = [[f.value for f in figures], [f.label for f in figures], [f.note for f in figures]]
        self._font(_NORMAL)
        with self.table(
            first_row_as_headings=False, borders_layout="NONE", text_align="LEFT", align="LEFT", line_height=4.4
        ) as table:
            for style, cells in zip(styles, rows, strict=True):
                row = table.row(style=style)
                for cell in cells:
                    row.cell(_drawable(short(cell, _MAX_NOTE)))
        self.ln(2)

    def _plot(self, plot: Plot, figures: Path) -> None:
        if plot.figure:
            height = _height(plot, figures, self.epw)
            self._keep_together(height + 12)
            with Image.open(figures / f"{plot.name}.png") as image:
                # Without the alpha channel, which is all opaque.
                self.image(image.convert("RGB"), h=height, alt_text=_drawable(plot.caption))
            self.ln(1)
        self.words(plot.caption, muted=True)

    def _table(self, table: Table) -> None:
        free = 2 * _PADDING / _CHARACTER
        page_width = self.epw / _CHARACTER - free * len(table.columns)
        for sheet in sheets(table, page_width, MAX_ROWS):
            self._sheet(sheet, free)
        notes = [note for note in (left_out(table, MAX_ROWS), *table.notes) if note]
        for note in notes:
            self.words(note, muted=True)

    def _sheet(self, sheet: Sheet, free: float) -> None:
        """Rows under headings, which stand on every page. (fpdf2 has tables too, which take several times as long.)"""
        widths = [(width + free) * _CHARACTER for width in sheet.widths]
        shrunk = min(1.0, self.epw / sum(widths))
        columns = [(shrunk * width, align) for width, align in zip(widths, sheet.aligns, strict=True)]
        headings = self._row(sheet.headings, columns, bold=True)
        rows = [self._row(cells, columns) for cells in sheet.rows]
        # Headings never stand alone.
        self._keep_together(headings.height + (rows[0].height if rows else 0))
        self._draw(headings, columns, last=not rows)
        for number, row in enumerate(rows, 1):
            if self.will_page_break(row.height):
                self.add_page()
                self._draw(headings, columns)
            self._draw(row, columns, last=number == len(rows))
        self.ln(2.5)

    def _row(self, cells: Sequence[str], columns: Sequence[_Column], bold: bool = False) -> _Row:
        self._font(_SMALL, bold)
        texts = [self._lines_of(cell, width, bold) for cell, (width, _) in zip(cells, columns, strict=True)]
        return _Row(texts, bold, max(map(len, texts)) * _LINE + 2 * _ABOVE)

    def _lines_of(self, cell: str, width: float, bold: bool) -> list[str]:
        """`_broken`, once for each text: the cells of a column are often alike."""
        key = cell, width, bold
        if key not in self._broken_before:
            self._broken_before[key] = self._broken(_drawable(cell), width)
        return self._broken_before[key]

    def _broken(self, text: str, width: float) -> list[str]:
        """The lines of a cell's text in a column of this width [mm]."""
        if "\n" not in text and self.get_string_width(text) <= width - 2 * _PADDING:
            return [text]
        margins: Any = (_ABOVE, _PADDING)
        lines: Any = self.multi_cell(width, _LINE, text, align="L", padding=margins, dry_run=True, output="LINES")
        return list(lines)

    def _draw(self, row: _Row, columns: Sequence[_Column], last: bool = False) -> None:
        """A row at the present height, with a rule below it unless it is the last."""
        self._font(_SMALL, row.bold)
        x, y = self.l_margin, self.y
        total = sum(width for width, _ in columns)
        if row.bold:
            self.set_fill_color(_SHADE)
            self.rect(x, y, total, row.height, style="F")
        for lines, (width, align) in zip(row.texts, columns, strict=True):
            for number, line in enumerate(lines):
                left = width - _PADDING - self.get_string_width(line) if align == "right" else _PADDING
                # Half a line down, and from there to the foot of the letters.
                self.text(x + left, y + _ABOVE + (number + 0.5) * _LINE + 0.3 * self.font_size, line)
            x += width
        self.set_y(y + row.height)
        if not last:
            self.line(self.l_margin, self.y, self.l_margin + total, self.y)

    def _keep_together(self, height: float) -> None:
        """Begin a new page where less than this [mm] is left of the present one."""
        if self.will_page_break(min(height, self.eph)):
            self.add_page()

    def _font(self, size: float, bold: bool = False, muted: bool = False) -> None:
        self.set_font("DejaVu", "B" if bold else "", size)
        self.set_text_color(MUTED if muted else INK)


def _height(plot: Plot | None, figures: Path, page_width: float) -> float:
    """How high [mm] a figure stands on a page: as wide as that, but low enough for its heading and caption."""
    if plot is None or plot.figure is None:
        return 0.0
    with Image.open(figures / f"{plot.name}.png") as image:
        width, height = image.size
    return min(page_width * 0.82 * height / width, 140.0)


def _drawable(text: str) -> str:
    """`text` with a box for each character that the font lacks."""
    known = _characters()
    return "".join(c if c == "\n" or ord(c) in known else " " if c == "\t" else "□" for c in text)


@cache
def _characters() -> frozenset[int]:
    """The code points that can be seen in DejaVu Sans."""
    characters = font_manager.get_font(str(_FONTS / "DejaVuSans.ttf")).get_charmap()
    return frozenset(c for c in characters if not unicodedata.category(chr(c)).startswith("C"))
