"""Client of the power sampler: start it, stop it, and evaluate its samples in the window."""

import json
import select
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from dlbench.worker.meters.nvml import MeterUnavailable
from dlbench.worker.meters.power_sampler import SampleRow

PERIOD_S = 0.05
#: Longest gap between samples for a valid integral [s].
LONGEST_GAP_S = 0.5
READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class PowerTrace:
    """All rows of a sampler, and the error if it ended early."""

    rows: tuple[SampleRow, ...] = ()
    error: str | None = None

    def rows_between(self, start_s: float, end_s: float) -> list[SampleRow]:
        """Return the rows from `start_s` to `end_s`."""
        return [row for row in self.rows if start_s <= row[0] <= end_s]

    def integrate_power_j(self, start_s: float, end_s: float) -> float | None:
        """Integrate the power [J]; None unless the rows cover both ends without a long gap."""
        return integrate_trapezoids([(row[0], row[1]) for row in self.rows], start_s, end_s)

    def integrate_module_power_j(self, start_s: float, end_s: float) -> float | None:
        """Integrate the power of the module [J]; None without module readings."""
        return integrate_trapezoids([(row[0], row[2]) for row in self.rows if row[2] is not None], start_s, end_s)


def integrate_trapezoids(samples: Sequence[tuple[float, float]], start_s: float, end_s: float) -> float | None:
    """Integrate (time, value) by trapezoids from `start_s` to `end_s`; None if samples are missing."""
    total = 0.0
    covered_s = start_s
    for (t0, v0), (t1, v1) in pairwise(samples):
        low_s, high_s = max(t0, start_s), min(t1, end_s)
        if high_s <= low_s:
            continue
        if t1 - t0 > LONGEST_GAP_S or low_s > covered_s:
            return None
        slope = (v1 - v0) / (t1 - t0)
        total += (high_s - low_s) * (v0 + slope * ((low_s + high_s) / 2 - t0))
        covered_s = high_s
    return total if end_s > start_s and covered_s >= end_s else None


class PowerSampler:
    """Process of the power sampler. Raises MeterUnavailable, with the reason, if it does not start."""

    def __init__(self, backend: str, device: str, period_s: float = PERIOD_S) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dlbench.worker.meters.power_sampler", backend, device, str(period_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Unbuffered: a buffer would take data that communicate() reads later.
            bufsize=0,
        )
        assert self._process.stdout is not None
        ready = select.select([self._process.stdout], [], [], READY_TIMEOUT_S)[0]
        if not ready or self._process.stdout.readline() != b"ready\n":
            raise MeterUnavailable(f"the power sampler did not start: {self.stop().error or 'no answer'}")

    def stop(self) -> PowerTrace:
        """Stop the process; if it had died, the trace has an error and possibly no rows."""
        try:
            output, _ = self._process.communicate(timeout=STOP_TIMEOUT_S)
            values = json.loads(output.strip().splitlines()[-1])
            return PowerTrace(tuple(tuple(row) for row in values["rows"]), values["error"])
        except (subprocess.TimeoutExpired, ValueError, IndexError, KeyError, TypeError):
            self._process.kill()
            self._process.communicate()
            return PowerTrace(error=f"the power sampler ended without samples (exit status {self._process.returncode})")
