"""The tables that have one column per system: what each reached in the cases they share, and the speedup over one."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dlbench import units
from dlbench.report.analysis import confidence_levels, ranking
from dlbench.report.analysis.case_selection import fastest_cases
from dlbench.report.analysis.labels import MAIN_AXES, network_title, setting_label, varying_axes
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.ranking import CaseWinner
from dlbench.report.analysis.side_by_side import axes_equal_across_systems
from dlbench.report.chapters import tables
from dlbench.table import Cell, Column, Table, half_width_cell, half_width_text, number_or_none

#: Where a case failed on a system, its status stands in place of the number.
FailureTexts = Mapping[tuple[int, str], str]


def metric_by_system_table(cases: pd.DataFrame, names: Mapping[str, str], metric: str, failed: FailureTexts) -> Table:
    """One metric over the shared cases: a row per case, a column per system, and ± where it is known.

    Args:
        cases: one row per case and system, as `side_by_side.summarize_processes` gives them, in order.
        names: of the systems by `system_id`, in the order of the columns.
    """
    known = cases[cases[metric].notna()]
    axes = _axes_in_row_names(known)
    # To make dictionaries of rows costs time by the column.
    known = known[["number", "system_id", "processes", "protocol", *axes, metric, f"{metric}_low", f"{metric}_high"]]
    present = _ids_of_measured_systems(names, known)
    unit = tables.choose_column_unit(metric, known[metric])[1]
    columns = tables.case_name_columns(axes)
    with_spread = bool(known[f"{metric}_low"].notna().any())
    several = bool(known["processes"].gt(1).any())
    for i, system in enumerate(present, 1):
        title = f"{names[system]} [{unit}]" if unit else names[system]
        columns.append(tables.metric_column(metric, known[metric], 3, f"system_{i}", title))
        columns += [Column(f"spread_{i}", "±", "right", half_width_text)] if with_spread else []
    columns += [Column("processes", "Processes", "right")] if several else []
    rows: list[list[Cell]] = []
    for number, case in known.groupby("number", sort=False):
        by_system = case.set_index("system_id").to_dict("index")
        row: list[Cell] = tables.case_name_cells(case.iloc[0].to_dict(), axes)
        for system in present:
            found = by_system.get(system)
            row.append(number_or_none(found[metric]) if found else failed.get((int(str(number)), system)))
            row += [_half_width_cell(found, metric) if found else None] if with_spread else []
        if several:
            row.append(", ".join(f"{by_system[s]['processes']:.0f}" if s in by_system else "0" for s in present))
        rows.append(row)
    return Table(columns, rows, notes=_process_spread_notes(with_spread, several, known))


def speedups_table(
    cases: pd.DataFrame, processes: pd.DataFrame, names: Mapping[str, str], base: str, failed: FailureTexts
) -> Table:
    """Throughput over that of the system `base`, whose absolute figure stands beside it.

    Args:
        cases: one row per case and system, in order.
        processes: one row per process of the same cases.
    """
    shared = cases[cases["number"].isin(cases.loc[cases["system_id"] == base, "number"])]
    others = [s for s in _ids_of_measured_systems(names, shared) if s != base]
    axes = _axes_in_row_names(shared)
    columns = tables.case_name_columns(axes)
    title = f"{names[base]} [{METRICS['throughput'].unit}]"
    columns.append(tables.metric_column("throughput", shared["throughput"], 3, "base", title))
    for i, system in enumerate(others, 1):
        columns += [Column(f"speedup_{i}", f"{names[system]} [×]", "right", _format_factor)]
        columns += [Column(f"interval_{i}", "interval", "right")]
    shared = shared[["number", "system_id", *axes, "throughput"]]
    sides = dict(iter(processes[["number", "system_id", "step_time", "samples"]].groupby(["number", "system_id"])))
    rows: list[list[Cell]] = []
    unmeasured = False
    for number, case in shared.groupby("number", sort=False):
        first = case[case["system_id"] == base].iloc[0]
        row: list[Cell] = [*tables.case_name_cells(first.to_dict(), axes), number_or_none(first["throughput"])]
        for system in others:
            side = sides.get((number, system))
            if side is None:
                row += [failed.get((int(str(number)), system)), None]
                continue
            found = ranking.speedup(sides[number, base], side)
            unmeasured |= not found.has_measured_spread
            row += [found.ratio, found.interval_text or None]
        rows.append(row)
    notes = [
        "Ratio of median step times per case; with several processes, ratio of their geometric means. This table has "
        "no mean over cases. The chapter In brief shows one per precision and mode."
    ]
    if unmeasured:
        notes.append(UNKNOWN_SPREAD)
    return Table(columns, rows, notes=notes).without_empty_columns([f"interval_{i}" for i in range(1, len(others) + 1)])


#: Said wherever a difference rests on fewer than three processes.
UNKNOWN_SPREAD = (
    "There is no interval and no verdict if fewer than three processes ran on a side, because the spread between "
    "processes is then unknown. Run `dlbench run SUITE -P processes=3` to measure it."
)


def winners_table(found: Mapping[str, Sequence[CaseWinner]], cases: pd.DataFrame, names: Mapping[str, str]) -> Table:
    """Per network and mode the best system by each metric, with its margin over the next.

    Args:
        found: the standings by metric.
        cases: the representative cases, one row per case and system, in order.
    """
    shared = cases.drop_duplicates("number")
    metrics = [metric for metric, standings in found.items() if standings]
    by_case = {(metric, s.number): s for metric in metrics for s in found[metric]}
    columns = [Column("model", "Network"), Column("mode", "Mode"), Column("setting", "Setting")]
    columns += [Column(metric, _WINNER_TITLES.get(metric, METRICS[metric].title)) for metric in metrics]
    axes = ["precision", "batch_size", *varying_axes(shared)]
    rows: list[list[Cell]] = []
    for case in shared.to_dict("records"):
        row: list[Cell] = [network_title(str(case["model"])), case["mode"], setting_label(case, axes)]
        row += [_winner_cell(by_case.get((metric, case["number"])), names) for metric in metrics]
        rows.append(row)
    return Table(columns, rows)


_WINNER_TITLES = {
    "throughput": "Fastest",
    "energy_per_image": "Least energy",
    "memory_allocated": "Least memory",
    "memory_device": "Least memory",
    "memory_rss": "Least host memory",
    "mfu": "Highest share of datasheet peak",
    "share_of_measured_peak": "Highest share of measured peak",
}


def best_settings_table(shown: pd.DataFrame, names: Mapping[str, str]) -> Table:
    """Each network and mode on each system at the fastest setting that was measured there; settings may differ."""
    best = fastest_cases(shown[shown["throughput"].notna()], ["model", "mode", "system_id"], limit=None)
    present = _ids_of_measured_systems(names, best)
    axes = ["precision", "batch_size", *(a for a in varying_axes(best) if a not in ("device", "repeat"))]
    best = best[["model", "mode", "system_id", "throughput", *axes]]
    columns = [Column("model", "Network"), Column("mode", "Mode")]
    for i, system in enumerate(present, 1):
        title = f"{names[system]} [{METRICS['throughput'].unit}]"
        columns.append(tables.metric_column("throughput", best["throughput"], 3, f"system_{i}", title))
        columns.append(Column(f"setting_{i}", "at"))
    rows: list[list[Cell]] = []
    for (model, mode), case in best.groupby(["model", "mode"], sort=False):
        by_system = case.set_index("system_id").to_dict("index")
        row: list[Cell] = [network_title(str(model)), str(mode)]
        for system in present:
            found = by_system.get(system)
            row += [number_or_none(found["throughput"]), setting_label(found, axes)] if found else [None, None]
        rows.append(row)
    return Table(columns, rows)


def _winner_cell(standing: CaseWinner | None, names: Mapping[str, str]) -> str:
    if standing is None:
        return units.MISSING
    best, second = names[standing.best], names[standing.runner_up]
    if standing.outcome != ranking.BETTER:
        equal = abs(standing.ratio - 1) < 0.0005 and standing.low is None
        return f"{best}, {second}: {standing.outcome_text}" + ("" if equal else f"\n{standing.lead_with_interval}")
    return f"{best}\n{standing.lead_with_interval} against {second}"


def _axes_in_row_names(cases: pd.DataFrame) -> list[str]:
    """The axes that name a row; the repeat is in the number of processes, the device in the system."""
    axes = [*MAIN_AXES, *(axis for axis in varying_axes(cases) if axis not in ("repeat", "device"))]
    return axes_equal_across_systems(cases, axes)


def _ids_of_measured_systems(names: Mapping[str, str], cases: pd.DataFrame) -> list[str]:
    there = set(cases["system_id"])
    return [system for system in names if system in there]


def _half_width_cell(case: Mapping[Any, Any], metric: str) -> Cell:
    value, low, high = (case[f"{metric}{end}"] for end in ("", "_low", "_high"))
    fraction = number_or_none((high - low) / 2 / value)
    return None if fraction is None else half_width_cell(fraction, value, low, high)


def _process_spread_notes(with_spread: bool, several: bool, cases: pd.DataFrame) -> list[str]:
    if not with_spread:
        return []
    level = confidence_levels.describe_levels(cases)
    if not several:
        return [f"±: half-width of the {level} confidence interval of the median step, in one process per system."]
    return [
        f"±: half-width of an interval, at a confidence of {level}. One process: interval of its median step. Two: "
        f"range covered by their two intervals. Three or more: interval of their mean."
    ]


def _format_factor(cell: Cell) -> str:
    return cell if isinstance(cell, str) else units.ratio_text(number_or_none(cell))
