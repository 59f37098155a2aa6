"""`dlbench tune`: find the fastest correct setting of a network on this device."""

import argparse
from typing import Any

from dlbench.commands import arguments, worker_job
from dlbench.exit_codes import INTERRUPTED, OK
from dlbench.messages import say


def add_parser(commands: Any) -> None:
    parser = arguments.add_command(commands, "tune", _run_tune_command, "resnet50 --budget 4m")
    arguments.add_model_argument(parser)
    parser.add_argument("--budget", default="4m", metavar="TIME", help="time limit of the search (default: 4m)")
    parser.add_argument("--mode", default="training", help="training or inference (default: training)")
    parser.add_argument(
        "--for", dest="goal", default="throughput", help="what to improve: throughput or energy (default: throughput)"
    )
    arguments.add_override_option(
        parser, "keep this setting fixed instead of tuning it (-P precision=fp32); repeatable", "KEY=VALUE"
    )
    arguments.add_path(parser, "-o", "--output", help="suite file to write (default: RESULTS/tuned-MODEL-MODE.toml)")
    arguments.add_results_folder(parser)
    arguments.add_format_option(parser)


def _run_tune_command(options: argparse.Namespace) -> int:
    from dlbench.atomic_file import write_atomically
    from dlbench.campaign.setting_search import GOALS
    from dlbench.campaign.tuning import best_setting_as_suite_toml, file_safe_name, run_search
    from dlbench.errors import UnknownName, convert_write_errors
    from dlbench.launch import processes
    from dlbench.report.analysis.tuning import search_title
    from dlbench.report.chapters.tuning_section import tuning_table
    from dlbench.report.figures.plots_tuning import tuning_waterfall_plot
    from dlbench.suites.case import MODES
    from dlbench.suites.suite import build_single_case

    for name, value, known in (("mode", options.mode, MODES), ("goal", options.goal, GOALS)):
        if value not in known:
            raise UnknownName(name, value, known)
    budget_s = worker_job.parse_positive_time(options.budget, "--budget")
    overrides = [f"mode={options.mode}", *options.overrides]
    first = build_single_case("tune", options.model, overrides, sought=("repeat",))
    fixed = {override.partition("=")[0].strip() for override in overrides}
    with processes.stop_on_signals():
        try:
            search = run_search(first, fixed, budget_s, options.goal, options.results)
        except processes.StoppedBySignal as stop:
            say(f"stopped by {stop.signal_name}; results so far are kept; run the same command again to resume")
            return INTERRUPTED
    search.require_measured_setting()
    output = options.output or options.results / f"tuned-{file_safe_name(options.model)}-{options.mode}.toml"
    with convert_write_errors(output):
        write_atomically(output, best_setting_as_suite_toml(search))
    changes, shipped, name = (
        search.gains_by_change(),
        search.median_value_by_setting()[search.first],
        search_title(first),
    )
    arguments.print_tables(options.format, tuning_table(changes, shipped, search.goal, search.unit, name))
    say(f"suite: {output}")
    arguments.save_figure(
        lambda: tuning_waterfall_plot(changes, shipped, name, search.goal, search.unit), output.parent
    )
    return OK
