"""The commands that show: `report`, and what is known of the networks: `table`, `layers`, `models`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dlbench.commands.arguments import add_command, add_format, say


def add(commands: Any) -> None:
    """Add the commands to argparse's subparsers."""
    report = add_command(commands, "report", _report, "build the report from results")
    report.add_argument("sources", nargs="*", default=["results"], help="results folders, Parquet files or patterns")
    report.add_argument("-o", "--output", type=Path, default=Path("reports/latest"), help="folder for the report")
    report.add_argument("--title", help="title of the report")

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
    from dlbench.report import page

    html = page.build(options.sources, options.output, title=options.title)
    print(page.summary_table(options.sources))
    say(f"\nreport: {html}")
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
