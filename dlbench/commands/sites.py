"""`dlbench sites`: list the available site profiles."""

from __future__ import annotations

import argparse
from typing import Any

from dlbench import shipped
from dlbench.commands.arguments import add_command, add_format
from dlbench.errors import BadInput


def add(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "sites", _sites, "--copy cpu")
    parser.add_argument("--copy", metavar="NAME", help="copy this profile to the current folder, to edit it")
    add_format(parser)


def _sites(options: argparse.Namespace) -> int:
    from dlbench.commands.suites import copy
    from dlbench.table import Cell, Column, Table, render
    from dlbench.toml_file import read_toml

    if options.copy:
        return copy("site profile", options.copy, "dlbench doctor --site {}")
    rows: list[list[Cell]] = []
    notes = []
    for name, file in shipped.available("site profile").items():
        try:
            values = read_toml(file, "a site profile").values
            rows.append([name, str(values.get("description", "")), str(file)])
        except BadInput as error:
            notes.append(str(error))
    notes.append("`dlbench sites --copy NAME` copies a profile to the current folder.")
    columns = [Column("site"), Column("description"), Column("file")]
    print(render(Table(columns, rows, "Site profiles", notes), options.format), end="")
    return 0
