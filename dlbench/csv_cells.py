"""Cells of CSV files that a spreadsheet must not take for formulas."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: What begins a formula in some spreadsheet, the wide forms of Asian ones included; some skip a tab or line end first.
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def harmless(text: str) -> str:
    """The text of a cell, behind an apostrophe where a spreadsheet would run it; numbers stay as they are.

    See OWASP, "CSV Injection".
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


#: What a field may hold only in quotation marks.
_SPECIAL = re.compile(r'[",\r\n]')


def quoted(text: str) -> str:
    """The field that holds a text (RFC 4180)."""
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text


def csv_line(cells: Sequence[str | int | float | bool | None]) -> str:
    """One line of a CSV file: what is missing is empty, and no text is one that a spreadsheet would run."""
    fields = ["" if c is None else quoted(harmless(c)) if isinstance(c, str) else str(c) for c in cells]
    # A line without any character would be no line of a single empty field.
    return (",".join(fields) or '""') + "\n"
