"""`dlbench history`: what changed over months, when, and what changed with it."""

from __future__ import annotations

import argparse
from typing import Any

from dlbench.commands.arguments import add_command, add_format, some_path
from dlbench.exit_codes import BAD_INPUT
from dlbench.messages import say


def add(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "history", _history, "'stores/*' --since 2026-11-01 --fail-on-change")
    parser.add_argument("sources", nargs="*", default=["results"], help="results folders, Parquet files or patterns")
    parser.add_argument("--since", metavar="DATE", help="report only changes from this date on")
    parser.add_argument("--fail-on-change", action="store_true", help="exit with status 1 if a change is reported")
    parser.add_argument("--plot", type=some_path, metavar="FOLDER", help="draw the lines there")
    add_format(parser)


def _history(options: argparse.Namespace) -> int:
    from dlbench.report.analysis import history
    from dlbench.report.chapters import history_tables as listing
    from dlbench.results.reduction import parse_since
    from dlbench.table import render

    since = parse_since(options.since) if options.since else None
    found = history.read(options.sources)
    if options.plot:
        from dlbench.report.figures import figure_style, plots_history

        with figure_style.style():
            plot = plots_history.lines(found.lines)
            if plot.figure is not None:
                figure_style.save(plot.figure, options.plot, plot.name)
                say(f"figure: {options.plot / plot.name}.svg, .png, .pdf")
    tables = [listing.changes_table(found, since), listing.lines_table(found)]
    print("\n".join(render(table, options.format) for table in tables if table.rows), end="")
    judged = sum(line.judged for line in found.lines)
    changes = found.changes(since)
    if not judged:
        say("cannot decide: no case was measured on enough days")
        return BAD_INPUT
    say(f"{judged} lines: {len(changes)} changes{f' since {options.since}' if since else ''}")
    return 1 if changes and options.fail_on_change else 0
