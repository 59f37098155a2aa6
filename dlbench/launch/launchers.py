"""How a case's processes are started: pure functions from a case and its attempt folder to an argv."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from dlbench.spec.case import Case

Launcher = Callable[[Case, Path], list[str]]


def local(case: Case, folder: Path) -> list[str]:
    """One process on this machine, with the interpreter that runs the supervisor."""
    return [sys.executable, "-m", "dlbench.worker", str(folder)]


LAUNCHERS: dict[str, Launcher] = {"local": local}
