"""`dlbench ab`: an interleaved A/B test of two settings."""

import argparse
from typing import Any

from dlbench.commands.arguments import add_command, add_flag, add_override_option, add_results_folder, parse_count
from dlbench.commands.comparison_options import add_comparison_options, comparison_rules, print_comparison
from dlbench.exit_codes import INTERRUPTED, OK, SOME_FAILED
from dlbench.messages import say


def add_parser(commands: Any) -> None:
    parser = add_command(
        commands, "ab", _run_ab_command, "quick --a memory_format=channels_first --b memory_format=channels_last"
    )
    parser.add_argument("suite", help="TOML file, or a name from `dlbench suites`")
    for side in ("a", "b"):
        parser.add_argument(
            f"--{side}",
            action="append",
            default=[],
            metavar="KEY=VALUE,...",
            help=f"setting of side {side.upper()}: axis=value, protocol.key=value or env.NAME=value; repeatable",
        )
    parser.add_argument(
        "--pairs",
        type=parse_count,
        metavar="N",
        help="pairs per case: one process of A and one of B each (default: 10)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random order (default: 0)")
    add_override_option(parser, "set an axis (batch_size=32) or protocol key of both A and B; repeatable")
    add_results_folder(parser)
    add_flag(parser, "--dry-run", "list the processes in order without running them")
    add_comparison_options(parser)


def _run_ab_command(options: argparse.Namespace) -> int:
    from dlbench.campaign import results_maintenance
    from dlbench.campaign.experiment import compare_experiment, run_experiment
    from dlbench.errors import StoreError
    from dlbench.launch import ab_experiment, probe, processes
    from dlbench.launch.results_folder import ResultsFolder, require_writable_folder
    from dlbench.report.analysis.comparison_statistics import DEFAULT_PAIRS
    from dlbench.suites.suite import load_suite, models_of_cases

    a, b = ab_experiment.parse_setting(options.a, "--a"), ab_experiment.parse_setting(options.b, "--b")
    suites = [load_suite(options.suite, [*options.overrides, *side.overrides]) for side in (a, b)]
    pairs = options.pairs or DEFAULT_PAIRS
    # Also where it runs: wrong values are reported before the slow device probe.
    planned = ab_experiment.plan_experiment(suites[0], suites[1], a, b, options.seed, "auto")
    if options.dry_run:
        for pair in planned.run_order(pairs):
            for turn in pair:
                print(f"{turn.pair:>4}  {turn.side}  {turn.case.model}  {turn.case.mode}  {turn.case.batch_size}")
        return OK
    require_writable_folder(options.results)
    folder = ResultsFolder(options.results)
    models = models_of_cases([case for suite in suites for case in suite.cases()])
    found = probe.probe_machine(models)
    experiment = ab_experiment.plan_experiment(suites[0], suites[1], a, b, options.seed, found.device_kind)
    probe.require_devices([case for match in experiment.matches for case in match], found)
    # A side's environment variables may change the system (number of threads) and the network that a factory builds.
    probed = [
        probe.probe_machine(models, environment=side.environment) if side.environment else found for side in (a, b)
    ]
    keys = tuple(one.system_keys for one in probed)
    networks = [one.network_keys for one in probed]
    say(f"A: {a.setting_text}\nB: {b.setting_text}")
    with processes.stop_on_signals():
        try:
            failed = run_experiment(
                experiment, pairs, options.results, keys, networks, network_files=found.network_files, folder=folder
            )
        except StoreError as error:
            results_maintenance.print_write_error(error, folder)
            return SOME_FAILED
        except processes.StoppedBySignal as stop:
            say(f"stopped by {stop.signal_name}; complete pairs are kept; run the same command again to resume")
            return INTERRUPTED
    compared = compare_experiment(experiment, pairs, options.results, keys, networks, comparison_rules(options))
    print_comparison(compared, ("A", "B"), options.format)
    return SOME_FAILED if failed else OK
