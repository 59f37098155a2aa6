"""The commands that compare: `compare` two stores, `ab` two settings in turns."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench import units
from dlbench.commands.arguments import add_command, add_format, say, some_path

if TYPE_CHECKING:
    from dlbench.launch.ab_experiment import Experiment
    from dlbench.launch.attempts import SystemKeys
    from dlbench.report.analysis.comparison import ComparisonResult
    from dlbench.report.analysis.matching import Rules
    from dlbench.results.records import Record

_METRICS = ("step_time", "energy_per_image")
_NO_KEYS: Sequence[Mapping[str, str]] = ({}, {})


def add(commands: Any) -> None:
    """Add the commands to argparse's subparsers; each carries its function as `command`."""
    compare = add_command(
        commands, "compare", _compare, "say per case whether TARGET is slower than BASE, and how sure it is"
    )
    compare.add_argument("base", metavar="BASE", help="a results folder, Parquet file or pattern")
    compare.add_argument("target", metavar="TARGET", help="the same; a ratio above 1 means that it is slower")
    compare.add_argument(
        "--fail-on-regression",
        type=_percent,
        metavar="PERCENT",
        help="exit status 1 if a case is called slower, by more than this in the best estimate, or fails in TARGET "
        "and did not in BASE; else 2 unless all that BASE measured is known to pass, for want of repeats, of narrow "
        "intervals, of cases or of a meter in TARGET",
    )
    compare.add_argument(
        "--ignore",
        type=lambda text: frozenset(filter(None, text.replace(" ", "").split(","))),
        default=frozenset(),
        metavar="NAME,...",
        help="compare although these differ: axes, suite, suite_version, protocol",
    )
    for side in ("base", "target"):
        compare.add_argument(
            f"--{side}-where",
            action="append",
            default=[],
            metavar="COLUMN=VALUE",
            help=f"take from {side.upper()} only the records with this value; may be repeated",
        )
    compare.add_argument("--all", action="store_true", help="with attempts that a later one of the same case replaced")
    _rules_arguments(compare)

    ab = add_command(
        commands, "ab", _ab, "measure two settings in turns, in fresh processes, and compare them pair by pair"
    )
    ab.add_argument("suite", help="a TOML file, or the name of one in benchmarks/")
    for side in ("a", "b"):
        ab.add_argument(
            f"--{side}",
            action="append",
            default=[],
            metavar="KEY=VALUE,...",
            help=f"what {side.upper()} changes: axes, protocol.NAME, env.NAME of its processes (default: nothing)",
        )
    ab.add_argument("--pairs", type=_count, metavar="N", help="processes of each side for each case (default: 10)")
    ab.add_argument("--seed", type=int, default=0, help="of the random order (default: 0); part of the experiment")
    ab.add_argument("-P", dest="overrides", metavar="KEY=VALUE,...", action="append", default=[],
                    help="replace an axis or a protocol key on both sides; may be repeated")  # fmt: skip
    ab.add_argument(
        "--results", type=some_path, default=Path("results"), help="folder for the results (default: results)"
    )
    ab.add_argument("--dry-run", action="store_true", help="list the processes in their order and run none")
    _rules_arguments(ab)


def _rules_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--metric", choices=_METRICS, default="step_time", help="what is compared (default: step_time)")
    parser.add_argument("--confidence", type=_share, default=0.95, help="of intervals and verdicts (default: 0.95)")
    parser.add_argument("--margin", type=_percent, default=1.0, metavar="PERCENT",
                        help="a difference within this is `same` (default: 1)")  # fmt: skip
    parser.add_argument("--between-processes", type=_spread, metavar="PERCENT",
                        help="standard deviation between processes on this machine, known from earlier repeats; "
                        "used where a side has fewer than three")  # fmt: skip
    add_format(parser)


def _percent(text: str) -> float:
    value = float(text.removesuffix("%"))
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no percentage from 0 on")
    return value


