"""The table of energies: what each metered case took, of what, by which meter, and how far two meters are apart."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from dlbench.report.analysis.labels import network_title, varying_axes
from dlbench.report.chapters.tables import case_cells, case_columns, metric_column, sort_cases
from dlbench.table import Cell, Column, Table

#: Energies first, then the powers behind them, then what says how far to trust both.
_METRICS = (
    *("energy_per_image", "module_energy_per_image", "energy_per_gflop", "images_per_wh"),
    *("average_power", "idle_power", "energy_disagreement"),
)


def energy_table(shown: pd.DataFrame, names: Mapping[str, str]) -> Table:
    """One row per case that a meter saw; without rows where none did.

    Args:
        shown: cases as a report shows them.
        names: of the systems by `system_id`; with several each row says which.
    """
    metered = sort_cases(shown[shown["average_power"].notna()])
    axes = ["model", "mode", "precision", "batch_size", *varying_axes(metered)]
    known = [name for name in _METRICS if metered[name].notna().any()]
    columns = case_columns(axes, names)
    columns += [metric_column(name, metered[name], 3) for name in known]
    columns += [Column("energy_source", "Meter"), Column("energy_scope", "Of"), Column("energy_note", "Note")]
    rows: list[list[Cell]] = []
    for case in metered.to_dict("records"):
        cells = case_cells(case, axes, names)
        cells += [case[name] if case[name] == case[name] else None for name in known]
        rows.append(
            [*cells, *(_text_or_empty(case[name]) for name in ("energy_source", "energy_scope", "energy_note"))]
        )
    notes = [
        "Energies are gross: they include idle power, which is measured before each case. A missing value was not "
        "measured."
    ]
    partial = metered.loc[metered["flop_partial"].notna(), "model"]
    if len(partial) and "energy_per_gflop" in known:
        names_of_partial = ", ".join(dict.fromkeys(network_title(name) for name in partial))
        notes.append(f"Energy per FLOP is an upper bound for {names_of_partial}, because the FLOP count is partial.")
    return Table(columns, rows, notes=notes).without_empty(["energy_note"])


def _text_or_empty(value: object) -> str:
    return value if isinstance(value, str) else ""
