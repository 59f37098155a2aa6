"""Parts of a figure that show their value when pointed at, and lead to their record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlbench.report.document import Mark


class Marks:
    """The marks of one figure while it is drawn; `found` goes into its `Plot`."""

    def __init__(self) -> None:
        self.found: dict[str, Mark] = {}

    def add(self, text: str, series: str = "", record: str = "") -> str:
        """The `gid` of the part that `text` belongs to; parts with the same series are shown and hidden together."""
        gid = f"mark-{len(self.found)}"
        self.found[gid] = Mark(text, series, record)
        return gid

    def add_case(self, case: Mapping[Any, Any], text: str, series: str = "") -> str:
        """`add` for a row of cases, whose first record it leads to."""
        records = case.get("records")
        return self.add(text, series, records[0] if isinstance(records, tuple) and records else "")
