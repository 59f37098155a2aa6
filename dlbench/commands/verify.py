"""`dlbench verify`: results looked through for what cannot be."""

from __future__ import annotations

import argparse
from typing import Any

from dlbench.commands.arguments import add_command, add_format
from dlbench.messages import say


def add(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "verify", _verify, "vendor/results")
    parser.add_argument("sources", nargs="*", default=["results"], help="results folders, Parquet files or patterns")
    add_format(parser)
    parser.epilog = f"exit status: 0 nothing found, 1 findings, 2 nothing to check\n\n{parser.epilog}"


def _verify(options: argparse.Namespace) -> int:
    from dlbench.report.analysis.verification import verify
    from dlbench.report.listings import verification as listing
    from dlbench.table import render

    found = verify(options.sources)
    tables = [listing.findings_table(found), listing.looked_at_table(found)]
    print("\n".join(render(table, options.format) for table in tables if table.rows), end="")
    say(listing.summary(found))
    return 1 if found.findings else 0 if found.rows else 2
