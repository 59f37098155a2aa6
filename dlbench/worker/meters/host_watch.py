"""CPU use of other processes and the kernel on the cores of this process during the window.

On a busy host step times are unreliable: two threads that wait for each other, with one of two cores busy, can be 100
times slower, not 2.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import resource
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from dlbench.affinity import allowed_cores
from dlbench.results.records import BUSY_SHARE

STAT_FILE = Path("/proc/stat")
_CORE_NAME = re.compile(r"cpu\d+")
#: Share of CPU time for page faults above which a warning is given.
FAULTS_TOLERANCE = 0.1
#: Maximum kernel time per page fault [s]; longer times have other causes.
_FAULT_S = 10e-6

#: Host, usable cores and CPU time [s] of a process.
CpuUse = tuple[str, set[int], float]


class HostWatch:
    """Busy time of the usable cores by other processes, around the window."""

    def __init__(self) -> None:
        #: Returns the ids of processes that belong to the case, such as those of a loader.
        self.helpers: Callable[[], list[int]] = list
        #: Their CPU seconds in the window.
        self.helpers_s = 0.0
        self._cores = set(allowed_cores())
        self._before: tuple[float, float] | None = None
        self._share: float | None = None
        #: CPU seconds of this process in the window.
        self.own_s = 0.0
        self._elapsed_s = math.inf
        self._page_faults = 0
        self._kernel_s = 0.0

    def read_before(self) -> None:
        """Read the counters right before the window."""
        self.own_s = -time.process_time()
        used = resource.getrusage(resource.RUSAGE_SELF)
        self._page_faults, self._kernel_s = -used.ru_minflt, -used.ru_stime
        self.helpers_s = -cpu_seconds(self.helpers())
        self._before = (time.perf_counter(), self._busy_s_of_others())

    def read_after(self) -> None:
        """Read the counters right after the window."""
        assert self._before is not None
        elapsed_s = self._elapsed_s = (time.perf_counter() - self._before[0]) * len(self._cores)
        self._share = (self._busy_s_of_others() - self._before[1]) / elapsed_s
        self.helpers_s += cpu_seconds(self.helpers())
        self.own_s += time.process_time()
        used = resource.getrusage(resource.RUSAGE_SELF)
        self._page_faults += used.ru_minflt
        self._kernel_s += used.ru_stime

    @property
    def share(self) -> float | None:
        """Share of the cores used by other processes; None before `after`."""
        return None if self._share is None else max(0.0, self._share)

    def cpu_use(self) -> CpuUse:
        """CPU use of this process, for the watches of other ranks."""
        return socket.gethostname(), self._cores, self.own_s

    def subtract_peer_ranks(self, ranks: list[CpuUse]) -> None:
        """Subtract the CPU use of other ranks of the case on these cores, after the window.

        Args:
            ranks: CPU use of all ranks, this one included. Ranks that may also run on other cores count in proportion.
        """
        if self._share is None:
            return
        host, _, own_s = self.cpu_use()
        shared_s = sum(
            taken_s * len(self._cores.intersection(theirs)) / len(theirs)
            for where, theirs, taken_s in ranks
            if where == host
        )
        # Not negative: the kernel counts cores in ticks and processes in nanoseconds.
        self._share = max(0.0, self._share - (shared_s - own_s) / self._elapsed_s)

    def facts(self) -> dict[str, Any]:
        """Return the columns of `Measurement` about kernel time."""
        return {"page_faults": self._page_faults, "kernel_time_s": self._kernel_s}

    def warnings(self) -> tuple[str, ...]:
        """Return warnings if other processes or page faults took too much."""
        found = []
        if self._share is not None and self._share > BUSY_SHARE:
            cores = len(self._cores)
            found.append(f"busy_host: other processes took {self._share:.0%} of this process's {cores} cores.")
        if 0 < FAULTS_TOLERANCE * self.own_s < self._kernel_s < self._page_faults * _FAULT_S:
            share = self._kernel_s / self.own_s
            found.append(f"page_faults: {self._page_faults} of them took {share:.0%} of the process's CPU time.")
        return tuple(found)

    def _busy_s_of_others(self) -> float:
        """Return busy seconds of the cores so far, without this process; the kernel counts both in ticks of 10 ms."""
        busy_s = busy_times(STAT_FILE.read_text())
        return sum(busy_s.get(core, 0.0) for core in self._cores) - time.process_time() - cpu_seconds(self.helpers())


def cpu_seconds(process_ids: Iterable[int]) -> float:
    """Return the CPU time of these processes so far [s]; ended processes count as 0."""
    taken_s = 0.0
    for process_id in process_ids:
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(process_id).cpu_times()
            taken_s += times.user + times.system
    return taken_s


def busy_times(stat: str) -> dict[int, float]:
    """Return the busy seconds of each online core so far, by core number.

    Args:
        stat: the text of /proc/stat: `cpuN user nice system idle ...`, in ticks (proc(5)).
    """
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    lines = (line.split() for line in stat.splitlines())
    return {
        int(words[0][3:]): sum(map(int, words[1:4])) * tick_s
        for words in lines
        if words and _CORE_NAME.fullmatch(words[0])
    }
