"""`dlbench table`: compare published CNN figures with counted ones."""

import argparse
from typing import Any

from dlbench.commands.arguments import add_command, add_format_option


def add_parser(commands: Any) -> None:
    add_format_option(add_command(commands, "table", _run_table_command, "--format markdown"))


def _run_table_command(options: argparse.Namespace) -> None:
    from dlbench.facts.audit import COUNTED_MODELS, audit_table
    from dlbench.facts.layer_totals import sum_layers
    from dlbench.facts.layers import catalogue_layers
    from dlbench.suites.catalog import CATALOG

    counted = {name: sum_layers(catalogue_layers(name) or (), CATALOG[name].input_shape) for name in COUNTED_MODELS}
    print(audit_table(counted, options.format), end="")
