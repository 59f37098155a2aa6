"""Messages of a command: to stderr, so that stdout holds data alone."""

from __future__ import annotations

import contextlib
import sys

#: What errors and warnings begin with; `-q` keeps them.
PREFIX = "dlbench: "
QUIET, NORMAL, VERBOSE = -1, 0, 1
_level = NORMAL


def set_level(level: int) -> None:
    """Which messages are printed from now on: QUIET errors and warnings alone, VERBOSE details as well."""
    global _level
    _level = level


def is_quiet() -> bool:
    """Whether errors and warnings alone are printed."""
    return _level <= QUIET


def say(text: str) -> None:
    """Print a message; with `-q` only one that begins with `PREFIX`."""
    if not is_quiet() or text.startswith(PREFIX):
        _print(text)


def say_detail(text: str) -> None:
    """Print a message with `-v` alone."""
    if _level >= VERBOSE:
        _print(text)


def _print(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        # Nobody may listen any more (`2>&1 | head`): that is no reason to stop measuring.
        print(text, file=sys.stderr, flush=True)
