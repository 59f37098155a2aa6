"""Processes that a network's own code forks: their work would be timed and not counted, or done twice."""

from __future__ import annotations

import os

from dlbench.errors import InvalidMeasurement
from dlbench.worker.progress import current_phase
from dlbench.worker.ranks.rank_status import die_with_launcher

_owner_pid = os.getpid()
#: Phases in which this process was forked; libraries also fork, to compile.
_phases: list[str] = []
# A child may hang, for it has none of the threads of its parent: it must not outlive it.
os.register_at_fork(after_in_parent=lambda: _phases.append(current_phase()), after_in_child=die_with_launcher)


def exit_if_forked() -> None:
    """End this process if the network's code forked it: only its parent writes a result."""
    if os.getpid() != _owner_pid:
        os._exit(0)


def require_one_process() -> None:
    """Check that all work of the timed steps was done in this process.

    Raises:
        InvalidMeasurement: the network's code forked in them.
    """
    exit_if_forked()
    if times := _phases.count("window"):
        raise InvalidMeasurement(
            f"the network's code forked {times} processes in the timed steps: their work cannot be counted; "
            "remove os.fork and multiprocessing from forward"
        )
