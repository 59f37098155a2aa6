"""`dlbench publish`: make an anonymised folder of results for publication."""

import argparse
from typing import Any

from dlbench.commands.arguments import add_command, add_path, add_results_to_read
from dlbench.exit_codes import OK, SOME_FAILED
from dlbench.messages import say


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "publish", _run_publish_command, "results -o published/h200")
    add_results_to_read(parser)
    add_path(parser, "-o", "--output", required=True, metavar="FOLDER", help="new or empty folder")
    parser.add_argument("--title", help="report title")


def _run_publish_command(options: argparse.Namespace) -> int:
    from dlbench.campaign.publishing import publish

    return SOME_FAILED if publish(options.sources, options.output, options.title, say) else OK
