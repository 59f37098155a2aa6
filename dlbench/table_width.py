"""Makes a table fit a terminal: long texts go over several lines, and columns without room are left out."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence

#: Texts are not broken into pieces shorter than this.
_MIN_COLUMN_WIDTH = 16
#: Spaces between two columns.
GAP = 2


def terminal_width() -> int | None:
    """Characters in a line of the terminal; None where the output goes elsewhere and may be as wide as it is."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def fit_to_width(rows: Sequence[Sequence[str]], aligns: Sequence[str], width: int) -> tuple[list[list[str]], int]:
    """The cells with line breaks in long texts, and how many columns fit into `width` characters.

    Args:
        rows: the headings, then the body.
        aligns: of each column "left" or "right"; numbers (right) are never broken.
    """
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    while _total_width(widths) > width:
        widest = max(range(len(widths)), key=lambda i: (aligns[i] == "left") * widths[i])
        if aligns[widest] != "left" or widths[widest] <= _MIN_COLUMN_WIDTH:
            break
        widths[widest] = max(_MIN_COLUMN_WIDTH, widths[widest] - (_total_width(widths) - width), widths[widest] // 2)
    shown = len(widths)
    while shown > 1 and _total_width(widths[:shown]) > width:
        shown -= 1
    return [[_wrap_cell(cell, w) for cell, w in zip(row, widths, strict=True)] for row in rows], shown


def _total_width(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _wrap_cell(cell: str, width: int) -> str:
    return cell if len(cell) <= width else "\n".join(textwrap.wrap(cell, width, break_on_hyphens=False))
