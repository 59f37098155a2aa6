"""Reports of made-up results."""

from __future__ import annotations

from dlbench.report.analysis.content import read_content
from dlbench.report.build import write_report


def build_report(sources, out, title=None):
    """Write the report of these results, as `dlbench report` does; gives the path of its page."""
    return write_report(read_content(sources, with_sides=True), out, title)
