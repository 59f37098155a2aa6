"""Cases that differ in the power limit or the clock of their device alone, and the best point of each such sweep."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from dlbench.report.analysis.side_by_side import add_case_numbers, summarize_processes

#: The axes that a sweep is over, and their units.
SWEEP_AXES = {"power_cap_w": "W", "clock_mhz": "MHz"}
_METRICS = ("throughput", "energy_per_image", "average_power", "sm_clock_min")


@dataclass(frozen=True)
class PowerLimitSweep:
    """One setting of a network at several limits.

    `points` has one row per limit, in order: the axes, `system_id`, the medians of the metrics, `limit` (NaN if
    nothing was set and the device's own is unknown), `product` [J·s], and `best`: what the point is best for.
    """

    axis: str
    points: pd.DataFrame


def find_power_limit_sweeps(shown: pd.DataFrame) -> list[PowerLimitSweep]:
    """Return every sweep over at least two limits of one axis, from one row per process."""
    found = []
    for axis in SWEEP_AXES:
        if shown.empty or shown[axis].nunique() < 2:
            continue
        cases = add_case_numbers(shown, without=axis)
        groups = [own for _, own in cases.groupby(["number", "system_id"], sort=False) if own[axis].nunique() > 1]
        found += [PowerLimitSweep(axis, _medians_per_power_limit(own, axis)) for own in groups]
    return found


def _medians_per_power_limit(own: pd.DataFrame, axis: str) -> pd.DataFrame:
    points = summarize_processes(add_case_numbers(own), _METRICS)
    limit = points[axis].astype(float)
    if axis == "power_cap_w":
        # Where nothing was set, the limit that the device had.
        limit = limit.mask(limit.eq(0), own.loc[own[axis].eq(0), "power_limit_w"].astype(float).median())
    else:
        limit = limit.mask(limit.eq(0))
    # Energy of an image times its time: what is left when neither is worth more than the other.
    product = points["energy_per_image"] / points["throughput"]
    points = points.assign(limit=limit, product=product).sort_values("limit", kind="stable", na_position="last")
    values = {"throughput": points["throughput"], "energy": -points["energy_per_image"], "product": -product}
    best = {name: column.max() for name, column in values.items()}
    names = [tuple(n for n in values if np.isfinite(best[n]) and values[n][i] == best[n]) for i in points.index]
    return points.assign(best=pd.Series(names, points.index, dtype=object)).reset_index(drop=True)
