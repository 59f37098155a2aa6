"""`dlbench models`: list the available networks."""

import argparse
from typing import Any

from dlbench.commands.arguments import add_command, add_flag, add_format_option, print_tables


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "models", _run_models_command, "--all")
    add_flag(parser, "--all", "include networks of torchvision and timm, if installed")
    add_format_option(parser)


def _run_models_command(options: argparse.Namespace) -> None:
    from dlbench.report.listings.networks import models_table

    print_tables(options.format, models_table())
    if options.all:
        from dlbench.models import external

        for library, names in (("torchvision", external.torchvision_names()), ("timm", external.timm_names())):
            print(f"\n{library}, {len(names)} models:" if names else f"\n{library} is not installed")
            print(*names, sep="\n")
