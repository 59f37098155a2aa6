"""The command line. A command's module and its dependencies are imported only when the command is called,
so that `dlbench --help` is fast."""

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from dlbench import messages
from dlbench.commands import COMMANDS, GROUPS
from dlbench.errors import DlbenchError, UnknownName
from dlbench.exit_codes import BAD_INPUT, INTERRUPTED, OK, SOME_FAILED
from dlbench.messages import say
from dlbench.version import __version__

#: Module -> the extra of dlbench that contains its package; packages for measuring are dependencies of dlbench itself.
EXTRA_OF_PACKAGE = {
    **dict.fromkeys(("pandas", "scipy", "matplotlib", "jinja2", "typst", "duckdb", "ruptures"), "report"),
    "mpi4py": "mpi",
    "timm": "timm",
    "sklearn": "data",
}


class OneLineErrorParser(argparse.ArgumentParser):
    """Argument parser that reports errors in one line and suggests the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with status 2."""
        self.exit(2, f"{self.prog}: {message.rstrip('.')}; see `{self.prog} --help`\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, but report unknown options here, with the nearest name."""
        found, unknown = super().parse_known_args(args, namespace)
        options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        if options:
            known = [option for option in self._option_string_actions if option.startswith("--")]
            self.error(str(UnknownName("option", options[0], known)))
        return found, unknown


def build_parser(names: Sequence[str] = tuple(COMMANDS)) -> argparse.ArgumentParser:
    """Build the command line with these commands; each subparser holds its function as `command`."""
    parser = OneLineErrorParser(
        prog="dlbench",
        usage="dlbench [-h] [--version] [-q | -v] COMMAND ...",
        description="Benchmark deep-learning networks: time, FLOP, memory, energy, variability and hardware bounds.",
        epilog=_command_list_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dlbench {__version__}")
    _add_verbosity(parser)
    commands = parser.add_subparsers(dest="name", metavar="COMMAND", help=argparse.SUPPRESS, prog="dlbench")
    for name in names:
        importlib.import_module(f"dlbench.commands.{name}").add_parser(commands)
        _add_verbosity(commands.choices[name])
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command. A `DlbenchError` is printed as one line on stderr; the exit status is then 2."""
    _prepare_output_streams()
    # Figures need no display. A notebook's MPLBACKEND may not be installed here, and matplotlib would then fail.
    os.environ["MPLBACKEND"] = "agg"
    if "_ARGCOMPLETE" in os.environ:
        # The shell asks after ``eval "$(register-python-argcomplete dlbench)"``. Prints completions and exits.
        import argcomplete

        argcomplete.autocomplete(build_parser(), always_complete_options="long")
    arguments = sys.argv[1:] if arguments is None else arguments
    for word in arguments:
        if os.fsencode(word).decode(errors="replace") != word:
            shown = os.fsencode(word).decode(errors="backslashreplace")
            say(f"dlbench: cannot use '{shown}': it is not UTF-8; rename the file or folder")
            return BAD_INPUT
    step: list[str] = []
    if "run" in arguments and "--" in arguments:
        # argparse would take these arguments for the suite.
        at = arguments.index("--")
        arguments, step = arguments[:at], arguments[at + 1 :]
    name = next((word for word in arguments if not word.startswith("-")), None)
    if name is not None and name not in COMMANDS:
        say(f"dlbench: {UnknownName('command', name, COMMANDS, hint='`dlbench --help` lists all.')}")
        return BAD_INPUT
    parser = build_parser([name] if name else [])
    options = parser.parse_args(arguments)
    if name is None:
        parser.print_help()
        return OK
    options.step = step
    messages.set_verbosity(getattr(options, "verbosity", messages.NORMAL))
    return _run_command(options)


def _run_command(options: argparse.Namespace) -> int:
    from dlbench.launch.processes import StoppedBySignal

    try:
        status: int = options.command(options) or OK
        sys.stdout.flush()
    except DlbenchError as error:
        say(f"dlbench: {error}")
        return BAD_INPUT
    except ModuleNotFoundError as error:
        package = (error.name or "dlbench").partition(".")[0]
        if package == "dlbench":
            raise
        wanted = f"dlbench[{EXTRA_OF_PACKAGE[package]}]" if package in EXTRA_OF_PACKAGE else "dlbench"
        say(f"dlbench: package '{package}' is not installed for {sys.executable}; run: pip install '{wanted}'")
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except StoppedBySignal as stop:
        say(f"stopped by {stop.signal_name}")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (`| head`) has closed the pipe.
        _silence_stdout()
        return OK
    except OSError as error:
        if error.filename is not None:
            raise
        say(f"dlbench: cannot write the output: {error.strerror or error}")
        _silence_stdout()
        return SOME_FAILED
    return status


def _add_verbosity(parser: argparse.ArgumentParser) -> None:
    """Add `-q` and `-v`; both work before and after the command."""
    either = parser.add_mutually_exclusive_group()
    for flag, name, level, help_text in (
        ("-q", "--quiet", messages.QUIET, "print only results, errors and warnings"),
        ("-v", "--verbose", messages.VERBOSE, "also print the commands that are started"),
    ):
        either.add_argument(
            flag, name, dest="verbosity", action="store_const", const=level, default=argparse.SUPPRESS, help=help_text
        )


def _command_list_text() -> str:
    width = max(map(len, COMMANDS))
    blocks = []
    for group, commands in GROUPS.items():
        blocks.append("\n".join([f"{group}:", *(f"  {name:<{width}}  {does}" for name, does in commands.items())]))
    return "\n\n".join([*blocks, "Run `dlbench COMMAND --help` for options and an example."])


def _prepare_output_streams() -> None:
    """Open closed streams on /dev/null, replace characters that cannot be encoded, print each warning on one line."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123 (for as long as the process lives)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    warnings.showwarning = lambda message, *_, **__: say(f"dlbench: warning: {message}")


def _silence_stdout() -> None:
    """Send stdout to /dev/null: the flush at exit would raise the same error again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
