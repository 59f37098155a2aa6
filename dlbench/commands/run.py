"""`dlbench run`: measure the cases of a suite that are not measured yet."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from dlbench.commands.arguments import add_command, add_flag, add_results_folder, add_suite_argument
from dlbench.commands.worker_job import parse_positive_time
from dlbench.exit_codes import INTERRUPTED, OK
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.suites.case import Case


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "run", _run_run_command, "quick -P model=resnet50")
    add_suite_argument(parser)
    add_results_folder(parser)
    add_flag(parser, "--fresh", "measure all cases again; older results are kept")
    add_flag(parser, "--dry-run", "list the cases without measuring")
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="stop after this time, such as 5m; in the remaining time, cases with a wide ± get more processes",
    )
    parser.add_argument(
        "--launcher",
        default="local",
        help="rank launcher: local, torchrun, mpirun or srun (default: local); to pass options to it, write "
        "its whole command after `--`",
    )


def _unfinished_cases(cases: list[Case], waiting: list[Case]) -> list[Case]:
    """Return the cases with a process left to measure, each once, in the suite's order."""
    ids, samples = {case.id for case in waiting}, {case.first_process_id for case in waiting}
    numbered = any(case.repeat for case in cases)  # by the axis `repeat`
    return [case for case in cases if (case.id in ids if numbered else case.first_process_id in samples)]


def _run_run_command(options: argparse.Namespace) -> int:
    from dlbench.campaign import measure, preparation, results_maintenance
    from dlbench.commands.plan import print_plan
    from dlbench.launch import processes
    from dlbench.suites.suite import load_suite

    budget_s = parse_positive_time(options.budget, "--budget") if options.budget else None
    suite = load_suite(options.suite, options.overrides)
    with processes.stop_on_signals():
        try:
            campaign, cases = preparation.prepare_campaign(
                suite, options.results, options.launcher, options.step, not options.dry_run
            )
            if options.dry_run:
                stored = results_maintenance.read_stored_attempts(options.results)
                waiting = measure.cases_to_measure(campaign, cases, options.fresh, stored)
                if not waiting:
                    say("nothing is left to measure; --fresh measures all cases again")
                    return OK
                cases = suite.cases(device=cases[0].device)
                print_plan(suite, _unfinished_cases(cases, waiting), "text")
                return OK
            return measure.measure_cases(campaign, cases, options.fresh, suite.max_processes, budget_s)
        except processes.StoppedBySignal as stop:
            say(f"stopped by {stop.signal_name}; results so far are kept; run the same command again to resume")
            return INTERRUPTED
