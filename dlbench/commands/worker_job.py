"""Runs a worker that measures no case of a suite, and shows on a terminal what it does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from dlbench.errors import BadInput
from dlbench.messages import say

#: What a worker may take beyond its time for measuring [s]: start-up, warm-up, counting, the trace.
MARGIN_S = 300.0


def run_worker(module: str, folder: Path, request: dict[str, Any], timeout_s: float) -> str | None:
    """The worker's result; None, with the reason on stderr, where it failed."""
    from dlbench.launch import job
    from dlbench.launch.processes import Stopped

    def tick(elapsed_s: float, phase: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[2K{elapsed_s:.0f} s  {phase[:70]}", end="", file=sys.stderr, flush=True)

    try:
        return job.run(module, folder, request, timeout_s, tick)
    except job.JobFailed as error:
        say(f"dlbench: {error}")
        return None
    except Stopped as stop:
        say(f"stopped by {stop.signal_name}; nothing was kept but {folder}")
        return None
    finally:
        if sys.stderr.isatty():
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


def positive_time(text: str, option: str) -> float:
    from dlbench.units import parse_duration

    time_s = parse_duration(text)
    if time_s <= 0:
        raise BadInput(f"{option} is {text}; it must be above 0 s")
    return time_s
