"""The figures of each case over its processes: the ± that a rerun confirms."""

from __future__ import annotations

import pandas as pd

from dlbench.report.analysis import confidence_levels
from dlbench.report.analysis.labels import MAIN_AXES, varying_axes
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.side_by_side import sort_cases, summarize_processes, with_case_numbers
from dlbench.report.chapters.tables import case_cells, case_columns, case_half_width
from dlbench.table import Cell, Column, Table, half_width_text, number_or_none


def interval_note(shown: pd.DataFrame) -> str:
    """What each ± of the table is, and at what confidence."""
    return (
        f"One row per case. ±: half of the {confidence_levels.levels_text(shown)} confidence interval of the mean over "
        f"processes; the mean of a repeated measurement should lie within it. One more run ±: the same for a single "
        f"further process. Within one run ±: half of each window's interval, median over processes. A case with fewer "
        f"than three processes has only the last one."
    )


def over_processes_table(shown: pd.DataFrame, system_names: dict[str, str]) -> Table | None:
    """One row per case and system, its processes taken together; None where no case has several."""
    processes = with_case_numbers(shown)
    cases = sort_cases(summarize_processes(processes))
    if cases.empty or cases["processes"].max() < 2:
        return None
    rates = processes[["throughput", "throughput_low", "throughput_high"]]
    widths = rates.div(rates["throughput"], axis=0).assign(half_width=processes["step_time_half_width"])
    within = widths.groupby([processes["number"], processes["system_id"]]).median().to_dict("index")
    axes = [*MAIN_AXES, *(a for a in varying_axes(shown) if a not in ("repeat", "device"))]
    columns = [
        *case_columns(axes, system_names),
        Column("processes", "Processes", "right"),
        Column("throughput", "Throughput", "right", METRICS["throughput"].cell_text),
        Column("half_width", "±", "right", half_width_text),
        Column("next_run", "One more run ±", "right", half_width_text),
        Column("within", "Within one run ±", "right", half_width_text),
        Column("groups", "Two groups", "left"),
    ]
    rows: list[list[Cell]] = []
    for case in cases.to_dict("records"):
        cells = case_cells(case, axes, system_names)
        groups = case["groups"] if isinstance(case["groups"], str) else ""
        own = within[case["number"], case["system_id"]]
        cells += [int(case["processes"]), number_or_none(case["throughput"]), case_half_width(case, "half_width")]
        cells += [number_or_none(case["next_run"]), case_half_width(own, "half_width")]
        rows.append([*cells, groups])
    return Table(columns, rows).without_empty(["groups"])
