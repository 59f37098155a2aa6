"""CPU time on the cores of this process that others took during the window: other processes, and the host of a virtual
machine.

On a busy host step times are unreliable: two threads that wait for each other, with one of two cores busy, can be 100
times slower, not 2. A virtual machine whose host is shared sees nobody: its idle cores may be fast in one second and
absent in the next. The kernel counts what was taken as "steal" (proc(5)).
"""

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
    """Time of the usable cores that others took, around the window."""

    def __init__(self) -> None:
        #: Returns the ids of processes that belong to the case, such as those of a loader.
        self.helpers: Callable[[], list[int]] = list
        #: Their CPU seconds in the window.
        self.helpers_s = 0.0
        self._cores = set(allowed_cores())
        self._before: tuple[float, float, float] | None = None
        self._share: float | None = None
        self._stolen_share = 0.0
        #: CPU seconds of this process in the window.
        self.own_s = 0.0
        self._elapsed_s = math.inf
        self._page_faults = 0
        self._kernel_s = 0.0

    def read_before_window(self) -> None:
        """Read the counters right before the window."""
        self.own_s = -time.process_time()
        used = resource.getrusage(resource.RUSAGE_SELF)
        self._page_faults, self._kernel_s = -used.ru_minflt, -used.ru_stime
        self.helpers_s = -cpu_seconds(self.helpers())
        self._before = (time.perf_counter(), *self._busy_and_stolen_s())

    def read_after_window(self) -> None:
        """Read the counters right after the window."""
        assert self._before is not None
        began_s, busy_s, stolen_s = self._before
        elapsed_s = self._elapsed_s = (time.perf_counter() - began_s) * len(self._cores)
        busy_after_s, stolen_after_s = self._busy_and_stolen_s()
        self._share = (busy_after_s - busy_s) / elapsed_s
        self._stolen_share = (stolen_after_s - stolen_s) / elapsed_s
        self.helpers_s += cpu_seconds(self.helpers())
        self.own_s += time.process_time()
        used = resource.getrusage(resource.RUSAGE_SELF)
        self._page_faults += used.ru_minflt
        self._kernel_s += used.ru_stime

    @property
    def busy_share(self) -> float | None:
        """Share of the cores taken by other processes and the host; None before `read_after_window`."""
        return None if self._share is None else max(0.0, self._share) + self._stolen_share

    def own_cpu_use(self) -> CpuUse:
        """CPU use of this process, for the watches of other ranks."""
        return socket.gethostname(), self._cores, self.own_s

    def subtract_peer_ranks(self, ranks: list[CpuUse]) -> None:
        """Subtract the CPU use of other ranks of the case on these cores, after the window.

        Args:
            ranks: CPU use of all ranks, this one included. Ranks that may also run on other cores count in proportion.
        """
        if self._share is None:
            return
        host, _, own_s = self.own_cpu_use()
        shared_s = sum(
            taken_s * len(self._cores.intersection(theirs)) / len(theirs)
            for where, theirs, taken_s in ranks
            if where == host
        )
        # Not negative: the kernel counts cores in ticks and processes in nanoseconds.
        self._share = max(0.0, self._share - (shared_s - own_s) / self._elapsed_s)

    def window_facts(self) -> dict[str, Any]:
        """Return the columns of `Measurement` about kernel time."""
        return {"page_faults": self._page_faults, "kernel_time_s": self._kernel_s}

    def warnings(self) -> tuple[str, ...]:
        """Return warnings if others or page faults took too much."""
        found = []
        share, cores = self.busy_share, len(self._cores)
        if share is not None and share > BUSY_SHARE:
            stolen = round(self._stolen_share, 2)
            others = "other processes and the host of this virtual machine" if stolen else "other processes"
            words = f"{others} took {share:.0%} of this process's {cores} cores"
            found.append(f"busy_host: {words}{f' (the host took {stolen:.0%}: steal time)' if stolen else ''}.")
        if 0 < FAULTS_TOLERANCE * self.own_s < self._kernel_s < self._page_faults * _FAULT_S:
            share = self._kernel_s / self.own_s
            found.append(f"page_faults: {self._page_faults} page faults took {share:.0%} of the process's CPU time.")
        return tuple(found)

    def _busy_and_stolen_s(self) -> tuple[float, float]:
        """Return busy seconds of the cores so far, without this process, and stolen ones; counted in ticks of 10 ms."""
        times = busy_and_stolen_s_by_core(STAT_FILE.read_text())
        busy_s, stolen_s = (sum(times[core][i] for core in self._cores if core in times) for i in (0, 1))
        return busy_s - time.process_time() - cpu_seconds(self.helpers()), stolen_s


def cpu_seconds(process_ids: Iterable[int]) -> float:
    """Return the CPU time of these processes so far [s]; ended processes count as 0."""
    taken_s = 0.0
    for process_id in process_ids:
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(process_id).cpu_times()
            taken_s += times.user + times.system
    return taken_s


def busy_and_stolen_s_by_core(stat: str) -> dict[int, tuple[float, float]]:
    """Return busy and stolen seconds of each online core so far, by core number.

    Args:
        stat: the text of /proc/stat: `cpuN user nice system idle iowait irq softirq steal ...`, in ticks (proc(5)).
    """
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    lines = (line.split() for line in stat.splitlines())
    return {
        int(words[0][3:]): (sum(map(int, words[1:4])) * tick_s, sum(map(int, words[8:9])) * tick_s)
        for words in lines
        if words and _CORE_NAME.fullmatch(words[0])
    }
