"""Phase lines of a worker on stderr, so that the supervisor can report where it hung or died."""

import sys

_current = "start"


def enter_phase(name: str) -> None:
    """Print "phase: NAME" and store it."""
    global _current
    _current = name
    print(f"phase: {name}", file=sys.stderr, flush=True)


def current_phase() -> str:
    """Return the current phase."""
    return _current
