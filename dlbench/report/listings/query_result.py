"""The answer to a query as text, CSV, JSON or Markdown."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from dlbench.json_text import dump_json
from dlbench.results.query import query
from dlbench.table import Cell, Column, Table, default_cell_text, render

#: A longer list is cut for people.
_MAX_LISTED = 6


def format_query(sql: str, sources: Sequence[str | Path], format: str) -> str:
    """What `sql` gives, in one of the formats text, markdown, csv and json; json is a list of objects.

    Raises StoreError if a source does not exist, BadInput if DuckDB refuses the statement.
    """
    names, rows = query(sql, sources)
    if format == "json":
        return dump_json([dict(zip(names, row, strict=True)) for row in rows]) + "\n"
    # Lists and structures as JSON.
    cells = [
        [v if isinstance(v, str | int | float | bool | None) else json.dumps(v, ensure_ascii=False) for v in row]
        for row in rows
    ]
    return render(Table([Column(name, show=_shorten_for_terminal) for name in names], cells), format)


def _shorten_for_terminal(cell: Cell) -> str:
    """On one line, without what a terminal might obey, long lists by their beginning."""
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return default_cell_text(cell) if isinstance(cell, float) and not math.isfinite(cell) else str(cell)
    if not isinstance(cell, str):
        return default_cell_text(cell)
    if cell.startswith("[") and cell.count(",") >= _MAX_LISTED:
        cell = ",".join(cell.split(",")[:_MAX_LISTED]) + f", ... ({cell.count(',') + 1} in all)]"
    return "".join(c if c.isprintable() else " " for c in cell)
