"""Workers started ahead: while the worker of one case imports PyTorch, those of the next cases do so on other cores.

Importing PyTorch takes about as long as a short window. Each worker is a fresh process all the same, with its own hash
seed and memory layout; only the waiting for imports is shared. See `dlbench.worker.started_ahead`.
"""

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlbench import atomic_file, free_memory
from dlbench.errors import DeviceUnavailable, StoreError
from dlbench.launch import processes
from dlbench.launch.attempts import attempts_folder
from dlbench.launch.launchers import WORKER_MODULE
from dlbench.suites.case import Case

#: Number of workers that import at the same time; on two cores they take half the time of one after the other. More
#: would load the file system, and save little.
NUM_TOGETHER = 4
#: Free memory per worker that is started ahead [bytes]; it needs a tenth of this after its imports.
_FREE_BYTES_PER_WORKER = 4 * 2**30


@dataclass(frozen=True)
class StartedWorker:
    """A worker process; its children are known by `folder`, see `processes.ATTEMPT_FOLDER_VARIABLE`."""

    process: subprocess.Popen[bytes]
    folder: Path


class WorkersAhead:
    """Starts the workers of a campaign, those that run as a direct child of this process in groups."""

    def __init__(
        self, root: Path, environment: Mapping[str, str], facts: Callable[[Case], Mapping[str, Any] | None]
    ) -> None:
        """Create the starter; the arguments are those of `supervise.Campaign`."""
        self._root = root
        self._environment = environment
        self._facts = facts
        self._waiting: dict[str, StartedWorker] = {}  # by case id
        self._num_started = 0

    def start(self, argv: list[str], case: Case, folder: Path, upcoming: Iterable[Case]) -> StartedWorker:
        """Start the worker of a case by its command `argv`, or let the one that waits for this case begin.

        Args:
            upcoming: cases planned after this one.

        Raises:
            StoreError: `folder` cannot be written.
        """
        if argv[1:] == ["-m", WORKER_MODULE, str(folder)]:
            if case.id not in self._waiting:
                self._start_group(argv[0], case, upcoming)
            worker = self._waiting.pop(case.id, None)
            if worker is not None and _begin_measurement(worker, folder):
                return worker
        return StartedWorker(processes.start_worker(argv, folder, self._environment), folder)

    def stop(self) -> None:
        """End all workers that still wait."""
        while self._waiting:
            _end(self._waiting.popitem()[1])

    def _start_group(self, python: str, case: Case, upcoming: Iterable[Case]) -> None:
        """Start workers for this case and the next ones; none if there is only one, or only one core."""
        self.stop()
        suitable = (one for one in upcoming if not one.is_distributed and one.nodes == 1)
        group = [case, *itertools.islice(suitable, max(0, _num_workers_at_once() - 1))]
        if len(group) < 2:
            return
        read_end, write_end = os.pipe()
        counted = set()
        try:
            for one in group:
                self._num_started += 1
                counts_flop = one.first_process_id not in counted and self._facts(one) is None
                counted.add(one.first_process_id)
                compiler = ["compiler"] if one.mode == "training" or counts_flop else []
                folder = atomic_file.temporary_name(attempts_folder(self._root) / f"worker-{self._num_started}")
                argv = [python, "-m", WORKER_MODULE, "--ahead", str(read_end), str(write_end), one.model, *compiler]
                with contextlib.suppress(OSError, StoreError):  # started without a group, this error is reported
                    folder.mkdir()
                    process = processes.start_worker(argv, folder, self._environment, (read_end, write_end))
                    self._waiting[one.id] = StartedWorker(process, folder)
        finally:
            os.close(read_end)
            os.close(write_end)


def _begin_measurement(worker: StartedWorker, folder: Path) -> bool:
    """Let a waiting worker measure in `folder`; return whether it still lives."""
    try:
        for name in ("stdout.txt", "stderr.txt"):
            (worker.folder / name).replace(folder / name)
        assert worker.process.stdin is not None
        with worker.process.stdin as stdin:
            stdin.write(os.fsencode(folder))
        worker.folder.rmdir()
    except OSError:
        _end(worker)
        return False
    return True


def _end(worker: StartedWorker) -> None:
    """End a worker that measured nothing."""
    processes.stop_worker(worker.process)
    with contextlib.suppress(OSError):
        worker.process.stdin and worker.process.stdin.close()
    shutil.rmtree(worker.folder, ignore_errors=True)


def _num_workers_at_once() -> int:
    """How many workers to start at the same time: one, if that is no faster or memory is short."""
    try:
        fitting = free_memory.available_bytes() // _FREE_BYTES_PER_WORKER
    except DeviceUnavailable:
        return 1
    return min(NUM_TOGETHER, fitting) if len(os.sched_getaffinity(0)) > 1 else 1
