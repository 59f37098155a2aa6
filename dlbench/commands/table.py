"""`dlbench table`: compare published CNN figures with counted ones."""

import argparse
from typing import Any

from dlbench.commands.arguments import add_command, add_format


def add(commands: Any) -> None:
    add_format(add_command(commands, "table", _table, "--format markdown"))


def _table(options: argparse.Namespace) -> None:
    from dlbench.facts.audit import COUNTED_MODELS, audit_table
    from dlbench.facts.layer_totals import sum_layers
    from dlbench.facts.layers import catalogue_layers
    from dlbench.suites.catalog import CATALOG

    counted = {name: sum_layers(catalogue_layers(name) or (), CATALOG[name].input_shape) for name in COUNTED_MODELS}
    print(audit_table(counted, options.format), end="")
