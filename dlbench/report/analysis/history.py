"""Months of results as lines, one per case and kind of device, with the days on which they changed and why.

A point is a day: the median over its processes. Changes of level and of spread are found by `change_points`; the stated
chance of one false alarm holds over all lines together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlbench.process_statistics import MIN_PROCESSES, half_width_of_mean
from dlbench.report.analysis import change_points
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import case_name, varying_settings
from dlbench.results import aggregation
from dlbench.results.records import DONE_STATUSES
from dlbench.suites.case import USUAL_CONFIDENCE

FALSE_ALARMS = 0.05
#: A level that comes back within so many points, to within this share of the shift, was disturbed for a while.
_BACK_WITHIN, _BACK_SHARE = 15, 0.5
#: Facts are compared over so many points on each side of a change.
_COMPARED_POINTS = 3
#: No computer measured before; clocks that were never set begin in 1970.
_FIRST_DAY = datetime(2012, 1, 1, tzinfo=UTC)
#: What may explain a change, beside `SYSTEM_FACTS`.
_FACT_TITLES = {"suite": "suite", "suite_version": "suite version", "protocol": "protocol", **aggregation.SYSTEM_FACTS}


@dataclass(frozen=True)
class HistoryChange:
    """A day from which on a line is different."""

    day: datetime
    index: int  # of the line's point
    kind: str  # "regression" | "improvement" | "temporary" | "unstable" | "steadier"
    #: Change of the step time, as a share: 0.03 is 3 % slower. For "unstable" and "steadier": spread after over before.
    size: float
    facts: tuple[str, ...]  # what changed in the system description at that time

    @property
    def is_level_change(self) -> bool:
        """Whether the level changed, not the spread."""
        return self.kind in ("regression", "improvement", "temporary")


@dataclass(frozen=True)
class CaseHistory:
    """One case on one kind of device."""

    name: str
    device: str
    days: tuple[datetime, ...]
    step_s: NDArray[np.float64]  # median of each day
    low_s: NDArray[np.float64]  # of its interval; NaN for fewer than three processes
    high_s: NDArray[np.float64]
    processes: int
    noise: float  # from day to day, as a share
    changes: tuple[HistoryChange, ...]

    @property
    def has_enough_days(self) -> bool:
        """Whether it is long enough."""
        return len(self.days) >= change_points.MIN_POINTS


@dataclass(frozen=True)
class History:
    """All lines, those with changes first."""

    lines: tuple[CaseHistory, ...]
    false_alarms: float
    notes: tuple[str, ...]

    def changes(self, since: datetime | None = None) -> list[tuple[CaseHistory, HistoryChange]]:
        """All changes from a day on, by time."""
        found = [(line, change) for line in self.lines for change in line.changes]
        later = [(line, change) for line, change in found if since is None or change.day >= since]
        return sorted(later, key=lambda pair: (pair[1].day, pair[0].name))


def read_history(sources: Sequence[str | Path], false_alarms: float = FALSE_ALARMS) -> History:
    """The history that these results hold. Raises StoreError if a source does not exist."""
    return build_history(aggregation.read_daily_rows(sources).to_pandas(), false_alarms)


def history_from_content(content: Content) -> History:
    """The history that the results of a report hold: that of `read_history`, without reading them again."""
    rows = content.rows
    columns = [*aggregation.PROCESS_COLUMNS, "status"]
    several = rows["attempt_id"].duplicated(keep=False)
    first = rows[columns]
    if several.any():
        # The value of each attempt's first rank that has one.
        of_ranks = first[several].groupby("attempt_id", sort=False, as_index=False).first()
        first = pd.concat([first[~several], of_ranks])
    steps = content.medians.reindex(first["attempt_id"]).to_numpy()
    first = first.assign(step_s=steps)
    measured = first["status"].isin(DONE_STATUSES).to_numpy() & ~np.isnan(steps)
    return build_history(aggregation.daily_rows_of_attempts(first if measured.all() else first[measured]).to_pandas())


def build_history(points: pd.DataFrame, false_alarms: float = FALSE_ALARMS) -> History:
    """The lines of `read_daily_rows` and their changes; `false_alarms`: chance of one or more over all lines."""
    latest = pd.Timestamp(datetime.now(UTC) + timedelta(days=1))
    possible = points["day"].between(pd.Timestamp(_FIRST_DAY), latest)
    notes = []
    if (~possible).any():
        strange = sorted({f"{day:%F}" for day in points.loc[~possible, "day"]})
        notes.append(
            f"{(~possible).sum()} days are not used, because they are before 2012 or in the future: {strange[0]}."
        )
    points = points[possible].sort_values("day", kind="stable")
    points = points.assign(network_key=points["network_key"].astype(object).fillna(""))
    keys = [*aggregation.SETTING_COLUMNS, "network_key", "device_kind"]
    groups = [own for _, own in points.groupby(keys, sort=False, dropna=False)]
    long = sum(len(own) >= change_points.MIN_POINTS for own in groups)
    # Two tests of each line: its level and its spread.
    chance = -math.expm1(math.log1p(-false_alarms) / max(1, 2 * long))
    axes = [axis for axis in varying_settings(points) if axis != "device"]
    lines = [_build_case_history(own.drop_duplicates("day", keep="last"), axes, chance) for own in groups]
    short = len(groups) - long
    if short:
        notes.append(
            f"{short} of {len(groups)} cases were measured on fewer than {change_points.MIN_POINTS} days and are not "
            f"judged."
        )
    ordered = sorted(lines, key=lambda line: (not line.changes, -len(line.days), line.name, line.device))
    return History(tuple(ordered), false_alarms, tuple(notes))


def _build_case_history(points: pd.DataFrame, axes: Sequence[str], chance: float) -> CaseHistory:
    logs = points["log_step"].to_numpy(dtype=float)
    first: dict[Any, Any] = points.iloc[0].to_dict()
    reach = np.array(
        [_half_width_of_mean_over_processes(n, sd) for n, sd in zip(points["processes"], points["log_sd"], strict=True)]
    )
    moments = [moment.to_pydatetime() for moment in points["day"]]
    return CaseHistory(
        name=case_name(first, axes),
        device=str(first["device_kind"]),
        days=tuple(moments),
        step_s=np.exp(logs),
        low_s=np.exp(logs - reach),
        high_s=np.exp(logs + reach),
        processes=int(points["processes"].sum()),
        noise=change_points.noise_between_neighbours(logs),
        changes=tuple(_find_changes(logs, points, moments, chance)),
    )


def _half_width_of_mean_over_processes(processes: float, sd: float) -> float:
    if processes < MIN_PROCESSES or not math.isfinite(sd):
        return math.nan
    return half_width_of_mean(sd, 0.0, int(processes), USUAL_CONFIDENCE)


def _find_changes(
    logs: NDArray[np.float64], points: pd.DataFrame, moments: Sequence[datetime], chance: float
) -> list[HistoryChange]:
    spreads = change_points.find_spread_changes(logs, chance)
    starts = change_points.find_level_changes(logs, chance, spreads)
    ends = [*starts[1:], logs.size] if starts else []
    levels = [float(np.median(logs[a:b])) for a, b in zip([0, *starts], [*starts, logs.size], strict=True)]
    found = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        before, after = levels[number], levels[number + 1]
        shift = after - before
        later = levels[number + 2 :]
        back = bool(later) and end - start <= _BACK_WITHIN and abs(later[0] - before) < _BACK_SHARE * abs(shift)
        kind = "temporary" if back else "regression" if shift > 0 else "improvement"
        found.append(
            HistoryChange(moments[start], start, kind, math.expm1(shift), _changed_system_facts(points, start))
        )
    around = logs - np.repeat(levels, np.diff([0, *starts, logs.size]))
    for start in spreads:
        before, after = (change_points.noise_between_neighbours(some) for some in (around[:start], around[start:]))
        ratio = after / max(1e-12, before)
        kind = "unstable" if ratio > 1 else "steadier"
        found.append(HistoryChange(moments[start], start, kind, ratio, _changed_system_facts(points, start)))
    return sorted(_drop_ends_of_temporary_changes(found), key=lambda change: change.index)


def _drop_ends_of_temporary_changes(changes: list[HistoryChange]) -> list[HistoryChange]:
    """The changes without those that only end a temporary one."""
    kept: list[HistoryChange] = []
    ended = False
    for change in changes:
        if not (ended and change.is_level_change):
            kept.append(change)
        ended = change.kind == "temporary" and not ended
    return kept


def _changed_system_facts(points: pd.DataFrame, start: int) -> tuple[str, ...]:
    """What the system description says differently after a point than before it."""
    before, after = points.iloc[max(0, start - _COMPARED_POINTS) : start], points.iloc[start : start + _COMPARED_POINTS]
    found = []
    for column, title in _FACT_TITLES.items():
        old, new = _most_common_value(before[column]), _most_common_value(after[column])
        if old != new:
            shown = "changed" if column == "protocol" else f"{_shorten_value(old)} -> {_shorten_value(new)}"
            found.append(f"{title} {shown}")
    return tuple(found)


def _most_common_value(values: pd.Series) -> Any:
    known = values.dropna().astype(object)
    return known.mode().iloc[0] if len(known) else None


def _shorten_value(value: Any) -> str:
    text = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
