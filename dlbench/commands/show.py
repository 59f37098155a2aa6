"""The commands that show: `report`, and what is known of the networks: `table`, `layers`, `models`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from dlbench.commands.arguments import add_command, add_format, say, some_path
from dlbench.errors import BadInput


def add(commands: Any) -> None:
    """Add the commands to argparse's subparsers."""
    report = add_command(commands, "report", _report, "build the report from results")
    report.add_argument(
        "sources",
        nargs="*",
        default=["results"],
        help="results folders, Parquet files or patterns; NAME=SOURCE names the system (default: results)",
    )
    report.add_argument("-o", "--output", type=some_path, default=Path("reports/latest"), help="folder for the report")
    report.add_argument("--title", help="title of the report")
    report.add_argument("--baseline", metavar="NAME", help="the system that speedups are over (default: the first)")
    report.add_argument("--prices", type=some_path, metavar="FILE", help="prices (TOML), for the cost of a training")
    report.add_argument(
        "--with-reference", action="store_true", help="beside the reference systems that the checkout carries"
    )

    table = add_command(commands, "table", _table, "the published CNN table beside what is counted from the networks")
    add_format(table)

    layers = add_command(commands, "layers", _layers, "every convolution and fully connected layer of a network")
    layers.add_argument("model", help="a name of `dlbench models --all`, or package.module:factory")
    layers.add_argument("--auxiliary", action="store_true", help="with layers that run in training alone")
    add_format(layers)

    models = add_command(commands, "models", _models, "the networks that can be named in a suite")
    models.add_argument("--all", action="store_true", help="also those of torchvision and timm, where installed")
    add_format(models)


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


def _table(options: argparse.Namespace) -> int:
    from dlbench.facts.audit import COUNTED_MODELS, audit_table
    from dlbench.facts.counted import facts_from_layers
    from dlbench.suites.catalog import CATALOG
    from dlbench.worker.counting.layers import layers

    counted = {name: facts_from_layers(layers(name), CATALOG[name].input_shape) for name in COUNTED_MODELS}
    print(audit_table(counted, options.format), end="")
    return 0


def _layers(options: argparse.Namespace) -> int:
    from dlbench.report.listings.layers import layers_table
    from dlbench.table import render
    from dlbench.worker.counting.layers import layers

    print(render(layers_table(options.model, layers(options.model, options.auxiliary)), options.format), end="")
    return 0


def _models(options: argparse.Namespace) -> int:
    from dlbench.report.listings.models import models_table
    from dlbench.table import render

    print(render(models_table(), options.format), end="")
    if options.all:
        from dlbench.models import external

        for library, names in (("torchvision", external.torchvision_names()), ("timm", external.timm_names())):
            print(f"\n{library}, {len(names)} models:" if names else f"\n{library} is not installed")
            print(*names, sep="\n")
    return 0
