"""Command-line arguments that several commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench import bundled_files
from dlbench.commands import COMMANDS
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.report.document import Plot
    from dlbench.suites.suite import Suite
    from dlbench.table import Table

#: Output formats of every table.
TABLE_FORMATS = ("text", "markdown", "csv", "latex", "json")


def add_command(
    commands: Any, name: str, function: Callable[[argparse.Namespace], int | None], example: str
) -> argparse.ArgumentParser:
    """Add a subparser whose `command` is the function; `example` is printed below its options.

    The function runs the command and returns its exit status; None means success.
    """
    summary = COMMANDS[name]
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  dlbench {name} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=function)
    return parser


def add_flag(parser: Any, name: str, help_text: str) -> None:
    """Add an option without a value to a parser or group."""
    parser.add_argument(name, action="store_true", help=help_text)


def add_path(parser: Any, *names: str, **settings: Any) -> None:
    """Add an option, or an argument, whose value is the path of a file or folder."""
    parser.add_argument(*names, type=nonempty_path, **settings)


def add_format_option(parser: argparse.ArgumentParser, choices: tuple[str, ...] = TABLE_FORMATS) -> None:
    """Add `--format` to a command that prints a table."""
    parser.add_argument("--format", choices=choices, default="text", help="output format (default: text)")


def print_tables(form: str, *tables: Table) -> None:
    """Print tables in the format of `--format`; those without rows are left out, except the last."""
    from dlbench.table import format_tables

    *others, last = tables
    print(format_tables([*(table for table in others if table.rows), last], form), end="")


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add the network that the command is about."""
    parser.add_argument("model", help="name from `dlbench models --all`, or package.module:factory")


def add_override_option(parser: argparse.ArgumentParser, help_text: str, metavar: str = "KEY=VALUE,...") -> None:
    """Add `-P`, which sets axes and protocol keys."""
    parser.add_argument("-P", dest="overrides", metavar=metavar, action="append", default=[], help=help_text)


def nonempty_path(text: str) -> Path:
    """Parse a path for `type=`. An empty text is an error: `Path("")` would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty; use '.' for the current folder")
    path = Path(text)
    return path.absolute() if text.startswith("-") else path  # a worker would parse it as an option


def add_suite_argument(parser: argparse.ArgumentParser) -> None:
    """Add the suite and `-P`, which replaces its values."""
    suite: Any = parser.add_argument("suite", help="TOML file, or a name from `dlbench suites`")
    suite.completer = lambda **_: bundled_files.available_files("suite")  # for argcomplete
    add_override_option(
        parser, "set an axis (-P model=lenet5,vgg16) or protocol key (-P protocol.min_time_s=1); repeatable"
    )


def print_time_estimate(suite: Suite, results: Path, times: int = 1) -> None:
    """Print how long the suite takes on each of `times` nodes or GPUs, if `results` has records of its cases."""
    from dlbench.launch.time_estimate import estimate_time

    if found := estimate_time(suite, results):
        say(found.describe(times))


def new_run_name(what: str = "") -> tuple[str, str]:
    """Make a unique run name from the current time and `what`; also return the time."""
    import secrets
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    words = [f"{now:%Y%m%dT%H%M%S}", *([what] if what else []), secrets.token_hex(3)]
    return "-".join(words), now.isoformat()


def parse_count(text: str) -> int:
    """Parse a whole number of at least 1 for `type=`."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value


def make_number_parser(what: str, is_valid: Callable[[float], bool], suffix: str = "") -> Callable[[str], float]:
    """Make a parser of numbers for `type=`; `what` describes the valid ones, which may end with `suffix`."""

    def parse_number(text: str) -> float:
        try:
            value = float(text.removesuffix(suffix))
        except ValueError:
            value = math.nan
        if not is_valid(value):
            raise argparse.ArgumentTypeError(f"{text}: must be {what}")
        return value

    return parse_number


percentage = make_number_parser("a percentage of at least 0", lambda value: 0 <= value < math.inf, suffix="%")


def add_results_to_read(parser: argparse.ArgumentParser) -> None:
    """Add the results to read as positional arguments `sources`."""
    parser.add_argument("sources", nargs="*", default=["results"], help="results folders, Parquet files or patterns")


def add_results_to_read_option(parser: argparse.ArgumentParser) -> None:
    """Add the results to read as `--results`, for a command with another positional argument."""
    parser.add_argument(
        "--results",
        action="append",
        metavar="SOURCE",
        help="results folder, Parquet file or pattern; repeatable (default: results)",
    )


def add_results_folder(parser: argparse.ArgumentParser, what: str = "results folder") -> None:
    """Add `--results`, the folder that the command writes to; `what` describes it."""
    add_path(parser, "--results", default=Path("results"), help=f"{what} (default: results)")


#: Description of the results folder of a command that submits or watches jobs.
SHARED_FOLDER_HELP = "results folder, on a disk that all nodes share"


def save_figure(draw: Callable[[], Plot], folder: Path) -> None:
    """Draw a figure, save it in the folder and print the names of its files. Raises StoreError if that fails."""
    from dlbench.errors import convert_write_errors
    from dlbench.report.figures import figure_style

    with figure_style.plot_style():
        plot = draw()
        if plot.figure is None:
            say(f"no figure: {plot.caption}")
            return
        with convert_write_errors(folder):
            figure_style.save_figure(plot.figure, folder, plot.name)
    say(f"figure: {folder / plot.name}.svg, .png, .pdf")
