"""Figures of one case with all its ranks, for the progress lines of a run; standard library only.

The report derives the same figures for a whole store (`dlbench.report.analysis.derived_metrics`); a test compares both.
Each step counts with its slowest rank, energy is summed over all meters, work is that of the first rank.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dlbench import stats
from dlbench.facts.peaks import find_device_peaks
from dlbench.results.records import SHARED_SCOPES, Measurement, Record, System
from dlbench.suites.case import Case

#: Limits of a valid time [s]: below clock resolution, or longer than any run.
SHORTEST_STEP_S, LONGEST_STEP_S = 1e-12, 1e9


@dataclass(frozen=True)
class CaseMetrics:
    """Figures of a case; None if not measured or invalid."""

    step_s: tuple[float, ...]  # of the slowest rank in each step
    median_s: float
    interval: stats.Interval | None  # of the median, at the confidence of the protocol
    throughput: float  # samples per second over all devices
    sample_unit: str  # of a sample: img | seq
    items_per_sample: int  # tokens of a sequence
    energy_per_image_j: float | None
    flop_per_s: float | None  # over all devices
    flop_partial: bool  # some operations are not counted
    share_of_peak: float | None  # of the dense datasheet peak of all devices


def case_figures(record: Record) -> CaseMetrics | None:
    """Compute the figures of a record; None if a rank has no steps or an invalid one."""
    case = Case.from_dict(record.case)
    measured = [m for _, m in record.ranks]
    steps = step_times_of_slowest_rank([m.step_s for m in measured])
    if not steps:
        return None
    median_s = stats.percentile(steps, 50)
    images = case.batch_size * case.world_size
    parts = [measured[0].forward_flop, measured[0].backward_flop if case.mode == "training" else 0]
    flop = None if None in parts else float(sum(part or 0 for part in parts))
    rate = None if flop is None else flop * images / median_s
    peaks = find_device_peaks(measured[0].device_name)
    peak = peaks.flop_per_s(case.precision) if peaks else None
    windows = [window_s for m in measured if (window_s := _positive_or_none(m.window_s)) is not None]
    power_w = average_power(record.ranks)
    energy_j = power_w * max(windows) / (images * len(steps)) if power_w is not None and windows else None
    return CaseMetrics(
        step_s=steps,
        median_s=median_s,
        interval=stats.median_interval(steps, case.protocol.confidence),
        throughput=images / median_s,
        sample_unit=measured[0].sample_unit,
        items_per_sample=measured[0].items_per_sample,
        energy_per_image_j=energy_j,
        flop_per_s=rate,
        flop_partial=bool(measured[0].flop_partial),
        share_of_peak=rate / (peak * case.world_size) if rate is not None and peak else None,
    )


def step_times_of_slowest_rank(ranks: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the time of each step in its slowest rank [s]; surplus steps of a rank are dropped.

    Empty if a rank has no steps or an invalid one.
    """
    steps = tuple(zip(*ranks, strict=False))
    if not all(SHORTEST_STEP_S <= time <= LONGEST_STEP_S for step in steps for time in step):
        return ()
    return tuple(max(step) for step in steps)


def average_power(ranks: Sequence[tuple[System, Measurement]]) -> float | None:
    """Return the mean power of all meters [W], each counted once: ranks of a node share package meters.

    None if a meter has no energy, or a rank is missing.
    """
    powers: dict[tuple[str, str], float | None] = {}
    for system, m in ranks:
        own = "" if m.energy_scope in SHARED_SCOPES else m.device_uuid or str(m.rank)
        energy_j = _positive_or_none(m.energy_j)
        window_s = _positive_or_none(m.window_s if m.energy_window_s is None else m.energy_window_s)
        known = energy_j is not None and window_s is not None
        powers.setdefault((system.hostname, own), energy_j / window_s if known else None)  # type: ignore[operator]
    found = [power for power in powers.values() if power is not None]
    if not found or len(found) < len(powers) or len(ranks) < max(m.world_size for _, m in ranks):
        return None
    return math.fsum(found)


def _positive_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) and value > 0 else None
