"""Processes that a network's own code forks: their work would be timed and not counted, or done twice."""

import os

from dlbench.errors import InvalidMeasurement
from dlbench.worker.ranks.rank_status import end_with_parent

_owner_pid = os.getpid()
_fork_count = 0


def _count_fork() -> None:
    global _fork_count
    _fork_count += 1


# A child may hang, for it has none of the threads of its parent: it must not outlive it.
os.register_at_fork(after_in_parent=_count_fork, after_in_child=end_with_parent)


def times_forked() -> int:
    """How often this process was forked; libraries also fork, to compile."""
    return _fork_count


def exit_if_forked() -> None:
    """End this process if the network's code forked it: only its parent writes a result."""
    if os.getpid() != _owner_pid:
        os._exit(0)


def require_no_fork(fork_count_before: int) -> None:
    """Raise InvalidMeasurement if code of the network forked since `fork_count_before` was read."""
    exit_if_forked()
    if times := _fork_count - fork_count_before:
        raise InvalidMeasurement(
            f"the network's code forked {times} processes in the timed steps: their work cannot be counted; "
            "remove os.fork and multiprocessing from forward"
        )
