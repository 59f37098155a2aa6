"""Options and output that `compare` and `ab` share."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from dlbench.commands.arguments import add_format_option, make_number_parser, percentage, print_tables
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.report.analysis.comparison import ComparisonResult
    from dlbench.report.analysis.comparison_matching import ComparisonRules


_METRICS = ("step_time", "energy_per_image")


def add_comparison_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metric", choices=_METRICS, default="step_time", help="metric to compare (default: step_time)"
    )
    parser.add_argument(
        "--confidence",
        type=make_number_parser("between 0.5 and 0.9999", lambda value: 0.5 <= value <= 0.9999),
        default=0.95,
        help="confidence level of intervals and verdicts (default: 0.95)",
    )
    parser.add_argument("--margin", type=percentage, default=1.0, metavar="PERCENT",
                        help="differences below this percentage count as 'same' (default: 1)")  # fmt: skip
    parser.add_argument("--between-processes", metavar="PERCENT",
                        type=make_number_parser("a percentage above 0", lambda value: 0 < value < math.inf, suffix="%"),
                        help="standard deviation between processes, known from earlier measurements; "
                        "used for a side with fewer than three processes")  # fmt: skip
    add_format_option(parser)


def comparison_rules(options: argparse.Namespace, **more: Any) -> ComparisonRules:
    from dlbench.report.analysis.comparison_matching import ComparisonRules

    spread = options.between_processes
    margin = options.margin / 100
    return ComparisonRules(
        metric=options.metric,
        confidence=options.confidence,
        between_processes=None if spread is None else spread / 100,
        **{"margin": margin} | more,
    )


def print_comparison(found: ComparisonResult, names: tuple[str, str], form: str) -> None:
    from dlbench.report.chapters.comparison_tables import arrange_for_terminal, comparison_tables, summary_line
    from dlbench.table import format_tables

    systems, comparison = comparison_tables(found, names)
    if form == "csv":
        # A CSV file holds one table; the rest goes to stderr.
        for row in systems.rows:
            say(f"systems differ in {row[0]}: {row[1]} in {names[0]}, {row[2]} in {names[1]}")
        print_tables(form, comparison)
        say(summary_line(found))
    elif form == "json":
        print(format_tables([systems, comparison], form), end="")
    else:
        print_tables(form, systems, arrange_for_terminal(comparison) if form == "text" else comparison)
