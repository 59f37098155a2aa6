"""What other processes and the kernel take of this process's cores during the window.

On a busy host a step time means little: two threads that wait for each other on two cores, one of them taken, are
slower by a factor of a hundred, not by two.
"""

from __future__ import annotations

import math
import os
import re
import resource
import socket
import time
from pathlib import Path
from typing import Any

from dlbench.affinity import allowed_cores
from dlbench.results.records import BUSY_SHARE

STAT = Path("/proc/stat")
_CORE = re.compile(r"cpu\d+")
#: Page faults may take this share of the process's own CPU time without a word.
FAULTS_TOLERANCE = 0.1
#: One takes the kernel less than this [s]; where it worked longer for each, it did something else.
_FAULT_S = 10e-6

#: Host, usable cores and CPU time [s] of a process.
Used = tuple[str, set[int], float]


class HostWatch:
    """Busy time of the usable cores, less that of this process, around the window."""

    def __init__(self) -> None:
        self._cores = set(allowed_cores())
        self._before: tuple[float, float] | None = None
        self._share: float | None = None
        #: CPU seconds of this process in the window.
        self.own_s = 0.0
        self._elapsed_s = math.inf
        self._page_faults = 0
        self._kernel_s = 0.0

    def before(self) -> None:
        """To be called right before the window."""
        self.own_s = -time.process_time()
        used = resource.getrusage(resource.RUSAGE_SELF)
        self._page_faults, self._kernel_s = -used.ru_minflt, -used.ru_stime
        self._before = (time.perf_counter(), self._others_s())

    def after(self) -> None:
        """To be called right after it."""
        assert self._before is not None
        elapsed_s = self._elapsed_s = (time.perf_counter() - self._before[0]) * len(self._cores)
        self._share = (self._others_s() - self._before[1]) / elapsed_s
        self.own_s += time.process_time()
        used = resource.getrusage(resource.RUSAGE_SELF)
        self._page_faults += used.ru_minflt
        self._kernel_s += used.ru_stime

    @property
    def share(self) -> float | None:
        """What share of the cores others took; None before `after`."""
        return None if self._share is None else max(0.0, self._share)

    def used(self) -> Used:
        """What this process took, for the watches of the other ranks."""
        return socket.gethostname(), self._cores, self.own_s

    def subtract_peer_ranks(self, ranks: list[Used]) -> None:
        """Takes off what the other ranks of the same case took of these cores, once the window is over.

        Args:
            ranks: what each of them used, this one as well. One that may run elsewhere too took a part in proportion.
        """
        if self._share is None:
            return
        host, _, own_s = self.used()
        shared_s = sum(
            taken_s * len(self._cores.intersection(theirs)) / len(theirs)
            for where, theirs, taken_s in ranks
            if where == host
        )
        # Never less than nothing: the kernel counts the cores in ticks and processes in nanoseconds.
        self._share = max(0.0, self._share - (shared_s - own_s) / self._elapsed_s)

    def facts(self) -> dict[str, Any]:
        """The columns of `Measurement` about the kernel's part."""
        return {"page_faults": self._page_faults, "kernel_time_s": self._kernel_s}

    def warnings(self) -> tuple[str, ...]:
        """Says how much others took, and the kernel, if it was too much."""
        found = []
        if self._share is not None and self._share > BUSY_SHARE:
            cores = len(self._cores)
            found.append(f"busy_host: other processes took {self._share:.0%} of this process's {cores} cores.")
        if 0 < FAULTS_TOLERANCE * self.own_s < self._kernel_s < self._page_faults * _FAULT_S:
            share = self._kernel_s / self.own_s
            found.append(f"page_faults: {self._page_faults} of them took {share:.0%} of the process's CPU time.")
        return tuple(found)

    def _others_s(self) -> float:
        """Busy seconds of the cores so far, less our own; the kernel counts both in ticks of 10 ms."""
        busy_s = busy_times(STAT.read_text())
        return sum(busy_s.get(core, 0.0) for core in self._cores) - time.process_time()


def busy_times(stat: str) -> dict[int, float]:
    """Of each core that is online the seconds that it worked so far, by its number.

    Args:
        stat: the text of /proc/stat: `cpuN user nice system idle ...`, in ticks (proc(5)).
    """
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    lines = (line.split() for line in stat.splitlines())
    return {
        int(words[0][3:]): sum(map(int, words[1:4])) * tick_s for words in lines if words and _CORE.fullmatch(words[0])
    }
