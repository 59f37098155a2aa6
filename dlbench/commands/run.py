"""`dlbench run`: measure the cases of a suite that are not measured yet."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench import units
from dlbench.campaign import existing
from dlbench.commands.arguments import (
    add_command,
    add_suite,
    some_path,
)
from dlbench.commands.worker_job import positive_time
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.suites.case import Case


def add(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "run", _run, "quick -P model=resnet50")
    add_suite(parser)
    parser.add_argument("--results", type=some_path, default=Path("results"), help="results folder (default: results)")
    parser.add_argument("--fresh", action="store_true", help="measure all cases again; older results are kept")
    parser.add_argument("--dry-run", action="store_true", help="list the cases without measuring")
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="stop after this time (5m); processes go to the cases whose ± shrinks most",
    )
    parser.add_argument(
        "--launcher",
        default="local",
        help="rank launcher: local, torchrun, mpirun or srun (default: local); "
        "arguments after the final `--` replace the launch command",
    )


def _in_order(cases: list[Case], waiting: list[Case]) -> list[Case]:
    """The cases that have a process waiting, each once, in the suite's order."""
    ids, samples = {case.id for case in waiting}, {case.sample_id for case in waiting}
    numbered = any(case.repeat for case in cases)  # by the axis `repeat`
    return [case for case in cases if (case.id in ids if numbered else case.sample_id in samples)]


def _counted(cases: list[Case]) -> str:
    """How many cases and processes: ``12 cases x 3 processes``."""
    num_cases = len({case.sample_id for case in cases})
    text = units.counted(num_cases, "case")
    if len(cases) == num_cases:
        return text
    if len(cases) % num_cases:
        return f"{text}, {len(cases)} processes"
    return f"{text} x {len(cases) // num_cases} processes"


def _run(options: argparse.Namespace) -> int:
    from dlbench.campaign.measure import measure_cases, waiting_cases
    from dlbench.commands.plan import print_plan
    from dlbench.launch import launchers, probe, processes, slurm, supervise
    from dlbench.launch.results_folder import ResultsFolder, check_folder
    from dlbench.suites.suite import load_suite, models_of

    budget_s = positive_time(options.budget, "--budget") if options.budget else None
    suite = load_suite(options.suite, options.overrides)
    planned = suite.cases()  # report wrong values before the slow device probe
    step = getattr(options, "step", [])
    nodes = os.environ.get("DLBENCH_JOB_NODES", "").split()
    launcher = slurm.through_step(step, nodes=nodes) if step else launchers.find(options.launcher)
    launchers.check(launcher, planned)
    folder = None
    if not options.dry_run:
        check_folder(options.results)
        folder = ResultsFolder(options.results)
    with processes.stopping_on_signals():
        try:
            models = models_of(planned)
            asked = slurm.probe_argv(step, models) if step else launchers.probe_argv(options.launcher, launcher, models)
            found = probe.probe(models, argv=asked)
            cases = [case for one in suite.rounds(device=found.device_kind) for case in one]
            probe.require_devices(cases, found)
            campaign = supervise.Campaign(
                options.results,
                suite.name,
                suite.version,
                found.system_keys,
                launcher,
                network_keys=found.network_keys,
                network_files=found.network_files,
                folder=folder,
            )
            say(f"{suite.name}: {_counted(cases)} on {found.description} -> {options.results}/")
            if options.dry_run:
                waiting = waiting_cases(campaign, cases, options.fresh, existing.look(options.results))
                return print_plan(suite, _in_order(suite.cases(device=found.device_kind), waiting), "text")
            return measure_cases(campaign, cases, options.fresh, suite.max_processes, budget_s)
        except processes.Stopped as stop:
            say(f"stopped by {stop.signal_name}; results so far are kept; run the same command again to resume")
            return 130
