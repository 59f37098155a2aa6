"""Messages of a command: to stderr, so that stdout holds data alone."""

from __future__ import annotations

import contextlib
import sys


def say(text: str) -> None:
    """Talk: to stderr, so that stdout holds data alone."""
    with contextlib.suppress(OSError, ValueError):
        # Nobody may listen any more (`2>&1 | head`): that is no reason to stop measuring.
        print(text, file=sys.stderr, flush=True)
