"""`dlbench show`: print one record."""

import argparse
from typing import Any

from dlbench.commands.arguments import add_command, add_format, add_sources_option


def add(commands: Any) -> None:
    parser = add_command(commands, "show", _show, "3f2a9c1e07b4")
    parser.add_argument("record", help="id of an attempt, or a unique part of it")
    add_format(parser, ("text", "json"))
    add_sources_option(parser)


def _show(options: argparse.Namespace) -> None:
    from dlbench.report.listings import record

    print(record.show_record(options.record, options.results or ["results"], options.format), end="")
