"""What other processes take of this process's cores during the window: on a busy host a step time means little.

Two threads that wait for each other on two cores, one of them taken, are slower by a factor of a hundred, not by two.
"""

from __future__ import annotations

import math
import os
import time

import psutil

#: Others may take this share of the cores without a word.
TOLERANCE = 0.05


class HostWatch:
    """Busy time of the usable cores, less that of this process, around the window."""

    def __init__(self) -> None:
        self._cores = sorted(os.sched_getaffinity(0))
        self._before: tuple[float, float] | None = None
        self._share: float | None = None
        #: CPU seconds of this process in the window.
        self.own_s = 0.0
        self._elapsed_s = math.inf

    def before(self) -> None:
        """To be called right before the window."""
        self.own_s = -time.process_time()
        self._before = (time.perf_counter(), self._others_s())

    def after(self) -> None:
        """To be called right after it."""
        assert self._before is not None
        elapsed_s = self._elapsed_s = (time.perf_counter() - self._before[0]) * len(self._cores)
        self._share = (self._others_s() - self._before[1]) / elapsed_s
        self.own_s += time.process_time()

    def excuse(self, peers_s: float) -> None:
        """Takes off what the other ranks of the same case took [CPU s], once the window is over."""
        if self._share is not None and self._before is not None:
            # Their cores may be others than ours; never less than nothing.
            self._share = max(0.0, self._share - peers_s / self._elapsed_s)

    def warnings(self) -> tuple[str, ...]:
        """Says how much others took, if it was too much."""
        if self._share is None or self._share <= TOLERANCE:
            return ()
        return (f"busy_host: other processes took {self._share:.0%} of this process's {len(self._cores)} cores.",)

    def _others_s(self) -> float:
        """Busy seconds of the cores so far, less our own; the kernel counts both in ticks of 10 ms."""
        times = psutil.cpu_times(percpu=True)
        busy_s = sum(t.user + t.system + t.nice for i, t in enumerate(times) if i in self._cores)
        return float(busy_s) - time.process_time()
