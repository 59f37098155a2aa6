"""The searches of `dlbench tune` in a store: of each the default setting, the best one, and what each lever gave."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import pandas as pd

from dlbench.suites.case import AXES, Case
from dlbench.suites.levers import TUNE_PREFIX, LeverChange, improvement_path

#: Axes that make up a setting.
_SETTING = [axis for axis in AXES if axis != "repeat"]


@dataclass(frozen=True)
class TuningResult:
    """One search on one system."""

    system_id: str
    first: Case  # the default setting
    best: Case
    goal: str
    unit: str  # of a sample
    shipped: float  # figure of the default setting
    changes: tuple[LeverChange, ...]
    num_settings: int
    records: tuple[str, ...]


def tuning_goal_heading(goal: str, unit: str) -> str:
    """Name of the figure with its unit; higher is better."""
    return f"Throughput [{unit}/s]" if goal == "throughput" else f"Samples per energy [{unit}/J]"


def search_title(shipped: Case) -> str:
    """Name of a search: "resnet50, training, fp32 by default"."""
    return f"{shipped.model}, {shipped.mode}, {shipped.precision} by default"


def find_tuning_searches(cases: pd.DataFrame) -> Iterator[TuningResult]:
    """Yield the searches among measured cases, without rows that do not tell their setting or its figure."""
    rows = cases[cases["suite"].astype(str).str.startswith(TUNE_PREFIX)]
    goal = rows["label"].where(rows["label"] == "energy", "throughput")
    figure = rows["throughput"].where(goal == "throughput", 1.0 / rows["energy_per_image"])
    told = rows[_SETTING].notna().all(axis=1) & figure.gt(0) & figure.lt(math.inf)
    rows = rows.assign(goal=goal, figure=figure)[told]
    for (system_id, _), own in rows.groupby(["system_id", "suite"], sort=False):
        yield _read_tuning_search(str(system_id), own.sort_values("started_at"))


def _read_tuning_search(system_id: str, rows: pd.DataFrame) -> TuningResult:
    found: dict[Case, dict[int, list[float]]] = {}
    for row in rows.to_dict("records"):
        # The longest window counts; its steps tell its length.
        found.setdefault(_build_case_from_row(row), {}).setdefault(int(row["repeat"] > 0), []).append(
            float(row["figure"])
        )
    figures = {case: median(several[max(several)]) for case, several in found.items()}
    first = _build_case_from_row(rows.iloc[0].to_dict())
    paired = [case for case, several in found.items() if 1 in several and case != first]
    best = paired[0] if paired else max(figures, key=lambda case: figures[case])
    path, unit = tuple(improvement_path(figures, first, best)), str(rows["sample_unit"].iloc[0])
    goal, records = str(rows["goal"].iloc[0]), tuple(rows["attempt_id"])
    return TuningResult(system_id, first, best, goal, unit, figures[first], path, len(figures), records)


def _build_case_from_row(row: dict[Any, Any]) -> Case:
    values: dict[str, Any] = {axis: row[axis] if isinstance(row[axis], str) else int(row[axis]) for axis in _SETTING}
    return Case(**values)
