"""`dlbench report`: build the report."""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from dlbench import bundled_files
from dlbench.commands.arguments import add_command, add_flag, add_path
from dlbench.errors import BadInput
from dlbench.messages import say


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "report", _run_report_command, "A=results/a B=results/b -o reports/ab")
    parser.add_argument(
        "sources",
        nargs="*",
        default=["results"],
        help="results folders, Parquet files, patterns or web addresses, as SOURCE or SYSTEM=SOURCE (default: results)",
    )
    add_path(parser, "-o", "--output", default=Path("reports/latest"), help="report folder (default: reports/latest)")
    parser.add_argument("--title", help="title of the report")
    parser.add_argument("--baseline", metavar="NAME", help="speedup baseline: name of a system (default: the first)")
    parser.add_argument("--prices", metavar="FILE", help="TOML file with prices, for the cost of a training")
    add_path(
        parser,
        "--mix",
        metavar="FILE",
        help="TOML file with the share of each network in your work, to compare systems for it",
    )
    add_flag(parser, "--with-reference", "also show the reference systems that come with dlbench")


def _run_report_command(options: argparse.Namespace) -> None:
    from dlbench.heap import keep_freed_memory
    from dlbench.report import build
    from dlbench.report.analysis import content, projection, workload_mix
    from dlbench.report.listings import summary
    from dlbench.results import remote_results, training_store

    # Columns of a large store take hundreds of megabytes each; page faults would cost 20 % of the time.
    keep_freed_memory()
    references = _reference_report_folders() if options.with_reference else []
    prices = projection.read_prices(bundled_files.find_file("price list", options.prices)) if options.prices else None
    mix = workload_mix.read_workload_mix(options.mix) if options.mix else ()
    _show_build_step("reading")
    sources = [
        remote_results.download_source(source, lambda file: _show_build_step(f"downloading {file}"))
        for source in options.sources
    ]
    found = content.read_content(
        [*sources, *references], options.baseline, prices, _show_build_step, mix=mix, with_sides=True
    )
    if found.attempts.empty and not found.skipped and training_store.read_trainings(found.sources).empty:
        _show_build_step("")
        raise BadInput(f"{' '.join(options.sources)} has no records; run `dlbench run quick` first")
    html = build.write_report(found, options.output, options.title, progress=_show_build_step)
    _show_build_step("")
    print(summary.terminal_summary(found))
    for problem in found.skipped:
        say(f"dlbench: warning: {problem}")
    say(f"\nreport: {html}")


def _show_build_step(what: str) -> None:
    """Show the current step on a terminal, in place of the previous one."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():
            print(f"\r\x1b[K{what[:70]}{' ...' if what else ''}", end="", file=sys.stderr, flush=True)


def _reference_report_folders() -> list[str]:
    """Folders of the published reference reports, as NAME=FOLDER sources."""
    found = sorted(folder for folder in bundled_files.REPORTS.glob("reference-*") if any(folder.glob("*.parquet")))
    if not found:
        raise BadInput(
            f"no reference systems in {bundled_files.REPORTS}; give their Parquet files as additional sources"
        )
    return [f"{folder.name}={folder}" for folder in found]
