"""The table of `dlbench project`: time, energy and cost of a whole training."""

import pandas as pd

from dlbench import units
from dlbench.errors import BadInput, UnknownName
from dlbench.report.analysis import confidence_levels, derived_metrics
from dlbench.report.analysis.case_warnings import add_warnings_column, describe_status_and_warnings
from dlbench.report.analysis.projection import Prices, unused_price_notes
from dlbench.report.analysis.side_by_side import add_case_numbers, summarize_processes
from dlbench.report.chapters.projection_section import (
    OVER_PROCESSES_TEXT,
    prefix_assumptions_with_system,
    project_case,
    projection_cells,
)
from dlbench.report.loading import systems
from dlbench.results.records import DONE_STATUSES
from dlbench.table import Cell, Column, Table, number_or_none, seconds_text, with_shared_unit

_AXES = ("model", "precision", "memory_format", "compile", "optimizer", "data", "batch_size")
#: Always shown, even when all cases agree in them.
_ALWAYS_SHOWN = ("model", "precision", "batch_size")


def projection_table(
    rows: pd.DataFrame, num_images: int, num_epochs: float, models: list[str] | None, prices: Prices | None
) -> Table:
    """One row per measured training of these models (None for all), from a store's rows; the assumptions as notes.

    Raises BadInput if there is no such training, or images or epochs are not above zero.
    """
    # As in a report: a machine's CPU and its GPUs are different systems, and so are two settings of a CPU.
    rows = systems.join_sources([systems.add_results_name_columns(rows, systems.ResultsSource("results"), 0)])
    names = systems.system_names(rows)
    # Repeats are processes of one case: their common value, and its interval.
    processes = add_case_numbers(derived_metrics.add_metric_intervals(_training_cases_of_models(rows, models)))
    cases = add_warnings_column(summarize_processes(processes), processes)
    columns = _projection_columns([a for a in _AXES if a in _ALWAYS_SHOWN or cases[a].nunique() > 1], prices)
    found: list[dict[str, Cell]] = []
    assumptions: dict[str, None] = {}
    for case in cases.to_dict("records"):
        value = number_or_none(case["throughput"])
        if value is None:
            continue
        name = names.get(case["system_id"], "unknown")
        projection = project_case(case, num_images, num_epochs, prices.prices_of_system(name) if prices else None)
        # Images and epochs are the title, the number of devices is a column.
        assumptions |= dict.fromkeys(prefix_assumptions_with_system(projection.assumptions[1:], name, prices))
        row: dict[str, Cell] = {axis: case[axis] for axis in _AXES}
        row |= {"system": name, "processes": int(case["processes"]), "throughput": value}
        row |= {"warnings": describe_status_and_warnings(case)}
        found.append(row | projection_cells(case, projection))
    if not found:
        raise BadInput("these trainings have no step times, so no projection is possible")
    without_interval = sum(row["time_low_s"] is None for row in found)
    notes = [*assumptions, *unused_price_notes(prices, names.values())]
    if cases["processes"].gt(1).any():
        notes.append(
            f'n: number of processes of a case. Interval in the columns "from" and "to": {OVER_PROCESSES_TEXT}.'
        )
    if len(found) > without_interval:
        notes.append(
            f'Confidence level of the interval in "from" and "to": {confidence_levels.describe_levels(cases)}.'
        )
    if without_interval:
        notes.append(
            f"No interval of the time, because steps are too few or too uneven: "
            f"{units.count_text(without_interval, 'case')}."
        )
    if any(row["energy_low_kwh"] is not None for row in found):
        notes.append(
            "Energy and cost have the same relative interval as the time; the average power is taken as exact."
        )
    title = f"{num_epochs:g} epochs of {num_images} images"
    table = Table(columns, [[row[column.key] for column in columns] for row in found], title, notes)
    return with_shared_unit(table, "time_s", "time_low_s", "time_high_s")


def _training_cases_of_models(rows: pd.DataFrame, models: list[str] | None) -> pd.DataFrame:
    if rows.empty:
        raise BadInput("the results contain no records; run `dlbench run` first")
    known = sorted(set(rows["model"].dropna()))
    for name in models or ():
        if name not in known:
            raise UnknownName("model", name, known, "the results")
    wanted = rows[rows["model"].isin(models)] if models else rows
    wanted = wanted[(wanted["mode"] == "training") & wanted["status"].isin(DONE_STATUSES)]
    if wanted.empty:
        raise BadInput(f"these results have no training of {', '.join(models or known)}; measure it first")
    attempts = systems.add_system_ids(derived_metrics.attempts_from_rows(wanted), wanted)
    return derived_metrics.make_network_names_unique(derived_metrics.latest_attempts(attempts))


def _projection_columns(axes: list[str], prices: Prices | None) -> list[Column]:
    cost = f"cost [{prices.currency}]" if prices is not None else "cost"
    return [
        Column("system"),
        *(Column(axis, axis.replace("_", " ")) for axis in axes),
        Column("devices"),
        Column("processes", "n"),
        Column("throughput", "img/s"),
        Column("time_s", "time", "right", seconds_text),
        Column("time_low_s", "from", "right", seconds_text),
        Column("time_high_s", "to", "right", seconds_text),
        Column("energy_kwh", "energy [kWh]", "right"),
        Column("energy_low_kwh", "from", "right"),
        Column("energy_high_kwh", "to", "right"),
        Column("cost", cost, "right"),
        Column("cost_low", "from", "right"),
        Column("cost_high", "to", "right"),
        Column("warnings", "", "left"),
    ]
