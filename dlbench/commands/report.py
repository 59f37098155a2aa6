"""`dlbench report`: builds the report."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from dlbench.commands.arguments import (
    add_command,
    some_path,
)
from dlbench.errors import BadInput
from dlbench.messages import say


def add(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "report", _report)
    parser.add_argument(
        "sources",
        nargs="*",
        default=["results"],
        help="results folders, Parquet files or patterns; NAME=SOURCE names the system (default: results)",
    )
    parser.add_argument("-o", "--output", type=some_path, default=Path("reports/latest"), help="folder for the report")
    parser.add_argument("--title", help="title of the report")
    parser.add_argument("--baseline", metavar="NAME", help="the system that speedups are over (default: the first)")
    parser.add_argument("--prices", type=some_path, metavar="FILE", help="prices (TOML), for the cost of a training")
    parser.add_argument(
        "--with-reference", action="store_true", help="beside the reference systems that the checkout carries"
    )


def _report(options: argparse.Namespace) -> int:
    from dlbench.heap import keep_freed_memory
    from dlbench.report import build
    from dlbench.report.analysis import content
    from dlbench.report.analysis.projection import read_prices
    from dlbench.report.listings import summary

    # A large store's columns come and go by hundreds of megabytes, and page faults would take a fifth of the time.
    keep_freed_memory()
    references = _references() if options.with_reference else []
    prices = read_prices(options.prices) if options.prices else None
    _passing("reading")
    found = content.read([*options.sources, *references], options.baseline, prices, _passing)
    if found.attempts.empty and not found.skipped and (options.output / "index.html").exists():
        raise BadInput(
            f"no records in {' '.join(options.sources)}: the report in {options.output}/ stays as it is; "
            "`dlbench run` measures, and -o names another folder"
        )
    html = build.write(found, options.output, options.title, progress=_passing)
    _passing("")
    print(summary.terminal(found))
    for problem in found.skipped:
        say(f"dlbench: warning: {problem}")
    say(f"\nreport: {html}")
    return 0


def _passing(what: str) -> None:
    """Tell a terminal what is being made, each time in the place of what was told before."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():
            print(f"\r\x1b[K{what[:70]}{' ...' if what else ''}", end="", file=sys.stderr, flush=True)


def _references() -> list[str]:
    """The folders of the published reports, each under its name: one's own machine may be of the same kind.

    Raises:
        BadInput: there are none.
    """
    import dlbench

    reports = Path(dlbench.__file__).parents[1] / "reports"
    found = sorted(folder for folder in reports.glob("reference-*") if any(folder.glob("*.parquet")))
    if not found:
        raise BadInput(
            f"no reference systems in {reports}: they come with the checkout (reports/reference-*), not with the "
            "installed package; name their Parquet files as further sources instead"
        )
    return [f"{folder.name}={folder}" for folder in found]
