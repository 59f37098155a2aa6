"""`dlbench sites`: list the available site profiles."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.commands.arguments import add_command, add_format_option
from dlbench.commands.suites import add_copy_option, copy_bundled_file, print_bundled_files

if TYPE_CHECKING:
    from dlbench.table import Cell


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "sites", _run_sites_command, "--copy cpu")
    add_copy_option(parser, "site profile")
    add_format_option(parser)


def _run_sites_command(options: argparse.Namespace) -> None:
    from dlbench.toml_file import read_toml

    def describe_site_profile(file: Path) -> list[Cell]:
        return [read_toml(file, "a site profile").get("description", str, "")]

    if options.copy:
        copy_bundled_file("site profile", options.copy, "dlbench doctor --site {}")
    else:
        print_bundled_files("site profile", "sites", ("site", "description"), describe_site_profile, options.format)
