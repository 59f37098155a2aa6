"""The printed report: chapters become data, and the template `report.typ` lays them out with Typst.

The same store gives the same bytes: the document bears the time of the latest attempt, not that of its making.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import typst
from matplotlib import font_manager

from dlbench.report.analysis.labels import shorten_in_middle
from dlbench.report.document import Block, Plot, Section
from dlbench.report.forms.table_layout import TableSheet, notes_with_omitted_rows, split_into_sheets
from dlbench.table import Table
from dlbench.version import __version__

#: A table has at most so many rows here; the other forms hold all.
MAX_ROWS = 60
#: Width of the page without its margins, and of an average character of a table [mm].
_PAGE_WIDTH, _CHARACTER = 271.0, 1.45
#: What a cell keeps free at its sides [mm].
_PADDING = 2.0
_MAX_FIGURE_HEIGHT = 125.0  # mm
#: A note below a key figure is cut to this many characters.
_MAX_NOTE = 160
_TEMPLATE = Path(__file__).with_name("report.typ")
#: matplotlib brings DejaVu along, so that no font of the system is needed.
_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def write_pdf(
    path: Path, title: str, subtitle: str, sections: Sequence[Section], figures: Path, when: datetime
) -> None:
    """Write a document of all blocks of `sections` to `path`.

    Args:
        figures: the folder that holds each plot as PDF.
        when: the date that the document bears, to the second.
    """
    data = {
        "title": title,
        "subtitle": f"{subtitle} · dlbench {__version__}",
        "version": __version__,
        "sections": [
            {
                "title": s.title,
                "finding": s.finding,
                "blocks": [_block_template_data(block, figures) for block in s.blocks],
            }
            for s in sections
        ],
    }
    typst.Compiler(
        _TEMPLATE.read_bytes(),
        root=str(figures.resolve()) if figures.is_dir() else str(path.parent.resolve()),
        font_paths=typst.Fonts(include_system_fonts=False, font_paths=[str(_FONTS)]),
        sys_inputs={"data": json.dumps(_replace_missing_glyphs(data))},
    ).compile(output=str(path), format="pdf", timestamp=when.replace(microsecond=0))


def _block_template_data(block: Block, figures: Path) -> dict[str, Any]:
    return {
        "heading": block.heading,
        "words": block.words,
        "large": block.emphasis,
        "points": block.points,
        "cards": [
            {"value": f.value, "label": f.label, "note": shorten_in_middle(f.note, _MAX_NOTE)} for f in block.figures
        ],
        "plot": _plot_template_data(block.plot, figures) if block.plot else None,
        "sheets": _sheets_template_data(block.table) if block.table else [],
        "notes": notes_with_omitted_rows(block.table, MAX_ROWS) if block.table else [],
    }


def _plot_template_data(plot: Plot, figures: Path) -> dict[str, Any]:
    """A figure as wide as the page, but low enough for its heading and caption."""
    file, width = None, 0.0
    if plot.figure:
        # In PDF the fonts come along; in SVG they are found among those of matplotlib.
        file = next(f"/{plot.name}.{kind}" for kind in ("pdf", "svg") if (figures / f"{plot.name}.{kind}").is_file())
        inches = plot.figure.get_size_inches()
        width = min(0.84 * _PAGE_WIDTH, _MAX_FIGURE_HEIGHT * inches[0] / inches[1])
    return {"file": file, "width": width, "caption": plot.caption}


def _sheets_template_data(table: Table) -> list[dict[str, Any]]:
    sheets = split_into_sheets(table, (_PAGE_WIDTH - _PADDING * len(table.columns)) / _CHARACTER, MAX_ROWS)
    return [_sheet_template_data(sheet) for sheet in sheets]


def _sheet_template_data(sheet: TableSheet) -> dict[str, Any]:
    widths = [width * _CHARACTER + _PADDING for width in sheet.widths]
    shrunk = min(1.0, _PAGE_WIDTH / sum(widths))
    return {
        "widths": [round(shrunk * width, 2) for width in widths],
        "aligns": sheet.aligns,
        "headings": sheet.headings,
        "rows": sheet.rows_with_break_points(),
    }


def _replace_missing_glyphs(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _replace_missing_glyphs(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_replace_missing_glyphs(value) for value in data]
    return _replace_missing_glyphs_in_text(data) if isinstance(data, str) else data


def _replace_missing_glyphs_in_text(text: str) -> str:
    """`text` with a box for each character that the font lacks; no line begins with a %."""
    text = re.sub(r"(?<=\d) %", "\u00a0%", text)
    known = _characters_in_font()
    return "".join(c if c in "\n\u200b" or ord(c) in known else " " if c == "\t" else "□" for c in text)


@cache
def _characters_in_font() -> frozenset[int]:
    """The code points that can be seen in DejaVu Sans."""
    characters = font_manager.get_font(str(_FONTS / "DejaVuSans.ttf")).get_charmap()
    return frozenset(c for c in characters if not unicodedata.category(chr(c)).startswith("C"))
