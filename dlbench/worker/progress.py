"""Sparse lines on stderr that say where a worker is, so that whoever watches it can say where it hung or died."""

from __future__ import annotations

import sys

_current = "start"


def enter_phase(name: str) -> None:
    """Prints "phase: NAME" and remembers it."""
    global _current
    _current = name
    print(f"phase: {name}", file=sys.stderr, flush=True)


def current_phase() -> str:
    """The phase entered last."""
    return _current
