"""The commands of a campaign: `run`, `plan`, `collect`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.commands.arguments import add_command, add_format, add_suite, say

if TYPE_CHECKING:
    from dlbench.launch.launchers import Launcher
    from dlbench.spec.case import Case
    from dlbench.spec.suite import Suite


def add(commands: Any) -> None:
    """Add the commands to argparse's subparsers."""
    run = add_command(commands, "run", _run, "measure the cases of a suite that are not measured yet")
    add_suite(run)
    run.add_argument("--results", type=Path, default=Path("results"), help="folder for the results (default: results)")
    run.add_argument("--fresh", action="store_true", help="measure everything anew; older results are kept beside")
    run.add_argument("--dry-run", action="store_true", help="list the cases and measure nothing")
    run.add_argument(
        "--launcher",
        default="local",
        help="who starts the ranks of a case: local, torchrun, mpirun or srun (default: local); words after a last "
        "`--` replace its command, with {ranks} where a case's nodes and ranks go",
    )

    plan = add_command(commands, "plan", _plan, "list the cases of a suite with their FLOP and predicted memory")
    add_suite(plan)
    add_format(plan)

    collect = add_command(commands, "collect", _collect, "rebuild missing Parquet parts from the attempts' folders")
    collect.add_argument("--results", type=Path, default=Path("results"), help="(default: results)")
    collect.add_argument("--merge", action="store_true", help="put all parts into one file, which reads faster")


def _run(options: argparse.Namespace) -> int:
    from dlbench.launch import launchers, probe, slurm, supervise
    from dlbench.spec.suite import load_suite, models_of

    suite = load_suite(options.suite, options.overrides)
    if options.dry_run:
        return _print_plan(suite, "text")
    suite.cases()  # wrong values are found before the device is asked
    step = getattr(options, "step", [])
    launcher = slurm.through_step(step) if step else launchers.find(options.launcher)
    launchers.check(launcher, suite.cases())
    supervise.check_folder(options.results)
    found = probe.probe(models_of(suite.cases()))
    cases = suite.cases(device=found.device_kind)
    for kind in {case.device for case in cases}:
        probe.require_device(kind, found)
    say(f"{suite.name}: {len(cases)} cases on {found.description} -> {options.results}/")
    with supervise.stopping_on_signals():
        try:
            return _measure(suite, cases, found.system_key, options.results, options.fresh, launcher)
        except supervise.Stopped as stop:
            say(f"stopped by {stop.signal_name}; what was measured is kept, and the same command goes on from here")
            return 130


def _measure(suite: Suite, cases: list[Case], system_key: str, root: Path, fresh: bool, launcher: Launcher) -> int:
    from dlbench.launch import attempts, supervise
    from dlbench.launch.progress import Progress
    from dlbench.results import store

    for record in supervise.recover(root):
        say(f"closed {record.attempt_id}, left open by a run that was killed: {record.status}")
    _rebuild_parts(root)
    progress = Progress(len(cases), model_width=max(len(case.model) for case in cases))

    def keep(record: Any) -> None:
        store.append(root, record)
        progress.finished(record)

    campaign = supervise.Campaign(
        root=root,
        suite=suite.name,
        suite_version=suite.version,
        system_key=system_key,
        launcher=launcher,
        on_record=keep,
        on_tick=progress.tick,
        stored=frozenset(store.done_keys(root)),
    )
    done = campaign.stored | attempts.done_keys(root)
    waiting = [case for case in cases if fresh or campaign.key(case) not in done]
    progress.number = len(cases) - len(waiting)
    if progress.number:
        say(f"{progress.number} of them are measured already (--fresh measures them anew)")
    failed = sum(record.status not in ("ok", "unstable") for record in supervise.run(waiting, campaign, fresh))
    if failed:
        say(f"{failed} of {len(waiting)} cases failed; the same command tries them again")
    return 1 if failed else 0


def _rebuild_parts(root: Path) -> int:
    """Write the Parquet parts that are missing; what a killed run had measured comes back this way."""
    from dlbench.launch import attempts
    from dlbench.results import store

    stored = store.attempt_ids(root)
    missing = [(folder, head) for folder, head in attempts.heads(root) if head.attempt_id not in stored]
    for folder, head in missing:
        store.append(root, attempts.full_record(folder, head))
    return len(missing)


def _plan(options: argparse.Namespace) -> int:
    from dlbench.spec.suite import load_suite

    return _print_plan(load_suite(options.suite, options.overrides), options.format)


def _print_plan(suite: Suite, form: str) -> int:
    from dlbench.launch import probe
    from dlbench.report.plan import plan_table
    from dlbench.report.render import render
    from dlbench.spec.suite import models_of

    probe.check_models(models_of(suite.cases()))
    print(render(plan_table(suite, suite.cases()), form), end="")
    return 0


def _collect(options: argparse.Namespace) -> int:
    from dlbench.launch import supervise
    from dlbench.results import store

    supervise.check_folder(options.results)
    closed = supervise.recover(options.results)
    rebuilt = _rebuild_parts(options.results)
    say(f"{len(closed)} attempts closed, {rebuilt} Parquet parts rebuilt in {options.results}/")
    if options.merge and (merged := store.merge(options.results)):
        say(f"all parts are now in {merged}")
    return 0
