"""`dlbench show`: print one record."""

import argparse
from typing import Any

from dlbench.commands.arguments import add_command, add_format_option, add_results_to_read_option


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "show", _run_show_command, "3f2a9c1e07b4")
    parser.add_argument("record", help="id of an attempt, or a unique part of it")
    add_format_option(parser, ("text", "json"))
    add_results_to_read_option(parser)


def _run_show_command(options: argparse.Namespace) -> None:
    from dlbench.report.listings import record

    print(record.show_record(options.record, options.results or ["results"], options.format), end="")
