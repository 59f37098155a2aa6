"""The commands of a campaign: `run`, `plan`, `collect`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench import units
from dlbench.commands import resuming
from dlbench.commands.arguments import add_command, add_format, add_suite, say, some_path

if TYPE_CHECKING:
    from dlbench.commands.resuming import Known
    from dlbench.launch.supervise import Campaign
    from dlbench.results.records import Record
    from dlbench.suites.case import Case
    from dlbench.suites.suite import Suite


def add(commands: Any) -> None:
    """Add the commands to argparse's subparsers."""
    run = add_command(commands, "run", _run, "measure the cases of a suite that are not measured yet")
    add_suite(run)
    run.add_argument(
        "--results", type=some_path, default=Path("results"), help="folder for the results (default: results)"
    )
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
    collect.add_argument("--results", type=some_path, default=Path("results"), help="(default: results)")
    collect.add_argument("--wait", action="store_true", help="close attempts of other nodes that give no sign of life")
    collect.add_argument("--merge", action="store_true", help="put all parts into one file, which reads faster")


def _run(options: argparse.Namespace) -> int:
    from dlbench.launch import launchers, probe, processes, slurm, supervise
    from dlbench.launch.results_folder import ResultsFolder, check_folder
    from dlbench.suites.suite import load_suite, models_of

    suite = load_suite(options.suite, options.overrides)
    planned = suite.cases()  # wrong values are found before the device is asked
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
            cases = suite.cases(device=found.device_kind)
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
            say(f"{suite.name}: {units.counted(len(cases), 'case')} on {found.description} -> {options.results}/")
            if options.dry_run:
                return _print_plan(
                    suite, _waiting(campaign, cases, options.fresh, resuming.look(options.results)), "text"
                )
            return _measure(campaign, cases, options.fresh)
        except processes.Stopped as stop:
            say(f"stopped by {stop.signal_name}; what was measured is kept, and the same command goes on from here")
            return 130


def _waiting(campaign: Campaign, cases: list[Case], fresh: bool, known: Known) -> list[Case]:
    """The cases that have not ended yet, or all; what was tried before in vain comes last."""
    if fresh:
        return cases
    ended = known.ended
    waiting = [case for case in cases if campaign.key(case) not in ended]
    if len(waiting) < len(cases):
        say(f"{len(cases) - len(waiting)} measured already, or out of memory (--fresh measures all anew)")
    elsewhere = {(*key[:3], key[4]) for key in ended}
    anew = sum((*(key := campaign.key(case))[:3], key[4]) in elsewhere for case in waiting)
    if anew:
        say(
            f"{anew} measured before on another system, and here anew: a CPU's cores, threads and node count as well, "
            "and records of earlier versions do not name them"
        )
    _say_changed(campaign, waiting, ended)
    # A case that takes the whole job down with it must not keep the others from being measured.
    return sorted(waiting, key=lambda case: case.id in known.tried)


def _say_changed(campaign: Campaign, waiting: list[Case], ended: set[Any]) -> None:
    """Name the networks whose cases are measured again because the network is another one today."""
    before = {key[:-1]: key[-1] for key in ended}
    changed = [case for case in waiting if campaign.key(case)[:-1] in before]
    for model in dict.fromkeys(case.model for case in changed):
        cases = [case for case in changed if case.model == model]
        known = any(before[campaign.key(case)[:-1]] for case in cases)
        reason = (
            "has changed since it was measured"
            if known
            else "was measured by a dlbench that did not record which network the name stood for"
        )
        say(f"{model} {reason}: {units.counted(len(cases), 'case')} will be measured again")


def _measure(campaign: Campaign, cases: list[Case], fresh: bool) -> int:
    from dlbench.errors import StoreError

    try:
        return _measured(campaign, cases, fresh)
    except StoreError as error:
        resuming.say_stopped(error, campaign.folder)
        return 1


