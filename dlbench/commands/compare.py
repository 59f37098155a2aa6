"""`dlbench compare`: compare two sets of results case by case; optional regression gate."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

from dlbench import units
from dlbench.commands.arguments import add_command, add_flag, percentage
from dlbench.commands.comparison_options import add_comparison_options, comparison_rules, print_comparison
from dlbench.exit_codes import NOT_DECIDED, OK, SOME_FAILED
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.report.analysis.comparison import ComparisonResult


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands, "compare", _run_compare_command, "results/before results/after --fail-on-regression 3"
    )
    parser.add_argument("base", metavar="BASE", help="baseline: results folder, Parquet file or pattern")
    parser.add_argument("target", metavar="TARGET", help="results to compare with BASE; a ratio above 1 means slower")
    parser.add_argument(
        "--fail-on-regression",
        type=percentage,
        metavar="PERCENT",
        help="exit 1 if a case is slower by more than PERCENT, or fails only in TARGET; exit 2 if undecided",
    )
    parser.add_argument(
        "--ignore",
        type=lambda text: frozenset(filter(None, text.replace(" ", "").split(","))),
        default=frozenset(),
        metavar="NAME,...",
        help="axes, suite, suite_version or protocol: cases that differ only in these still match",
    )
    for side in ("base", "target"):
        parser.add_argument(
            f"--{side}-where",
            action="append",
            default=[],
            metavar="COLUMN=VALUE",
            help=f"use only records of {side.upper()} that have VALUE in COLUMN; repeatable",
        )
    add_flag(parser, "--all", "also use older attempts that a later attempt of the same case replaced")
    add_comparison_options(parser)


def _run_compare_command(options: argparse.Namespace) -> int:
    from dlbench.report.analysis.comparison import compare_cases
    from dlbench.report.analysis.comparison_matching import read_selected_rows, usable_attempts_of_side

    gate: float | None = options.fail_on_regression
    margin = options.margin / 100
    if gate is not None:
        # Otherwise a certain slowdown between gate and margin would be reported as `same`.
        margin = min(margin, gate / 100)
    rules = comparison_rules(options, ignore=options.ignore, margin=margin)
    # One store is reduced before the other is read: this bounds memory.
    base, target = (
        usable_attempts_of_side(
            read_selected_rows(source, where, f"--{name.lower()}-where"), where, options.all, name, rules
        )
        for name, source, where in (
            ("BASE", options.base, options.base_where),
            ("TARGET", options.target, options.target_where),
        )
    )
    found = compare_cases(base, target, rules)
    print_comparison(found, ("BASE", "TARGET"), options.format)
    if gate is None:
        return OK if found.num_compared else NOT_DECIDED
    return _report_regressions(found, gate)


def _report_regressions(found: ComparisonResult, gate: float) -> int:
    """Print the cases that fail the gate of `gate` percent and those not decided; return the exit status."""
    from dlbench.report.analysis.comparison import find_regressions, why_regression_undecided

    failed = find_regressions(found, gate)
    for line in failed:
        setting = " ".join(str(line.setting[name]) for name in ("model", "mode", "precision", "batch_size"))
        slower = None if line.lost else line.comparison
        more = f"{100 * (slower.ratio - 1):.1f} % more" if slower else line.note
        say(f"regression: {setting}: {more}")
    reasons = Counter(filter(None, (why_regression_undecided(line, gate) for line in found.lines)))
    unknown = sum(not line.in_base for line in found.lines)
    passed = len(found.lines) - len(failed) - reasons.total() - unknown
    parts = [f"{number} {words}" for number, words in ((len(failed), "failed"), (passed, "passed")) if number]
    parts += [f"{number} not decided, {why}" for why, number in reasons.items()]
    parts += [f"{unknown} not measured in BASE"] if unknown else []
    say(f"--fail-on-regression {gate:g}: {units.count_text(len(found.lines), 'case')}: {'; '.join(parts)}")
    if failed:
        return SOME_FAILED
    if passed and not reasons:
        return OK
    if not reasons:
        say("--fail-on-regression cannot judge any case: BASE contains no case of TARGET")
        return NOT_DECIDED
    say(f"--fail-on-regression cannot decide on {units.count_text(reasons.total(), 'case')}{_processes_advice(found)}")
    return NOT_DECIDED


def _processes_advice(found: ComparisonResult) -> str:
    """How many processes would decide the cases that are open; "" where more would not help."""
    counts = [
        (line.comparison.more_processes_needed, max(line.comparison.num_processes_a, line.comparison.num_processes_b))
        for line in found.lines
        if line.comparison
    ]
    needed = [more + now for more, now in counts if more]
    if not needed:
        return ""
    return f"; measure about {max(needed)} processes on each side (`dlbench run ... -P processes={max(needed)}`)"
