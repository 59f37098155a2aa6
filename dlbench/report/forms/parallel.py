"""Several things done at the same time by several processes: the figures of a report, and its files.

The processes are forked, for then they have all data already, and figures cannot be sent from one to another.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

#: More processes than this take more memory than time.
MAX_PROCESSES = 8

_tasks: list[Callable[[], Any]] = []


def run_all(tasks: Sequence[Callable[[], Any]], told: Callable[[int], object] = int) -> list[Any]:
    """What each task gives, in their order.

    Args:
        tasks: they may write files; what else they change is lost. What they give must be plain data.
        told: is told how many are done.
    """
    count = min(len(tasks), MAX_PROCESSES, _num_cores())
    if count > 1 and sys.platform == "linux":
        try:
            return _forked(tasks, count, told)
        except (ImportError, OSError, BrokenProcessPool):
            # No semaphores, no memory for more processes: alone it takes longer. What fails again says why.
            pass
    return [_told(task(), number, told) for number, task in enumerate(tasks, 1)]


def _forked(tasks: Sequence[Callable[[], Any]], count: int, told: Callable[[int], object]) -> list[Any]:
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        # Newer Pythons warn of forking beside threads: those of pyarrow rest here, and the children need none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        with ProcessPoolExecutor(count, context, _tasks.extend, (tasks,)) as pool:
            return [_told(found, number, told) for number, found in enumerate(pool.map(_run, range(len(tasks))), 1)]


def _run(number: int) -> Any:
    return _tasks[number]()


def _told(found: Any, number: int, told: Callable[[int], object]) -> Any:
    told(number)
    return found


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