def _measured(campaign: Campaign, cases: list[Case], fresh: bool) -> int:
    from dlbench.launch import attempts, claims, supervise
    from dlbench.launch.progress import Progress
    from dlbench.results.records import DONE_STATUSES

    root = campaign.root
    assert campaign.folder is not None
    campaign.folder.check()
    resuming.close_left_open(root)
    began = time.monotonic()
    found = resuming.look(root)
    store = resuming.store_module()
    if store:
        resuming.rebuild_parts(root, found.without_part)
    else:
        say(
            f"no package 'pyarrow' in {sys.executable}: the results stay in {attempts.attempts_folder(root)}/; "
            f"where it is installed, `dlbench collect --results {root}` makes Parquet of them"
        )
    waiting = _waiting(campaign, cases, fresh, found)
    progress = Progress(len(cases), model_width=max(len(case.model) for case in cases))
    parts = found.own_parts

    def keep(record: Record) -> None:
        if store:
            store.append(root, record, make_folder=False)
        progress.finished(record)

    campaign = dataclasses.replace(
        campaign,
        on_record=keep,
        on_tick=progress.tick,
        on_note=say,
        stored=frozenset(found.ended),
        stored_ids=found.ids,
    )
    progress.number = len(cases) - len(waiting)
    statuses: list[str] = []
    busy = 0
    for record in supervise.run(waiting, campaign, fresh):
        statuses.append(record.status)
        busy += any(w.startswith("busy_host:") for _, measured in record.ranks for w in measured.warnings)
        parts += 1
        if parts >= resuming.MERGE_FROM:
            parts = resuming.merge_parts(root, parts)
    if time.monotonic() - began >= claims.SILENCE_S:
        resuming.close_left_open(root)  # what other nodes left has been watched long enough now
    failed = sum(status not in DONE_STATUSES for status in statuses)
    if failed:
        say(f"failed: {failed} of {len(waiting)}; the same command tries them again, those out of memory excepted")
    if busy:
        say(
            f"busy host in {busy} of {units.counted(len(statuses), 'case')}: other work took some of the cores, and "
            "figures may be far off, however narrow their intervals; measure again when it is done"
        )
    left = len(waiting) - len(statuses)
    if left:
        say(f"left to another process that measures, or has measured, them: {left} of {len(waiting)}")
    return 1 if failed else 0


def _plan(options: argparse.Namespace) -> int:
    from dlbench.launch import probe
    from dlbench.suites.suite import load_suite, models_of

    suite = load_suite(options.suite, options.overrides)
    probe.check_models(models_of(suite.cases()))
    if any("device" in pattern for pattern in suite.exclude) and any(c.device == "auto" for c in suite.cases()):
        say("the suite excludes cases by device, which is known where they run; -P device=cuda or cpu plans for one")
    return _print_plan(suite, suite.cases(), options.format)


def _print_plan(suite: Suite, cases: list[Case], form: str) -> int:
    from dlbench.report.listings.plan import plan_table
    from dlbench.table import render

    print(render(plan_table(suite, cases), form), end="")
    return 0


def _collect(options: argparse.Namespace) -> int:
    from dlbench.errors import BadInput
    from dlbench.launch import attempts, claims, supervise
    from dlbench.launch.results_folder import check_folder
    from dlbench.results import store

    root = options.results
    if not root.is_dir():
        raise BadInput(f"no results at '{root}': there is no such folder")
    check_folder(root, make=False)
    closed = resuming.close_left_open(root)
    unseen = supervise.invisible(root)
    if unseen and options.wait:
        say(f"watching {units.counted(len(unseen), 'attempt')} for a sign of life, up to {claims.SILENCE_S:.0f} s")
        closed += sum(len(supervise.recover(root, [folder])) for folder in claims.abandoned(unseen))
        unseen = supervise.invisible(root)
    store.drop_doubles(root)
    stored = store.attempt_ids(root, thorough=True)
    missing = [(folder, head) for folder, head in attempts.heads(root) if head.attempt_id not in stored]
    rebuilt = resuming.rebuild_parts(root, missing)
    say(f"{root}/: attempts closed: {closed}; Parquet parts rebuilt: {rebuilt}")
    if unseen:
        say(
            f"left open: {units.counted(len(unseen), 'attempt')} of runs that cannot be seen from here, at work on "
            f"another node or dead with it; --wait watches for {claims.SILENCE_S:.0f} s and closes those of the dead"
        )
    if options.merge and (merged := store.merge(root)):
        say(f"all parts are now in {merged}")
    return 0
