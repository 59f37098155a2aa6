"""Makes a table fit a terminal: long texts go over several lines, and columns without room are left out."""

import contextlib
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO

#: Assumed where the terminal does not tell its width.
_USUAL_WIDTH = 80
#: Texts are not broken into pieces shorter than this.
_MIN_COLUMN_WIDTH = 16
#: Spaces between two columns.
GAP = 2


def terminal_width(stream: TextIO | None = None) -> int | None:
    """Characters in a line of the terminal; None where the output goes elsewhere and may be as wide as it is.

    `stream` is written to; None is stdout.
    """
    stream = sys.stdout if stream is None else stream
    with contextlib.suppress(OSError, ValueError):  # a closed stream
        if not stream.isatty():
            return None
        given = os.environ.get("COLUMNS", "")
        columns = int(given) if given.isdecimal() else 0
        return columns or os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH
    return None


def wrap_text(text: str, width: int | None) -> list[str]:
    """Break a text at spaces into lines of `width` characters; a longer word stays whole. None: one line."""
    if width is None:
        return [text]
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def join_wrapped(parts: Sequence[str], width: int, indent: int) -> list[str]:
    """Join texts by two spaces; what has no room in `width` characters goes to further lines, indented."""
    lines: list[str] = []
    line = ""
    for part in parts:
        joined = f"{line}{' ' * GAP}{part}" if line else part
        if len(joined.rstrip()) <= width:
            line = joined
            continue
        lines += [line] if line else []
        start = " " * indent if lines else ""
        wrapped = textwrap.wrap(
            part.strip(), width, initial_indent=start, subsequent_indent=" " * indent, break_on_hyphens=False
        )
        lines += wrapped[:-1]
        line = wrapped[-1] if wrapped else ""
    return [line.rstrip() for line in [*lines, line]]


def fit_to_width(rows: Sequence[Sequence[str]], aligns: Sequence[str], width: int) -> tuple[list[list[str]], int]:
    """The cells (headings first) with line breaks in long texts, and how many columns fit into `width` characters.

    `aligns` has "left" or "right" of each column; numbers (right) are never broken.
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
