"""`dlbench layers`: list the layers of a network."""

import argparse
from typing import Any

from dlbench.commands.arguments import add_command, add_flag, add_format_option, add_model_argument, print_tables


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "layers", _run_layers_command, "resnet50")
    add_model_argument(parser)
    add_flag(parser, "--auxiliary", "include training-only layers")
    add_format_option(parser)


def _run_layers_command(options: argparse.Namespace) -> None:
    from dlbench.campaign.api import layer_rows
    from dlbench.report.listings.networks import layers_table

    print_tables(options.format, layers_table(options.model, layer_rows(options.model, options.auxiliary)))
