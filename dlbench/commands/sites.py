"""`dlbench sites`: list the available site profiles."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.commands.arguments import add_command, add_format
from dlbench.commands.suites import add_copy_option, copy_bundled_file, print_files

if TYPE_CHECKING:
    from dlbench.table import Cell


def add(commands: Any) -> None:
    parser = add_command(commands, "sites", _sites, "--copy cpu")
    add_copy_option(parser, "site profile")
    add_format(parser)


def _sites(options: argparse.Namespace) -> None:
    from dlbench.toml_file import read_toml

    def describe(file: Path) -> list[Cell]:
        return [read_toml(file, "a site profile").get("description", str, "")]

    if options.copy:
        copy_bundled_file("site profile", options.copy, "dlbench doctor --site {}")
    else:
        print_files("site profile", "sites", ("site", "description"), describe, options.format)
