"""How long a suite will take, learned from earlier attempts in the results folder."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dlbench import units
from dlbench.launch import attempts
from dlbench.results.records import DONE_STATUSES
from dlbench.suites.suite import Suite

#: Nodes measure the same cases: so many of their folders are read.
_MAX_NODES = 8
#: Axes that hardly change the time, or are not known before a case runs.
_IGNORED_AXES = ("repeat", "device", "protocol")


@dataclass(frozen=True)
class TimeEstimate:
    """Time of all processes of a suite, one after the other."""

    time_s: float
    node_s: float  # time of each process times its nodes
    known: int  # processes whose case was measured before
    total: int

    def describe(self, times: int = 1) -> str:
        """The estimate in one line, for so many runs of the suite at once."""
        others = "; other processes are estimated with the median of these" if self.known < self.total else ""
        node_hours = units.number_text(times * self.node_s / 3600, 2)
        each = " each" if times > 1 else ""
        return (
            f"estimate: {units.seconds_text(self.time_s, 2)}{each}, {node_hours} node-hours in total ({self.known} of "
            f"{self.total} processes were measured before{others})"
        )


def estimate_time(suite: Suite, results: Path) -> TimeEstimate | None:
    """Estimate the time of a suite; None if none of its cases was measured in `results` before."""
    times = _earlier_durations(results)
    cases = [case for one in suite.process_rounds() for case in one]
    known = [times.get(_case_setting_key(case.to_dict())) for case in cases]
    found = [statistics.median(each) for each in known if each]
    if not found:
        return None
    usual_s = statistics.median(found)
    each_s = [statistics.median(own) if own else usual_s for own in known]
    node_s = sum(time_s * case.nodes for time_s, case in zip(each_s, cases, strict=True))
    return TimeEstimate(sum(each_s), node_s, len(found), len(cases))


def _earlier_durations(results: Path) -> dict[tuple[tuple[str, str], ...], list[float]]:
    """Return the durations of earlier attempts at each case [s], from start-up to the written result."""
    times: dict[tuple[tuple[str, str], ...], list[float]] = {}
    for folder in [results, *islice(sorted(results.glob("nodes/*/")), _MAX_NODES)]:
        for _, record in attempts.find_closed_attempts(folder) if folder.is_dir() else ():
            if record.status in DONE_STATUSES and record.wall_s:
                times.setdefault(_case_setting_key(record.case), []).append(record.wall_s)
    return times


def _case_setting_key(case: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((axis, str(value)) for axis, value in case.items() if axis not in _IGNORED_AXES))
