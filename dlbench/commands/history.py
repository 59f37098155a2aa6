"""`dlbench history`: find changes of the results over months, and what else changed on the same day."""

import argparse
from typing import Any

from dlbench import units
from dlbench.commands import arguments
from dlbench.exit_codes import NOT_DECIDED, OK, SOME_FAILED
from dlbench.messages import say


def add_parser(commands: Any) -> None:
    parser = arguments.add_command(
        commands, "history", _run_history_command, "'stores/*' --since 2026-11-01 --fail-on-change"
    )
    arguments.add_results_to_read(parser)
    parser.add_argument("--since", metavar="DATE", help="report only changes on or after this date")
    arguments.add_flag(parser, "--fail-on-change", "exit with status 1 if a change is reported")
    arguments.add_path(
        parser, "--plot", metavar="FOLDER", help="plot all cases over time and save the figure in FOLDER"
    )
    arguments.add_format_option(parser)


def _run_history_command(options: argparse.Namespace) -> int:
    from dlbench.report.analysis import history
    from dlbench.report.chapters import history_tables as listing
    from dlbench.results.aggregation import parse_since_date

    since = parse_since_date(options.since) if options.since else None
    found = history.read_history(options.sources)
    if options.plot:
        from dlbench.report.figures import plots_history

        arguments.save_figure(lambda: plots_history.history_plot(found.lines), options.plot)
    shown, lines = listing.changes_table(found, since), listing.case_histories_table(found)
    arguments.print_tables(options.format, shown, lines)
    judged = sum(line.has_enough_days for line in found.lines)
    changes = found.changes(since)
    if not judged:
        say("nothing to judge: no case was measured on enough days")
        return NOT_DECIDED
    found_text = f"{judged} time series: {units.count_text(len(changes), 'change')}"
    say(f"{found_text}{f' since {options.since}' if since else ''}")
    return SOME_FAILED if changes and options.fail_on_change else OK
