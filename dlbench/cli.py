"""The commands. Each imports what it needs inside its function, so that `dlbench --help` answers at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.commands.bounds import add as bounds_commands
from dlbench.commands.compare import add as compare_commands
from dlbench.commands.memory import add as memory_commands
from dlbench.commands.project import add as project_commands
from dlbench.version import __version__

if TYPE_CHECKING:
    from dlbench.launch.launchers import Launcher
    from dlbench.spec.case import Case
    from dlbench.spec.suite import Suite

TABLE_FORMATS = ("text", "markdown", "csv", "latex", "json")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; each subparser carries its function as `command`."""
    parser = argparse.ArgumentParser(
        prog="dlbench",
        description="Measure deep-learning networks: time, FLOP, memory, energy, spread, and the physical bounds.",
    )
    parser.add_argument("--version", action="version", version=f"dlbench {__version__}")
    from dlbench.commands import distributed

    commands = parser.add_subparsers(dest="name", metavar="COMMAND", required=True)

    run = _add(commands, "run", _run, "measure the cases of a suite that are not measured yet")
    _suite_arguments(run)
    run.add_argument("--results", type=Path, default=Path("results"), help="folder for the results (default: results)")
    run.add_argument("--fresh", action="store_true", help="measure everything anew; older results are kept beside")
    run.add_argument("--dry-run", action="store_true", help="list the cases and measure nothing")
    run.add_argument(
        "--launcher",
        default="local",
        help="who starts the ranks of a case: local, torchrun, mpirun or srun (default: local); words after a last "
        "`--` replace its command, with {ranks} where a case's nodes and ranks go",
    )

    plan = _add(commands, "plan", _plan, "list the cases of a suite with their FLOP and predicted memory")
    _suite_arguments(plan)
    plan.add_argument("--format", choices=TABLE_FORMATS, default="text")

    report = _add(commands, "report", _report, "build the report from results")
    report.add_argument("sources", nargs="*", default=["results"], help="results folders, Parquet files or patterns")
    report.add_argument("-o", "--output", type=Path, default=Path("reports/latest"), help="folder for the report")
    report.add_argument("--title", help="title of the report")

    table = _add(commands, "table", _table, "the published CNN table beside what is counted from the networks")
    table.add_argument("--format", choices=TABLE_FORMATS, default="text")

    layers = _add(commands, "layers", _layers, "every convolution and fully connected layer of a network")
    layers.add_argument("model", help="a name of `dlbench models --all`, or package.module:factory")
    layers.add_argument("--auxiliary", action="store_true", help="with layers that run in training alone")
    layers.add_argument("--format", choices=TABLE_FORMATS, default="text")

    models = _add(commands, "models", _models, "the networks that can be named in a suite")
    models.add_argument("--all", action="store_true", help="also those of torchvision and timm, where installed")
    models.add_argument("--format", choices=TABLE_FORMATS, default="text")

    collect = _add(commands, "collect", _collect, "rebuild missing Parquet parts from the attempts' folders")
    collect.add_argument("--results", type=Path, default=Path("results"))
    collect.add_argument("--merge", action="store_true", help="put all parts into one file, which reads faster")

    compare_commands(commands)
    bounds_commands(commands)
    memory_commands(commands)
    project_commands(commands)
    distributed.add(commands)
    return parser


def _add(commands: Any, name: str, function: Callable[..., int], summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + "."
    )
    parser.set_defaults(command=function)
    return parser


def _suite_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", help="a TOML file, or the name of one in benchmarks/")
    parser.add_argument(
        "-P",
        dest="overrides",
        metavar="KEY=VALUE,...",
        action="append",
        default=[],
        help="replace an axis (-P model=lenet5,vgg16) or a protocol key (-P protocol.min_time_s=1); may be repeated",
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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
    _say(f"{suite.name}: {len(cases)} cases on {found.description} -> {options.results}/")
    with supervise.stopping_on_signals():
        try:
            return _measure(suite, cases, found.system_key, options.results, options.fresh, launcher)
        except supervise.Stopped as stop:
            _say(f"stopped by {stop.signal_name}; what was measured is kept, and the same command goes on from here")
            return 130


def _measure(suite: Suite, cases: list[Case], system_key: str, root: Path, fresh: bool, launcher: Launcher) -> int:
    from dlbench.launch import attempts, supervise
    from dlbench.launch.progress import Progress
    from dlbench.results import store

    for record in supervise.recover(root):
        _say(f"closed {record.attempt_id}, left open by a run that was killed: {record.status}")
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
        _say(f"{progress.number} of them are measured already (--fresh measures them anew)")
    failed = sum(record.status not in ("ok", "unstable") for record in supervise.run(waiting, campaign, fresh))
    if failed:
        _say(f"{failed} of {len(waiting)} cases failed; the same command tries them again")
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


def _report(options: argparse.Namespace) -> int:
    from dlbench.report import page

    html = page.build(options.sources, options.output, title=options.title)
    print(page.summary_table(options.sources))
    _say(f"\nreport: {html}")
    return 0


def _table(options: argparse.Namespace) -> int:
    from dlbench.report.audit import COUNTED_MODELS, audit_table
    from dlbench.spec.catalog import CATALOG
    from dlbench.spec.facts import facts_from_layers
    from dlbench.worker.layers import layers

    counted = {name: facts_from_layers(layers(name), CATALOG[name].input_shape) for name in COUNTED_MODELS}
    print(audit_table(counted, options.format), end="")
    return 0


def _layers(options: argparse.Namespace) -> int:
    from dlbench.report.layers import layers_table
    from dlbench.report.render import render
    from dlbench.worker.layers import layers

    print(render(layers_table(options.model, layers(options.model, options.auxiliary)), options.format), end="")
    return 0


def _models(options: argparse.Namespace) -> int:
    from dlbench.report.models import models_table
    from dlbench.report.render import render

    print(render(models_table(), options.format), end="")
    if options.all:
        from dlbench.models import external

        for library, names in (("torchvision", external.torchvision_names()), ("timm", external.timm_names())):
            print(f"\n{library}, {len(names)} models:" if names else f"\n{library} is not installed")
            print(*names, sep="\n")
    return 0


def _collect(options: argparse.Namespace) -> int:
    from dlbench.launch import supervise
    from dlbench.results import store

    supervise.check_folder(options.results)
    closed = supervise.recover(options.results)
    rebuilt = _rebuild_parts(options.results)
    _say(f"{len(closed)} attempts closed, {rebuilt} Parquet parts rebuilt in {options.results}/")
    if options.merge and (merged := store.merge(options.results)):
        _say(f"all parts are now in {merged}")
    return 0
