"""Several things done at the same time by several processes: the figures of a report, and its files.

The processes are forked, for then they have all data already, and figures cannot be sent from one to another.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Self

#: More processes than this take more memory than time.
MAX_PROCESSES = 8


@dataclass(eq=False)
class Pending:
    """A task that is done sooner or later, and what it gave."""

    task: Callable[[], Any]
    crew: Crew
    process: Any = None  # that does it, while it does
    answer: Connection | None = None  # where that process writes what it found
    found: tuple[Any, Exception | None] | None = None  # None as long as it is not known

    def result(self) -> Any:
        """What the task gives, waited for; what it raises is raised here."""
        self.crew.finish(self)
        assert self.found
        value, error = self.found
        if error is not None:
            raise error
        return value


@dataclass
class Crew:
    """Does tasks in processes of their own, one per core, each forked from this one when its turn comes.

    To be used in a `with` statement: what still runs at its end is stopped.
    """

    _waiting: deque[Pending] = field(default_factory=deque)
    _running: list[Pending] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.clear()
        for pending in self._running:
            pending.process.kill()
            self._ended(pending)

    def start(self, task: Callable[[], Any]) -> Pending:
        """Begin a task, now or when a core is free; sees to those that wait as well.

        Args:
            task: it may write files; what else it changes is lost. What it gives must be plain data.
        """
        pending = Pending(task, self)
        self._waiting.append(pending)
        self._see_to(0)
        return pending

    def finish(self, wanted: Pending) -> None:
        """Come back when a task is done: by its process, or by this one where there is no other."""
        while wanted.found is None and (wanted in self._waiting or wanted in self._running):
            self._see_to(None)
            if not self._running:
                break
        if wanted.found is None:
            # No other core, no memory for more processes, or its process died: what fails again says why.
            if wanted in self._waiting:
                self._waiting.remove(wanted)
            wanted.found = _done(wanted.task)

    def _see_to(self, timeout_s: float | None) -> None:
        """Take what is done, waiting so long for the first of it, and begin what there are cores for."""
        self._begin()
        by_answer = {pending.answer: pending for pending in self._running}
        for answer in wait(list(by_answer), timeout_s) if by_answer else ():
            pending = by_answer[answer]  # type: ignore[index]
            try:
                pending.found = pending.answer.recv() if pending.answer else None
            except EOFError:
                pass  # it died
            self._running.remove(pending)
            self._ended(pending)
        self._begin()

    def _begin(self) -> None:
        while self._waiting and len(self._running) < _num_processes():
            pending = self._waiting[0]
            try:
                pending.process, pending.answer = _forked(pending.task)
            except (ImportError, OSError):
                return
            self._running.append(self._waiting.popleft())

    def _ended(self, pending: Pending) -> None:
        if pending.answer:
            pending.answer.close()
        pending.process.join()


def run_all(tasks: Sequence[Callable[[], Any]], told: Callable[[int], object] = int) -> list[Any]:
    """What each task gives, in their order.

    Args:
        tasks: as for `Crew.start`.
        told: is told how many are done.
    """
    with Crew() as crew:
        return results([crew.start(task) for task in tasks], told)


def results(tasks: Sequence[Pending], told: Callable[[int], object] = int) -> list[Any]:
    """The same of tasks that have been begun."""
    found = []
    for number, pending in enumerate(tasks, 1):
        found.append(pending.result())
        told(number)
    return found


def _forked(task: Callable[[], Any]) -> tuple[Any, Connection]:
    """A process that does the task, and where it will write what it found."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(task, there), daemon=True)
    with warnings.catch_warnings():
        # Newer Pythons warn of forking beside threads: those of pyarrow rest here, and the children need none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    there.close()
    return process, here


def _work(task: Callable[[], Any], answer: Connection) -> None:
    # To look for garbage among what this process has from its parent would copy all of it.
    gc.freeze()
    answer.send(_done(task))


def _done(task: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return task(), None
    except Exception as error:
        return None, error


def _num_processes() -> int:
    """How many processes work beside this one; none where there is one core, or forking is not safe."""
    count = min(MAX_PROCESSES, _num_cores())
    return count if count > 1 and sys.platform == "linux" else 0


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
