"""`dlbench accept`: compare results with guaranteed values."""

import argparse
from typing import Any

from dlbench.commands.arguments import add_command, add_format_option, add_path, add_results_to_read, print_tables
from dlbench.messages import say


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "accept", _run_accept_command, "acceptance.toml results -o acceptance.html")
    add_path(parser, "file", help="TOML file with the cases, metrics and limits to check")
    add_results_to_read(parser)
    add_path(parser, "-o", "--output", metavar="FILE", help="also write an HTML page to print and sign")
    add_format_option(parser)
    parser.epilog = f"exit status: 0 all passed, 1 some failed, 2 not decided\n\n{parser.epilog}"


def _run_accept_command(options: argparse.Namespace) -> int:
    from dlbench.atomic_file import save_text
    from dlbench.report.analysis import acceptance
    from dlbench.report.listings import acceptance as listing

    wanted = acceptance.load_acceptance(options.file)
    found = acceptance.judge_results(wanted, options.sources)
    print_tables(options.format, listing.acceptance_table(found, raw=options.format in ("csv", "json")))
    if options.output:
        save_text(options.output, listing.acceptance_page(wanted, options.file, found, options.sources))
        say(f"written: {options.output}")
    say(listing.summary_line(wanted, found))
    return acceptance.exit_status(found)
