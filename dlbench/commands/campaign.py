"""The commands of a campaign: `run`, `plan`, `collect`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dlbench import units
from dlbench.commands.arguments import add_command, add_format, add_suite, say, some_path

if TYPE_CHECKING:
    from dlbench.launch.supervise import Campaign
    from dlbench.spec.case import Case
    from dlbench.spec.suite import Suite


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
    collect.add_argument("--merge", action="store_true", help="put all parts into one file, which reads faster")


def _run(options: argparse.Namespace) -> int:
    from dlbench.launch import launchers, probe, processes, slurm, supervise
    from dlbench.spec.suite import load_suite, models_of

    suite = load_suite(options.suite, options.overrides)
    suite.cases()  # wrong values are found before the device is asked
    step = getattr(options, "step", [])
    nodes = os.environ.get("DLBENCH_JOB_NODES", "").split()
    launcher = slurm.through_step(step, nodes=nodes) if step else launchers.find(options.launcher)
    launchers.check(launcher, suite.cases())
    if not options.dry_run:
        supervise.check_folder(options.results)
    with processes.stopping_on_signals():
        try:
            models = models_of(suite.cases())
            found = probe.probe(models, argv=slurm.probe_argv(step, models) if step else ())
            cases = suite.cases(device=found.device_kind)
            probe.require_devices(cases, found)
            campaign = supervise.Campaign(
                options.results,
                suite.name,
                suite.version,
                found.system_keys,
                launcher,
                network_keys=found.network_keys,
            )
            say(f"{suite.name}: {units.counted(len(cases), 'case')} on {found.description} -> {options.results}/")
            if options.dry_run:
                return _print_plan(suite, _waiting(campaign, cases, options.fresh), "text")
            supervise.check_folder(options.results)
            return _measure(campaign, cases, options.fresh)
        except processes.Stopped as stop:
            say(f"stopped by {stop.signal_name}; what was measured is kept, and the same command goes on from here")
            return 130


def _waiting(campaign: Campaign, cases: list[Case], fresh: bool) -> list[Case]:
    """The cases that have not ended yet, or all; what was tried before in vain comes last."""
    from dlbench.launch import attempts

    if fresh or not campaign.root.is_dir():
        return cases
    store = _store()
    ended = attempts.final_keys(campaign.root) | (store.final_keys(campaign.root) if store else set())
    waiting = [case for case in cases if campaign.key(case) not in ended]
    if len(waiting) < len(cases):
        say(f"{len(cases) - len(waiting)} measured already, or out of memory (--fresh measures all anew)")
    elsewhere = {(*key[:3], key[4]) for key in ended}
    anew = sum((*(key := campaign.key(case))[:3], key[4]) in elsewhere for case in waiting)
    if anew:
        say(
            f"{anew} measured before on another system and measured here anew: other hardware or software, on a CPU "
            "also other cores, threads or memory of the node (which records of earlier versions do not name)"
        )
    _say_changed(campaign, waiting, ended)
    # A case that takes the whole job down with it must not keep the others from being measured.
    tried = attempts.tried_keys(campaign.root)
    return sorted(waiting, key=lambda case: campaign.key(case) in tried)


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
    from dlbench.launch import attempts, supervise
    from dlbench.launch.progress import Progress
    from dlbench.results.records import DONE_STATUSES

    root = campaign.root
    for record in supervise.recover(root):
        say(f"closed {record.attempt_id}, left open by a run that was killed: {record.status}")
    store = _store()
    if store:
        rebuild_parts(root)
    else:
        say(
            f"no package 'pyarrow' in {sys.executable}: the results stay in {attempts.attempts_folder(root)}/; "
            f"where it is installed, `dlbench collect --results {root}` makes Parquet of them"
        )
    waiting = _waiting(campaign, cases, fresh)
    progress = Progress(len(cases), model_width=max(len(case.model) for case in cases))

    def keep(record: Any) -> None:
        if store:
            store.append(root, record)
        progress.finished(record)

    stored = frozenset(store.final_keys(root)) if store else frozenset()
    campaign = dataclasses.replace(campaign, on_record=keep, on_tick=progress.tick, stored=stored)
    progress.number = len(cases) - len(waiting)
    ended: list[str] = []
    busy = 0
    try:
        for record in supervise.run(waiting, campaign, fresh):
            ended.append(record.status)
            busy += any(w.startswith("busy_host:") for _, measured in record.ranks for w in measured.warnings)
    except StoreError as error:
        say(f"dlbench: {error}\nstopped there; what was measured is kept, and the same command goes on from here")
        return 1
    failed = sum(status not in DONE_STATUSES for status in ended)
    if failed:
        say(f"failed: {failed} of {len(waiting)}; the same command tries them again, those out of memory excepted")
    if busy:
        say(
            f"busy host in {busy} of {units.counted(len(ended), 'case')}: other work took some of the cores, and "
            "figures may be far off, however narrow their intervals; measure again when it is done"
        )
    left = len(waiting) - len(ended)
    if left:
        say(f"left to another process that measures, or has measured, them: {left} of {len(waiting)}")
    return 1 if failed else 0


def _store() -> ModuleType | None:
    """`dlbench.results.store`; None where this Python has no pyarrow, such as that of a node outside of its container.

    The attempts' folders hold everything that is measured; Parquet is made of them, here or later.
    """
    try:
        from dlbench.results import store
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        return None
    return store


def rebuild_parts(root: Path, thorough: bool = False) -> int:
    """Write the Parquet parts that are missing; what a killed run had measured comes back this way."""
    from dlbench.errors import StoreError
    from dlbench.launch import attempts
    from dlbench.results import store

    store.drop_doubles(root)
    stored = store.attempt_ids(root, thorough)
    rebuilt = 0
    for folder, head in attempts.heads(root):
        if head.attempt_id not in stored:
            try:
                store.append(root, attempts.full_record(folder, head))
                rebuilt += 1
            except StoreError as error:
                say(f"{error}; passed over")
    return rebuilt


def _plan(options: argparse.Namespace) -> int:
    from dlbench.launch import probe
    from dlbench.spec.suite import load_suite, models_of

    suite = load_suite(options.suite, options.overrides)
    probe.check_models(models_of(suite.cases()))
    if any("device" in pattern for pattern in suite.exclude) and any(c.device == "auto" for c in suite.cases()):
        say("the suite excludes cases by device, which is known where they run; -P device=cuda or cpu plans for one")
    return _print_plan(suite, suite.cases(), options.format)


def _print_plan(suite: Suite, cases: list[Case], form: str) -> int:
    from dlbench.report.forms.render import render
    from dlbench.report.listings.plan import plan_table

    print(render(plan_table(suite, cases), form), end="")
    return 0


def _collect(options: argparse.Namespace) -> int:
    from dlbench.errors import BadInput
    from dlbench.launch import supervise
    from dlbench.results import store

    if not options.results.is_dir():
        raise BadInput(f"no results at '{options.results}': there is no such folder")
    supervise.check_folder(options.results)
    closed = supervise.recover(options.results)
    rebuilt = rebuild_parts(options.results, thorough=True)
    say(f"{options.results}/: attempts closed: {len(closed)}; Parquet parts rebuilt: {rebuilt}")
    if options.merge and (merged := store.merge(options.results)):
        say(f"all parts are now in {merged}")
    return 0
