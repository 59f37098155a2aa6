"""`dlbench tune`: find the fastest correct setting of a network on this device."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.commands.arguments import add_command, add_format, add_results_folder, nonempty_path, save_figure
from dlbench.commands.worker_job import parse_positive_time
from dlbench.exit_codes import INTERRUPTED, OK
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.campaign.setting_search import Search
    from dlbench.table import Table


def add(commands: Any) -> None:
    parser = add_command(commands, "tune", _tune, "resnet50 --budget 4m")
    parser.add_argument("model", help="name from `dlbench models --all`, or package.module:factory")
    parser.add_argument("--budget", default="4m", metavar="TIME", help="time to search (default: 4m)")
    parser.add_argument("--mode", default="training", help="training or inference (default: training)")
    parser.add_argument(
        "--for", dest="goal", default="throughput", help="what to improve: throughput or energy (default: throughput)"
    )
    parser.add_argument("-P", dest="overrides", metavar="KEY=VALUE", action="append", default=[],
                        help="keep an axis at this value (-P precision=fp32); repeatable")  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=nonempty_path, help="suite file to write (default: RESULTS/tuned-MODEL-MODE.toml)"
    )
    add_results_folder(parser)
    add_format(parser)


def _tune(options: argparse.Namespace) -> int:
    from dlbench.campaign.setting_search import GOALS
    from dlbench.campaign.tuning import file_safe_name, run_search, suite_toml
    from dlbench.errors import UnknownName
    from dlbench.launch import processes
    from dlbench.suites.case import MODES
    from dlbench.suites.suite import one_case
    from dlbench.table import render

    for name, value, known in (("mode", options.mode, MODES), ("goal", options.goal, GOALS)):
        if value not in known:
            raise UnknownName(name, value, known)
    budget_s = parse_positive_time(options.budget, "--budget")
    overrides = [f"mode={options.mode}", *options.overrides]
    first = one_case("tune", options.model, overrides, sought=("repeat",))
    fixed = {override.partition("=")[0].strip() for override in overrides}
    with processes.stopping_on_signals():
        try:
            search = run_search(first, fixed, budget_s, options.goal, options.results)
        except processes.Stopped as stop:
            say(f"stopped by {stop.signal_name}; results so far are kept; run the same command again to resume")
            return INTERRUPTED
    search.require_result()
    output = options.output or options.results / f"tuned-{file_safe_name(options.model)}-{options.mode}.toml"
    _write_file(output, suite_toml(search))
    print(render(_changes_table(search), options.format), end="")
    say(f"suite: {output}")
    _draw_waterfall(search, output.parent)
    return OK


def _changes_table(search: Search) -> Table:
    from dlbench.report.analysis.tuning import title
    from dlbench.report.chapters.tuning_section import tuning_table

    shipped = search.figures()[search.first]
    return tuning_table(search.changes(), shipped, search.goal, search.unit, title(search.first))


def _draw_waterfall(search: Search, folder: Path) -> None:
    from dlbench.report.analysis.tuning import title
    from dlbench.report.figures.plots_tuning import waterfall

    shipped, name = search.figures()[search.first], title(search.first)
    save_figure(lambda: waterfall(search.changes(), shipped, name, search.goal, search.unit), folder)


def _write_file(file: Path, text: str) -> None:
    from dlbench.atomic_file import write_atomically
    from dlbench.errors import StoreError

    try:
        write_atomically(file, text)
    except OSError as error:
        raise StoreError(f"cannot write {file}: {error.strerror or error}") from error
