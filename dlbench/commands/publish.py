"""`dlbench publish`: a folder of results that is fit to be given away."""

from __future__ import annotations

import argparse
from typing import Any

from dlbench.commands.arguments import add_command, some_path
from dlbench.messages import say


def add(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "publish", _publish, "results -o published/h200")
    parser.add_argument("sources", nargs="*", default=["results"], help="results folders, Parquet files or patterns")
    parser.add_argument("-o", "--output", type=some_path, required=True, metavar="FOLDER", help="new or empty folder")
    parser.add_argument("--title", help="report title")


def _publish(options: argparse.Namespace) -> int:
    from dlbench.campaign.publishing import publish

    findings = publish(options.sources, options.output, options.title, say)
    return 1 if findings else 0
