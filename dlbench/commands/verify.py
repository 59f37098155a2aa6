"""`dlbench verify`: check results for impossible or inconsistent values."""

import argparse
from typing import Any

from dlbench.commands.arguments import add_command, add_format_option, add_results_to_read, print_tables
from dlbench.exit_codes import BAD_INPUT, OK, SOME_FAILED
from dlbench.messages import say


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "verify", _run_verify_command, "vendor/results")
    add_results_to_read(parser)
    add_format_option(parser)
    parser.epilog = f"exit status: 0 nothing found, 1 findings, 2 nothing to check\n\n{parser.epilog}"


def _run_verify_command(options: argparse.Namespace) -> int:
    from dlbench.report.analysis.verification import verify_sources
    from dlbench.report.listings import verification as listing

    found = verify_sources(options.sources)
    print_tables(options.format, listing.findings_table(found), listing.checks_table(found))
    say(listing.summary_line(found))
    return SOME_FAILED if found.findings else OK if found.rows else BAD_INPUT
