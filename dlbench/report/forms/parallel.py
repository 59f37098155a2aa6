"""Several things done at the same time by several processes: the figures of a report, and its files.

The processes are forked, for then they have all data already, and figures cannot be sent from one to another.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any, Self, TypeVar

T = TypeVar("T")
#: More processes than this take more memory than time.
MAX_PROCESSES = 8


@dataclass(eq=False)
class PendingTask:
    """A task that is done sooner or later, and what it gave."""

    task: Callable[[], Any]
    crew: TaskPool
    found: tuple[Any, Exception | None] | None = None  # None as long as it is not known

    def result(self) -> Any:
        """What the task gives, waited for; what it raises is raised here."""
        self.crew.wait_for_task(self)
        assert self.found
        value, error = self.found
        if error is not None:
            raise error
        return value


@dataclass
class TaskPool:
    """Does tasks in processes of their own, one per core, each forked from this one when its turn comes.

    To be used in a `with` statement: what still runs at its end is stopped.
    """

    _waiting: deque[PendingTask] = field(default_factory=deque)
    _running: dict[Connection, tuple[PendingTask, ForkProcess]] = field(
        default_factory=dict
    )  # by where each will answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.clear()
        for answer, (_pending, process) in self._running.items():
            process.kill()
            process.join()
            answer.close()

    def start(self, task: Callable[[], Any]) -> PendingTask:
        """Begin a task, now or when a core is free. What it gives is plain data; what it changes but files is lost."""
        pending = PendingTask(task, self)
        self._waiting.append(pending)
        self._collect_done_and_start_next(0)
        return pending

    def split_among_processes(self, things: Sequence[T]) -> list[Sequence[T]]:
        """`things` dealt out to as many tasks as can run at a time: each process that is forked has its price."""
        count = max(1, min(len(things), _num_extra_processes()))
        return [things[first::count] for first in range(count) if things[first::count]]

    def wait_for_task(self, wanted: PendingTask) -> None:
        """Come back when a task is done: by its process, or by this one where there is no other."""
        while wanted.found is None and self._running and not self._is_not_pending(wanted):
            self._collect_done_and_start_next(None)
        if wanted.found is None:
            # No other core, no memory for more processes, or its process died: what fails again says why.
            if wanted in self._waiting:
                self._waiting.remove(wanted)
            wanted.found = _run_and_catch_exception(wanted.task)

    def _is_not_pending(self, wanted: PendingTask) -> bool:
        return wanted not in self._waiting and all(pending is not wanted for pending, _ in self._running.values())

    def _collect_done_and_start_next(self, timeout_s: float | None) -> None:
        """Take what is done, waiting so long for the first of it, and begin what there are cores for."""
        ready = wait(list(self._running), timeout_s) if self._running else []
        for answer in [answer for answer in self._running if answer in ready]:
            pending, process = self._running.pop(answer)
            with contextlib.suppress(EOFError):  # it died
                pending.found = answer.recv()
            answer.close()
            process.join()
        while self._waiting and len(self._running) < _num_extra_processes():
            try:
                answer, process = _fork_task(self._waiting[0].task)
            except (ImportError, OSError):
                return
            self._running[answer] = self._waiting.popleft(), process


def run_tasks(tasks: Sequence[PendingTask], on_progress: Callable[[int], object] = int) -> list[Any]:
    """What each task gives, in their order; `on_progress` is called with how many are done."""
    found = []
    for number, pending in enumerate(tasks, 1):
        found.append(pending.result())
        on_progress(number)
    return found


def _fork_task(task: Callable[[], Any]) -> tuple[Connection, ForkProcess]:
    """A process that does the task, and where it will write what it found."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_run_in_child, args=(task, here, there), daemon=True)
    with warnings.catch_warnings():
        # Newer Pythons warn of forking beside threads: those of pyarrow rest here, and the children need none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    there.close()
    return here, process


def _run_in_child(task: Callable[[], Any], heard: Connection, answer: Connection) -> None:
    # Held here as well, this end would keep the process waiting for ever once its parent is gone.
    heard.close()
    # To look for garbage among what this process has from its parent would copy all of it; and it will not live long.
    gc.freeze()
    gc.disable()
    answer.send(_run_and_catch_exception(task))


def _run_and_catch_exception(task: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return task(), None
    except Exception as error:
        return None, error


def _num_extra_processes() -> int:
    """How many processes work beside this one; none where there is one core, or forking is not safe."""
    count = min(MAX_PROCESSES, _num_cores())
    return count if count > 1 and sys.platform == "linux" else 0


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
