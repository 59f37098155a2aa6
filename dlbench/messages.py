"""Messages of a command. They go to stderr, so that stdout holds only data."""

import contextlib
import sys
from collections.abc import Sequence

#: Prefix of errors and warnings, which `-q` keeps.
PREFIX = "dlbench: "
QUIET, NORMAL, VERBOSE = -1, 0, 1
#: More problems of one kind are only counted.
_MAX_PROBLEMS = 20
_level = NORMAL


def set_verbosity(level: int) -> None:
    """Set which messages are printed: QUIET only errors and warnings, VERBOSE also details."""
    global _level
    _level = level


def is_quiet() -> bool:
    """Whether only errors and warnings are printed."""
    return _level <= QUIET


def say(text: str) -> None:
    """Print a message; with `-q` only if it begins with `PREFIX`."""
    if not is_quiet() or text.startswith(PREFIX):
        _print_to_stderr(text)


def say_warnings(problems: Sequence[str]) -> None:
    """Print each problem as a warning on a line of its own, and how many more there are."""
    more = len(problems) - _MAX_PROBLEMS
    for problem in [*problems[:_MAX_PROBLEMS], *([f"{more} more like these"] if more > 0 else [])]:
        say(f"{PREFIX}warning: {problem}")


def say_detail(text: str) -> None:
    """Print a message only with `-v`."""
    if _level >= VERBOSE:
        _print_to_stderr(text)


def _print_to_stderr(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        # stderr may be closed (`2>&1 | head`): measuring goes on.
        print(text, file=sys.stderr, flush=True)
