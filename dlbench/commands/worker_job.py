"""Run one worker job (ceilings, profile, train) and show its progress on a terminal."""

import sys
from pathlib import Path
from typing import Any

from dlbench.errors import BadInput
from dlbench.messages import say

#: Time limit beyond the measuring time [s]: start-up, warm-up, counting, the trace.
STARTUP_MARGIN_S = 300.0


def run_worker(request: dict[str, Any], folder: Path, timeout_s: float) -> str | None:
    """Run the worker and return its result; on failure print the reason and return None.

    Raises StoppedBySignal at a signal.
    """
    from dlbench.launch import worker_process
    from dlbench.launch.processes import StoppedBySignal

    def show_progress(elapsed_s: float, phase: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[2K{elapsed_s:.0f} s  {phase[:70]}", end="", file=sys.stderr, flush=True)

    try:
        return worker_process.run_in_worker(request, folder, timeout_s, show_progress)
    except worker_process.WorkerFailed as error:
        say(f"dlbench: {error}")
        return None
    except StoppedBySignal:
        say(f"stopped before there was a result; partial files are in {folder}")
        raise
    finally:
        if sys.stderr.isatty():
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


def parse_positive_time(text: str, option: str) -> float:
    from dlbench.units import parse_duration

    time_s = parse_duration(text)
    if time_s <= 0:
        raise BadInput(f"{option} {text}: must be above 0 s")
    return time_s
