"""The command line. Each module of `dlbench.commands` adds its command and imports what it needs when the command runs:
`dlbench --help` answers at once."""

from __future__ import annotations

import argparse
import os
import sys
import warnings

from dlbench.commands import (
    ab,
    allreduce,
    cancel,
    ceilings,
    collect,
    compare,
    doctor,
    export,
    image,
    layers,
    maxbatch,
    models,
    plan,
    profile,
    project,
    query,
    report,
    resume,
    run,
    show,
    status,
    submit,
    table,
)
from dlbench.errors import DlbenchError
from dlbench.launch.processes import Stopped
from dlbench.messages import say
from dlbench.version import __version__

#: In the order of the help.
COMMAND_MODULES = (
    run,
    plan,
    report,
    compare,
    ab,
    collect,
    show,
    query,
    export,
    models,
    layers,
    table,
    ceilings,
    profile,
    maxbatch,
    project,
    allreduce,
    submit,
    status,
    cancel,
    resume,
    image,
    doctor,
)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; each subparser carries its function as `command`."""
    parser = argparse.ArgumentParser(
        prog="dlbench",
        description="Measure deep-learning networks: time, FLOP, memory, energy, spread, and the physical bounds.",
    )
    parser.add_argument("--version", action="version", version=f"dlbench {__version__}")
    commands = parser.add_subparsers(dest="name", metavar="COMMAND", required=True)
    for module in COMMAND_MODULES:
        module.add(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; a `DlbenchError` becomes one line on stderr and exit status 2."""
    _prepare_streams()
    # Figures need no screen, and a notebook's backend may not be installed here: matplotlib would refuse its name.
    os.environ["MPLBACKEND"] = "agg"
    arguments = sys.argv[1:] if arguments is None else arguments
    for word in arguments:
        if os.fsencode(word).decode(errors="replace") != word:
            shown = os.fsencode(word).decode(errors="backslashreplace")
            say(f"dlbench: cannot use '{shown}': it is not UTF-8; give the file or folder another name")
            return 2
    step: list[str] = []
    if arguments[:1] == ["run"] and "--" in arguments:
        # argparse would give these words to the suite.
        at = arguments.index("--")
        arguments, step = arguments[:at], arguments[at + 1 :]
    options = build_parser().parse_args(arguments)
    options.step = step
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except DlbenchError as error:
        say(f"dlbench: {error}")
        return 2
    except ModuleNotFoundError as error:
        if (error.name or "dlbench").partition(".")[0] == "dlbench":
            raise
        say(f"dlbench: no package '{error.name}' in {sys.executable}; try .venv/bin/dlbench")
        return 2
    except KeyboardInterrupt:
        return 130
    except Stopped as stop:
        say(f"stopped by {stop.signal_name}")
        return 130
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; nothing is left to say.
        _silence_stdout()
        return 0
    except OSError as error:
        if error.filename is not None:
            raise
        say(f"dlbench: cannot write the output: {error.strerror or error}")
        _silence_stdout()
        return 1
    return status


def _prepare_streams() -> None:
    """Streams that are closed lead nowhere, what cannot be encoded is replaced, and warnings are one line each."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123 (for as long as the process lives)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    warnings.showwarning = lambda message, *_, **__: say(f"dlbench: warning: {message}")


def _silence_stdout() -> None:
    """Python would flush at exit, and complain again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
