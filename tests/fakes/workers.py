"""Stand-in workers for tests of the supervisor: real processes that end in every way a real one can."""

from __future__ import annotations

import sys
from pathlib import Path

from dlbench.launch.launchers import Launcher
from dlbench.results.records import Measurement, Outcome, System
from dlbench.suites.case import Case


def good_outcome(status: str = "ok") -> Outcome:
    """What a worker that measured three steps would leave."""
    steps = (0.010, 0.011, 0.012)
    return Outcome(
        status, None, ((System(hostname="h"), Measurement(step_s=steps, window_s=sum(steps), clock="host")),)
    )


def script(body: str) -> Launcher:
    """A launcher of `python -c body`; `folder` and `write_good()` are defined there."""
    prelude = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "folder = Path(sys.argv[1])\n"
        f"good = {good_outcome().to_json()!r}\n"
        "def write_good(): (folder / 'result.json').write_text(good)\n"
    )

    def launcher(case: Case, folder: Path) -> list[str]:
        return [sys.executable, "-c", prelude + body, str(folder)]

    return launcher
