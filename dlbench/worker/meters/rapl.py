"""Energy of CPU packages and their memory, from Linux powercap files (RAPL of Intel and AMD).

Counted are the top-level `package` domains and their `dram` sub-domains. `core` and `uncore` lie inside the package and
would be counted twice; `psys` is the whole platform and holds the packages again; `intel-rapl-mmio` is a second view of
the same package. Counters wrap at `max_energy_range_uj`.
Source: Linux kernel, Documentation/power/powercap/powercap.rst.
"""

import math
import re
import time
from dataclasses import dataclass
from pathlib import Path

from dlbench.worker.meters.nvml import MeterUnavailable
from dlbench.worker.meters.reading import (
    EnergyReading,
    check_energy_window_length,
    drop_nonpositive_energy,
    positive_or_none,
)

POWERCAP = Path("/sys/class/powercap")
#: Upper limit of package power [W]; a window in which this power could wrap a counter twice is rejected.
HIGHEST_POWER_W = 1000.0
#: Update interval of the counters [s].
TICK_S = 0.001
SCOPE_NOTE = "whole CPU packages and their memory, including other processes on them"


@dataclass(frozen=True)
class RaplDomain:
    """One counter: its file and its maximum."""

    file: Path
    range_uj: int

    def read_microjoules(self) -> int:
        return int(self.file.read_text())

    def joules_between(self, start_uj: int, end_uj: int) -> float:
        """Return the joules between two readings, with at most one wrap."""
        difference_uj = end_uj - start_uj
        return (difference_uj if difference_uj >= 0 else difference_uj + self.range_uj) / 1e6


class RaplMeter:
    """Meter of all CPU packages, read at both ends of a window. Raises MeterUnavailable: no counters or permission."""

    source = "rapl"
    scope = "package"

    def __init__(self, root: Path = POWERCAP) -> None:
        self._domains = find_rapl_domains(root)
        self._start_uj: list[int] = []
        self._start_s = 0.0
        self._idle_w: float | None = None
        try:
            self._read_counters()
        except PermissionError as error:
            raise MeterUnavailable(f"RAPL: {error.filename} is readable by root only on this system") from error
        except (OSError, ValueError) as error:
            raise MeterUnavailable(f"RAPL: {error}") from error

    def measure_idle(self, time_s: float) -> None:
        if time_s <= 0:
            return
        try:
            start_uj, start_s = self._read_counters(), time.perf_counter()
            time.sleep(time_s)
            spent_j, rested_s = self._energy_since(start_uj), time.perf_counter() - start_s
            self._idle_w = None if _was_counter_reset(spent_j, rested_s) else positive_or_none(sum(spent_j) / rested_s)
        except (OSError, ValueError):
            self._idle_w = None

    def start(self) -> None:
        try:
            self._start_uj = self._read_counters()
        except (OSError, ValueError):
            self._start_uj = []
        self._start_s = time.perf_counter()

    def stop(self, opened_s: float, closed_s: float) -> EnergyReading:
        try:
            spent_j = self._energy_since(self._start_uj)
        except (OSError, ValueError) as error:
            return EnergyReading(note=f"RAPL: {error}", warnings=(f"meter_lost: RAPL could not be read: {error}.",))
        # From reading to reading: some milliseconds longer than the window; the energy covers this time.
        window_s = time.perf_counter() - self._start_s
        longest_s = min(domain.range_uj for domain in self._domains) / 1e6 / HIGHEST_POWER_W
        if window_s > longest_s:
            reason = (
                f"a RAPL counter may have wrapped twice in {window_s:.0f} s; windows up to {longest_s:.0f} s are safe"
            )
            return EnergyReading(note=reason, warnings=(f"counter_wrap: {reason}.",))
        if _was_counter_reset(spent_j, window_s):
            reason = (
                f"RAPL counted {max(spent_j):.0f} J in {window_s:.2f} s, more than any package uses: the "
                f"counter was reset"
            )
            return EnergyReading(note=reason, warnings=(f"counter_reset: {reason}.",))
        energy_j = math.fsum(spent_j)
        reading = EnergyReading(energy_j, window_s, counter_j=energy_j, idle_power_w=self._idle_w, note=SCOPE_NOTE)
        return drop_nonpositive_energy(check_energy_window_length(reading, TICK_S))

    def _read_counters(self) -> list[int]:
        return [domain.read_microjoules() for domain in self._domains]

    def _energy_since(self, start_uj: list[int]) -> list[float]:
        """Return the joules of each domain since its last reading."""
        if not start_uj:
            raise ValueError("the first reading failed")
        ends = zip(self._domains, start_uj, self._read_counters(), strict=True)
        return [domain.joules_between(start, end) for domain, start, end in ends]


def _was_counter_reset(spent_j: list[float], time_s: float) -> bool:
    """Whether a counter shows more than any package can use; not checked below one second."""
    return max(spent_j) > HIGHEST_POWER_W * max(1.0, time_s)


def find_rapl_domains(root: Path) -> list[RaplDomain]:
    """Find package and dram counters, so that each energy counts once. Raises MeterUnavailable without any."""
    domains: list[RaplDomain] = []
    for package in sorted(root.glob("intel-rapl:*")):
        if re.fullmatch(r"intel-rapl:\d+", package.name) and _rapl_domain_name(package).startswith("package"):
            domains.append(_open_rapl_domain(package))
            parts = sorted(root.glob(f"{package.name}:*")) or sorted(package.glob(f"{package.name}:*"))
            domains.extend(_open_rapl_domain(part) for part in parts if _rapl_domain_name(part) == "dram")
    if not domains:
        raise MeterUnavailable(f"no RAPL package under {root}")
    return domains


def _rapl_domain_name(domain: Path) -> str:
    try:
        return (domain / "name").read_text().strip()
    except OSError:
        return ""


def _open_rapl_domain(folder: Path) -> RaplDomain:
    try:
        return RaplDomain(folder / "energy_uj", int((folder / "max_energy_range_uj").read_text()))
    except (OSError, ValueError) as error:
        raise MeterUnavailable(f"RAPL: {error}") from error
