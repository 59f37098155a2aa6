"""`dlbench query`: run SQL queries on results."""

import argparse
from typing import Any

from dlbench.commands.arguments import add_command, add_format_option, add_results_to_read_option


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "query", _run_query_command, "'SELECT model, status FROM records'")
    parser.add_argument("sql", help="SQL query; tables: records, ceilings, all_reduces, layers")
    add_format_option(parser, ("text", "csv", "json", "markdown"))
    add_results_to_read_option(parser)


def _run_query_command(options: argparse.Namespace) -> None:
    from dlbench.report.listings.query_result import format_query

    print(format_query(options.sql, options.results or ["results"], options.format), end="")
