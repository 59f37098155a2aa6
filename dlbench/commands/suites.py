"""`dlbench suites`: list the available suites."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench import bundled_files
from dlbench.commands.arguments import add_command, add_format_option, print_tables
from dlbench.errors import BadInput
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.table import Cell


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "suites", _run_suites_command, "--copy quick")
    add_copy_option(parser, "suite")
    add_format_option(parser)


def _run_suites_command(options: argparse.Namespace) -> None:
    from dlbench.suites.suite import load_suite

    def describe(file: Path) -> list[Cell]:
        suite = load_suite(file)
        return [len(suite.cases()), suite.description]

    if options.copy:
        copy_bundled_file("suite", options.copy, "dlbench run {}")
    else:
        print_bundled_files("suite", "suites", ("suite", "cases", "description"), describe, options.format)


def add_copy_option(parser: argparse.ArgumentParser, kind: str) -> None:
    """Add `--copy`, which copies a bundled file of this kind."""
    parser.add_argument("--copy", metavar="NAME", help=f"copy this {kind} to the current folder, to edit it")


def copy_bundled_file(kind: str, name: str, usage: str) -> None:
    """Copy a bundled file to the current folder and print how to use it."""
    source = bundled_files.find_file(kind, name)
    target = bundled_files.copy_file(source, Path(source.name))
    say(f"wrote {target}; use it with `{usage.format(target)}`")


def print_bundled_files(
    kind: str, command: str, columns: tuple[str, ...], describe: Callable[[Path], list[Cell]], form: str
) -> None:
    """Print a table of all available files of this kind; files with errors are named below it.

    Args:
        kind: a key of `bundled_files.FOLDERS`; `command` lists and copies them.
        columns: columns before the file; the first is the name.
        describe: returns the cells of the other columns; may raise BadInput.
    """
    from dlbench.table import Column, Table

    rows: list[list[Cell]] = []
    notes = []
    for name, file in bundled_files.available_files(kind).items():
        try:
            rows.append([name, *describe(file), str(file)])
        except BadInput as error:
            notes.append(str(error))
    notes.append(f"`dlbench {command} --copy NAME` copies a {kind} to the current folder.")
    table = Table([Column(name) for name in (*columns, "file")], rows, f"{kind.capitalize()}s", notes)
    print_tables(form, table)