def _spread(text: str) -> float:
    value = _percent(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0: no two processes are the same")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0.5 <= value <= 0.9999:
        raise argparse.ArgumentTypeError(f"{text} is not from 0.5 to 0.9999")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _rules(options: argparse.Namespace, **more: Any) -> Rules:
    from dlbench.report.analysis.matching import Rules

    spread = options.between_processes
    margin = options.margin / 100
    return Rules(
        metric=options.metric,
        confidence=options.confidence,
        between_processes=None if spread is None else spread / 100,
        **{"margin": margin} | more,
    )


def _compare(options: argparse.Namespace) -> int:
    from dlbench.report.analysis.comparison import compare_stores
    from dlbench.report.analysis.matching import COLUMNS, select
    from dlbench.results import store

    gate: float | None = options.fail_on_regression
    margin = options.margin / 100
    if gate is not None:
        # Else a certain slowdown between gate and margin would be called `same`.
        margin = min(margin, gate / 100)
    base, target = (
        # What is not asked for goes before more is read.
        select(store.load(source, COLUMNS), where, f"--{side}-where")
        for side, source, where in (
            ("base", options.base, options.base_where),
            ("target", options.target, options.target_where),
        )
    )
    found = compare_stores(
        base,
        target,
        _rules(options, ignore=options.ignore, margin=margin),
        options.base_where,
        options.target_where,
        options.all,
    )
    _print(found, ("BASE", "TARGET"), options.format)
    if gate is None:
        return 0 if found.num_compared else 2
    return _judge(found, gate)


def _judge(found: ComparisonResult, gate: float) -> int:
    """Say which cases fail a gate of so many percent, and of how many it does not know; the exit status."""
    from dlbench.report.analysis.comparison import regressions, why_undecided

    failed = regressions(found, gate)
    for line in failed:
        setting = " ".join(str(line.setting[name]) for name in ("model", "mode", "precision", "batch_size"))
        slower = None if line.lost else line.comparison
        more = f"{100 * (slower.ratio - 1):.1f} % more" if slower else line.note
        say(f"regression: {setting}: {more}")
    reasons = Counter(filter(None, (why_undecided(line, gate) for line in found.lines)))
    unknown = sum(not line.in_base for line in found.lines)
    passed = len(found.lines) - len(failed) - reasons.total() - unknown
    parts = [f"{number} {words}" for number, words in ((len(failed), "failed"), (passed, "passed")) if number]
    parts += [f"{number} undecided, {why}" for why, number in reasons.items()]
    parts += [f"{unknown} not measured in BASE"] if unknown else []
    say(f"--fail-on-regression {gate:g}: of {units.counted(len(found.lines), 'case')} {'; '.join(parts)}")
    if failed:
        return 1
    if passed and not reasons:
        return 0
    if not reasons:
        say("--fail-on-regression cannot decide: BASE measured none of these cases")
        return 2
    advice = ": more repeats narrow the intervals (`dlbench run ... -P repeat=0,1,2,3,4`)"
    wide = any("interval" in why or "too few" in why for why in reasons)
    say(f"--fail-on-regression cannot decide on {units.counted(reasons.total(), 'case')}{advice if wide else ''}")
    return 2


def _print(found: ComparisonResult, names: tuple[str, str], form: str) -> None:
    from dlbench.report.listings.comparison import summary, tables, with_footnotes
    from dlbench.table import render_all

    systems, comparison = tables(found, names)
    if form == "csv":
        # One table per file; what belongs to it is said beside it.
        for row in systems.rows:
            say(f"systems differ in {row[0]}: {row[1]} in {names[0]}, {row[2]} in {names[1]}")
        print(render_all([comparison], form), end="")
        say(summary(found))
        return
    if form == "text":
        comparison = with_footnotes(comparison)
    shown = [systems, comparison] if systems.rows or form == "json" else [comparison]
    print(render_all(shown, form), end="")


def _ab(options: argparse.Namespace) -> int:
    from dlbench.commands import resuming
    from dlbench.errors import StoreError
    from dlbench.launch import ab_experiment, probe, processes
    from dlbench.launch.results_folder import ResultsFolder, check_folder
    from dlbench.report.analysis.comparison_statistics import DEFAULT_PAIRS
    from dlbench.suites.suite import load_suite, models_of

    a, b = ab_experiment.parse_setting(options.a, "--a"), ab_experiment.parse_setting(options.b, "--b")
    suites = [load_suite(options.suite, [*options.overrides, *side.overrides]) for side in (a, b)]
    pairs = options.pairs or DEFAULT_PAIRS
    if options.dry_run:
        for pair in ab_experiment.plan(suites[0], suites[1], a, b, options.seed, "auto").order(pairs):
            for turn in pair:
                print(f"{turn.pair:>4}  {turn.side}  {turn.case.model}  {turn.case.mode}  {turn.case.batch_size}")
        return 0
    ab_experiment.plan(
        suites[0], suites[1], a, b, options.seed, "cpu"
    )  # wrong values are found before the device is asked
    check_folder(options.results)
    folder = ResultsFolder(options.results)
    models = models_of([case for suite in suites for case in suite.cases()])
    found = probe.probe(models)
    experiment = ab_experiment.plan(suites[0], suites[1], a, b, options.seed, found.device_kind)
    probe.require_devices([case for match in experiment.matches for case in match], found)
    # A side's variables may change what it is measured on, such as the number of threads, and what a factory builds.
    probed = [probe.probe(models, environment=side.environment) if side.environment else found for side in (a, b)]
    keys = tuple(one.system_keys for one in probed)
    networks = [one.network_keys for one in probed]
    say(f"A: {a.text}\nB: {b.text}")
    with processes.stopping_on_signals():
        try:
            failed = run_experiment(
                experiment,
                pairs,
                options.results,
                keys,
                networks,
                network_files=found.network_files,
                folder=folder,
            )
        except StoreError as error:
            resuming.say_stopped(error, folder)
            return 1
        except processes.Stopped as stop:
            say(f"stopped by {stop.signal_name}; whole pairs are kept, and the same command goes on from here")
            return 130
    _print(
        compare_experiment(experiment, pairs, options.results, keys, _rules(options), networks),
        ("A", "B"),
        options.format,
    )
    return 1 if failed else 0


def run_experiment(
    experiment: Experiment,
    pairs: int,
    root: Path,
    system_key: SystemKeys | tuple[SystemKeys, ...],
    networks: Sequence[Mapping[str, str]] = _NO_KEYS,
    **campaign: Any,
) -> int:
    """Measure the pairs that are not whole yet; a pair of which half is missing is measured as a whole.

    Args:
        system_key: of both sides, or of each.
        networks: of each side the keys of its networks.
        campaign: further fields of `supervise.Campaign`, such as the launcher.

    Returns:
        How many processes failed.
    """
    from dlbench.commands import resuming
    from dlbench.launch import supervise
    from dlbench.launch.ab_experiment import ExperimentProgress
    from dlbench.report.analysis.comparison import whole_pairs
    from dlbench.results import store
    from dlbench.results.records import DONE_STATUSES

    resuming.close_left_open(root)
    resuming.rebuild_parts(root, resuming.look(root).without_part)
    whole = whole_pairs(_rows(root, experiment, system_key, networks), experiment.sides, experiment.matches, pairs)
    order = experiment.order(pairs)
    waiting = [pair for pair in order if (pair[0].match, pair[0].pair) not in whole]
    progress = ExperimentProgress(
        2 * len(order), model_width=max(len(case.model) for match in experiment.matches for case in match)
    )
    progress.number = 2 * (len(order) - len(waiting))
    cases = units.counted(len(experiment.matches), "case")
    say(f"{experiment.sides[0][:-2]}: {cases} x {units.counted(pairs, 'pair')} -> {root}/")
    if whole:
        say(f"{len(whole)} pairs are measured already")

    def keep(record: Record) -> None:
        store.append(root, record, make_folder=False)
        progress.finished(record)

    of_side = {
        side: supervise.Campaign(
            root=root,
            suite=suite,
            suite_version=experiment.suite_version,
            system_key=key,
            on_record=keep,
            on_tick=progress.tick,
            on_note=say,
            label=experiment.label(side),
            environment=experiment.setting(side).environment,
            network_keys=of_networks,
            **campaign,
        )
        for side, suite, key, of_networks in zip(
            ("a", "b"), experiment.sides, _of_sides(system_key), networks, strict=True
        )
    }
    return sum(
        record.status not in DONE_STATUSES
        for pair in waiting
        for turn in pair
        for record in supervise.run([turn.case], of_side[turn.side], fresh=True)
    )


def compare_experiment(
    experiment: Experiment,
    pairs: int,
    root: Path,
    system_key: SystemKeys | tuple[SystemKeys, ...],
    rules: Rules,
    networks: Sequence[Mapping[str, str]] = _NO_KEYS,
) -> ComparisonResult:
    """What the pairs measured so far say."""
    from dlbench.report.analysis.comparison import compare_sides

    return compare_sides(
        _rows(root, experiment, system_key, networks), experiment.sides, experiment.matches, pairs, rules
    )


def _rows(
    root: Path,
    experiment: Experiment,
    system_key: SystemKeys | tuple[SystemKeys, ...],
    networks: Sequence[Mapping[str, str]],
) -> Any:
    """The store's rows of this experiment, of each side on its system and of its networks as they are today."""
    from dlbench.launch.attempts import key_on
    from dlbench.results import store

    rows = store.load(root)
    rows = rows[(rows["suite_version"] == experiment.suite_version) & rows["suite"].isin(experiment.sides)]
    keys = dict(zip(experiment.sides, _of_sides(system_key), strict=True))
    of_networks = dict(zip(experiment.sides, networks, strict=True))
    wanted = [key_on(keys[suite], device) for suite, device in zip(rows["suite"], rows["device"], strict=True)]
    today = [of_networks[suite].get(model, "") for suite, model in zip(rows["suite"], rows["model"], strict=True)]
    return rows[(rows["system_key"] == wanted) & (rows["network_key"].fillna("") == today)]


def _of_sides(system_key: SystemKeys | tuple[SystemKeys, ...]) -> tuple[SystemKeys, ...]:
    return system_key if isinstance(system_key, tuple) else (system_key, system_key)
