"""`dlbench query`: run SQL queries on results."""

import argparse
from typing import Any

from dlbench.commands.arguments import add_command, add_format, add_sources_option


def add(commands: Any) -> None:
    parser = add_command(commands, "query", _query, "'SELECT model, status FROM records'")
    parser.add_argument("sql", help="SQL query; tables: records, ceilings, all_reduces, layers")
    add_format(parser, ("text", "csv", "json", "markdown"))
    add_sources_option(parser)


def _query(options: argparse.Namespace) -> None:
    from dlbench.report.listings.query_result import format_query

    print(format_query(options.sql, options.results or ["results"], options.format), end="")
