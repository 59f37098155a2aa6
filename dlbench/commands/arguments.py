"""What several commands share on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlbench.commands import COMMANDS

#: The forms in which every table can be printed.
TABLE_FORMATS = ("text", "markdown", "csv", "latex", "json")


def add_command(commands: Any, name: str, function: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    """A subparser that carries its function as `command`."""
    does = COMMANDS[name]
    parser: argparse.ArgumentParser = commands.add_parser(name, description=does[0].upper() + does[1:] + ".")
    parser.set_defaults(command=function)
    return parser


def add_format(parser: argparse.ArgumentParser) -> None:
    """`--format`, for a command that prints a table."""
    parser.add_argument("--format", choices=TABLE_FORMATS, default="text", help="(default: text)")


def some_path(text: str) -> Path:
    """For `type=`: a path, which "" is not, though `Path` takes it for the folder we are in."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; '.' is the folder that you are in")
    path = Path(text)
    return path.absolute() if text.startswith("-") else path  # a worker would take it for an option


def add_suite(parser: argparse.ArgumentParser) -> None:
    """A suite and what replaces its values."""
    parser.add_argument("suite", help="a TOML file, or the name of one in benchmarks/")
    parser.add_argument(
        "-P",
        dest="overrides",
        metavar="KEY=VALUE,...",
        action="append",
        default=[],
        help="replace an axis (-P model=lenet5,vgg16) or a protocol key (-P protocol.min_time_s=1); may be repeated",
    )


def new_name(what: str = "") -> tuple[str, str]:
    """A name that no other run has, begun by the time and `what`; and the time itself."""
    import secrets
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    words = [f"{now:%Y%m%dT%H%M%S}", *([what] if what else []), secrets.token_hex(3)]
    return "-".join(words), now.isoformat()


def add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results",
        action="append",
        metavar="SOURCE",
        help="a results folder, a Parquet file or a pattern; may be repeated (default: results)",
    )


def add_results_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results",
        type=some_path,
        default=Path("results"),
        help="folder for the results, on a disk that all nodes see",
    )
