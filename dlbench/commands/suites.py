"""`dlbench suites`: list the available suites."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dlbench import shipped
from dlbench.commands.arguments import add_command, add_format
from dlbench.errors import BadInput
from dlbench.messages import say


def add(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "suites", _suites, "--copy quick")
    parser.add_argument("--copy", metavar="NAME", help="copy this suite to the current folder, to edit it")
    add_format(parser)


def _suites(options: argparse.Namespace) -> int:
    from dlbench.suites.suite import load_suite
    from dlbench.table import Cell, Column, Table, render

    if options.copy:
        return copy("suite", options.copy, "dlbench run {}")
    rows: list[list[Cell]] = []
    notes = []
    for name, file in shipped.available("suite").items():
        try:
            suite = load_suite(file)
            rows.append([name, len(suite.cases()), suite.description, str(file)])
        except BadInput as error:
            notes.append(str(error))
    columns = [Column("suite"), Column("cases"), Column("description"), Column("file")]
    notes.append("`dlbench suites --copy NAME` copies a suite to the current folder.")
    print(render(Table(columns, rows, "Suites", notes), options.format), end="")
    return 0


def copy(kind: str, name: str, usage: str) -> int:
    """Copy a bundled file to the current folder and print how to use it."""
    source = shipped.find(kind, name)
    target = shipped.copy(source, Path(source.name))
    say(f"wrote {target}; use it with `{usage.format(target)}`")
    return 0
