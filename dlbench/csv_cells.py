"""CSV cells, protected so that a spreadsheet does not run them as formulas."""

import re
from collections.abc import Sequence

#: First characters of formulas in spreadsheets, with full-width forms; some spreadsheets skip a tab or line end.
_FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def escape_formula(text: str) -> str:
    """Protect a text by an apostrophe if a spreadsheet would run it (OWASP, "CSV Injection"); numbers are unchanged."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


#: Characters that require quotation marks.
_NEEDS_QUOTES = re.compile(r'[",\r\n]')


def quote_field(text: str) -> str:
    """Quote a field if needed (RFC 4180)."""
    return '"' + text.replace('"', '""') + '"' if _NEEDS_QUOTES.search(text) else text


def csv_line(cells: Sequence[str | int | float | bool | None]) -> str:
    """Format one line of a CSV file: missing values are empty, texts are protected from running as formulas."""
    fields = ["" if c is None else quote_field(escape_formula(c)) if isinstance(c, str) else str(c) for c in cells]
    # An empty line would not count as a line with one empty field.
    return (",".join(fields) or '""') + "\n"
