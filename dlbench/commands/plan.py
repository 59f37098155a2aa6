"""`dlbench plan`: list the cases of a suite."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from dlbench.commands import arguments
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.suites.case import Case
    from dlbench.suites.suite import Suite


def add_parser(commands: Any) -> None:
    parser = arguments.add_command(commands, "plan", _run_plan_command, "classic")
    arguments.add_suite_argument(parser)
    arguments.add_results_folder(parser, "results folder whose records are used to estimate the time")
    arguments.add_format_option(parser)


def _run_plan_command(options: argparse.Namespace) -> None:
    from dlbench.launch import probe
    from dlbench.suites.suite import load_suite, models_of_cases

    suite = load_suite(options.suite, options.overrides)
    probe.check_networks_exist(models_of_cases(suite.cases()))
    if any("device" in pattern for pattern in suite.exclude) and any(c.device == "auto" for c in suite.cases()):
        say(
            "some of these cases are excluded either on GPUs or on CPUs; to list only those of one kind of device, add "
            "-P device=cuda or -P device=cpu"
        )
    print_plan(suite, suite.cases(), options.format)
    arguments.print_time_estimate(suite, options.results)


def print_plan(suite: Suite, cases: list[Case], form: str) -> None:
    """Print the cases, each once, regardless of its number of processes."""
    from dlbench.report.listings.plan import plan_table

    arguments.print_tables(form, plan_table(suite, cases))
