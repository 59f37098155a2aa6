"""How far processes of one case differ, over repeats, nodes and devices, and which node or device is off.

A process's deviation is its median step time over the median of all processes of the same case on the same kind of
system. A host's deviation is the median of its processes', over all cases that other hosts ran as well. It is named as
slow or fast when it is off from the other hosts by more than `MIN_DEVIATION` and by more than `MAX_SPREADS` times the
spread that is there anyway: the robust standard deviation (1.4826 times the median absolute deviation) of processes
around their own host, where hosts have several, else that of the hosts themselves. The same holds for devices by their
UUID.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from dlbench import units
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import MAIN_AXES, case_axis_title, network_title, varying_axes
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.outliers import MAD_TO_SD
from dlbench.report.analysis.side_by_side import MATCH_COLUMNS, add_case_numbers, sort_cases
from dlbench.results.records import DONE_STATUSES
from dlbench.suites.case import AXES
from dlbench.table import Cell, Column, Table, percent_text, signed_percent_text

#: A host or device that differs by less is not worth a walk to the machine room.
MIN_DEVIATION = 0.02
#: Times the spread that is there anyway.
MAX_SPREADS = 3.0
#: Fewer hosts than this show no spread of their own; a host with fewer processes shows none around itself.
MIN_UNITS = 5
MIN_PROCESSES = 4
#: So many cases are listed with the spread of their processes.
MAX_LISTED = 100

RULE_TEXT = (
    f"A host or device is listed if its median deviates from the overall median by more than "
    f"{units.percent_text(MIN_DEVIATION, 1)} and by more than {MAX_SPREADS:g} times the usual "
    "spread. The usual spread is "
    f"the robust standard deviation (1.4826 × median absolute deviation) of processes around the median of their own "
    f"host or device; only hosts or devices with at least {MIN_PROCESSES} processes count. If there are none, it is "
    f"the robust standard deviation of the medians of all hosts or devices, if these are at least {MIN_UNITS}. With "
    f"only two hosts or devices, the slower is compared with the faster."
)


@dataclass(frozen=True)
class HardwareDeviation:
    """One host or device: how far its processes are off, and what may be said of it."""

    system: str
    kind: str  # "host" | "device"
    name: str
    processes: int
    cases: int
    deviation: float  # of its median step time from that of all: above 0 is slower
    spread: float | None  # the spread that is there anyway; None where nothing shows it
    off: bool


def find_repeated_processes(content: Content) -> pd.DataFrame:
    """Every measured process of a case that ran more than once on one kind of system, repeats and reruns alike.

    The columns are what names it, `step_time`, `number`, `deviation`, and `host` and `device_uuid` if it has only one.
    """
    attempts = content.attempts
    # All metrics of a large store, and several times over, would take gigabytes.
    names = dict.fromkeys(["attempt_id", "system_id", "label", "step_time", *MATCH_COLUMNS, *AXES])
    measured = attempts["status"].isin(DONE_STATUSES) & attempts["step_time"].gt(0)
    done = _select_rows_without_copy(attempts[list(names)], measured)
    if done.empty:
        return done.assign(number=[], deviation=[], host=[], device_uuid=[])
    done = add_case_numbers(done)
    groups = done.groupby(["number", "system_id"])["step_time"]
    again = groups.transform("size").gt(1)
    deviation = done["step_time"] / groups.transform("median") - 1
    places = content.rows[["attempt_id", "system_hostname", "device_uuid"]]
    places = places.rename(columns={"system_hostname": "host"})
    if places["attempt_id"].duplicated().any():
        # Where ranks wait for each other, the step tells nothing of the single host or device.
        of_attempt = places.groupby("attempt_id")
        places = of_attempt.first().where(of_attempt.nunique().eq(1))
    else:
        places = places.set_index("attempt_id")
    return _select_rows_without_copy(done.assign(deviation=deviation), again).join(places, on="attempt_id")


def _select_rows_without_copy(frame: pd.DataFrame, wanted: pd.Series[bool]) -> pd.DataFrame:
    """The wanted rows; if these are all, without a copy, which would take a gigabyte of a large store."""
    return frame if wanted.all() else frame[wanted]


def hardware_deviations(cases: pd.DataFrame) -> list[HardwareDeviation]:
    """Hosts, and devices, of each system, most deviating first; where there is only one there is none to compare."""
    found: list[HardwareDeviation] = []
    cases = cases[["system_id", "number", "deviation", "host", "device_uuid"]]
    for system, of_system in cases.groupby("system_id", sort=False):
        for kind, column in (("host", "host"), ("device", "device_uuid")):
            found += _deviations_of_kind(str(system), kind, of_system[of_system[column].notna()], column)
    return sorted(found, key=lambda unit: (-unit.off, -abs(unit.deviation)))


def process_spread_table(cases: pd.DataFrame, names: dict[str, str]) -> Table:
    """How far the processes of a case spread, for at most `MAX_LISTED` cases: those with the widest range."""
    axes = [*MAIN_AXES, *(a for a in varying_axes(cases) if a not in ("repeat", "device"))]
    columns = [Column("system", "System"), *(Column(a, case_axis_title(a)) for a in axes)]
    columns += [
        Column("processes", "Processes", "right"),
        Column("hosts", "Hosts", "right"),
        Column("step_time", "Median step", "right", METRICS["step_time"].cell_text),
        Column("spread", "Robust SD", "right", percent_text),
        Column("lowest", "Fastest", "right", signed_percent_text),
        Column("highest", "Slowest", "right", signed_percent_text),
    ]
    keys = ["system_id", "number"]
    groups = cases[[*keys, "host", "step_time", "deviation"]].groupby(keys)
    reach = groups["deviation"].max() - groups["deviation"].min()
    chosen = reach.sort_values(ascending=False, kind="stable").index[:MAX_LISTED]
    firsts = cases.drop_duplicates(keys).set_index(keys, drop=False).loc[chosen].reset_index(drop=True)
    rows: list[list[Cell]] = []
    for first in sort_cases(firsts).to_dict("records"):
        system = first["system_id"]
        same = groups.get_group((system, first["number"]))
        deviations = same["deviation"]
        setting: list[Cell] = [network_title(str(first[a])) if a == "model" else first[a] for a in axes]
        setting = [cell.item() if isinstance(cell, np.generic) else cell for cell in setting]
        spread = _robust_standard_deviation(deviations) if len(same) >= MIN_PROCESSES else None
        figures: list[Cell] = [len(same), int(same["host"].nunique()), float(same["step_time"].median()), spread]
        extremes = [float(deviations.min()), float(deviations.max())]
        rows.append([names.get(str(system), "unknown"), *setting, *figures, *extremes])
    notes = [f"Robust SD: 1.4826 × median absolute deviation; needs at least {MIN_PROCESSES} processes."]
    if len(reach) > MAX_LISTED:
        notes.append(f"{len(reach)} cases; shown are the {MAX_LISTED} whose processes differ most.")
    return Table(columns, rows, notes=notes)


def process_range_sentence(cases: pd.DataFrame) -> str:
    """How far processes of one case are apart, as a sentence."""
    groups = cases.groupby(["system_id", "number"])["deviation"]
    reach = groups.max() - groups.min()
    if len(reach) == 1:
        return (
            "One case ran more than once; the step times of its processes differ by "
            f"{units.percent_text(reach.iloc[0])}."
        )
    return (
        f"{len(reach)} cases ran more than once on one kind of system. The step times of the fastest and the slowest "
        f"process of a case differ by {units.percent_text(reach.median())} in the median case and by "
        f"{units.percent_text(reach.max())} in the worst case."
    )


def hardware_deviations_table(found: list[HardwareDeviation], names: dict[str, str]) -> Table:
    """Hosts and devices with their deviations, and which of them are off."""
    columns = [Column("system", "System"), Column("kind", "What"), Column("unit", "Name")]
    columns += [Column("verdict", "Verdict"), Column("deviation", "Step time", "right", signed_percent_text)]
    columns += [Column("limit", "Named from", "right", percent_text)]
    columns += [Column("processes", "Processes"), Column("cases", "Cases")]
    rows: list[list[Cell]] = []
    for unit in found:
        row: list[Cell] = [names.get(unit.system, "unknown"), unit.kind, unit.name, _deviation_verdict(unit)]
        rows.append([*row, unit.deviation, _deviation_limit(unit.spread), unit.processes, unit.cases])
    return Table(columns, rows)


def _deviations_of_kind(system: str, kind: str, cases: pd.DataFrame, column: str) -> list[HardwareDeviation]:
    # A case that ran in one place only says nothing of the place.
    cases = cases[cases.groupby("number")[column].transform("nunique").gt(1).astype(bool)]
    by_unit = cases.groupby(column)
    middles = by_unit["deviation"].median()
    if len(middles) < 2:
        return []
    around = cases["deviation"] - by_unit["deviation"].transform("median")
    telling = by_unit["deviation"].transform("size") >= MIN_PROCESSES
    spread = None
    if telling.any():
        spread = _robust_standard_deviation(around[telling])
    elif len(middles) >= MIN_UNITS:
        spread = _robust_standard_deviation(middles)
    limit = _deviation_limit(spread)
    # The median of two lies between them, and would call one as slow as the other fast.
    middle = float(middles.min() if len(middles) == 2 else middles.median())
    return [
        HardwareDeviation(
            system=system,
            kind=kind,
            name=str(name),
            processes=len(own),
            cases=int(own["number"].nunique()),
            deviation=float(middles[str(name)]) - middle,
            spread=spread,
            off=limit is not None and abs(float(middles[str(name)]) - middle) > limit,
        )
        for name, own in by_unit
    ]


def _deviation_limit(spread: float | None) -> float | None:
    return None if spread is None else max(MIN_DEVIATION, MAX_SPREADS * spread)


def _robust_standard_deviation(values: pd.Series[float]) -> float:
    return float(MAD_TO_SD * (values - values.median()).abs().median())


def _deviation_verdict(unit: HardwareDeviation) -> str:
    if unit.off:
        return "slow" if unit.deviation > 0 else "fast"
    return "like the others" if unit.spread is not None else "too few processes"
