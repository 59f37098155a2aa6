"""What `dlbench tune` prints: what each lever gave, and the best setting beside the one as shipped."""

from __future__ import annotations

from collections.abc import Sequence

from dlbench import units
from dlbench.suites.levers import Change
from dlbench.table import Cell, Column, Table


def heading(goal: str, unit: str) -> str:
    """Name of the figure with its unit; higher is better."""
    return f"Throughput [{unit}/s]" if goal == "throughput" else f"Samples per energy [{unit}/J]"


def tuning_table(changes: Sequence[Change], shipped: float, goal: str, unit: str, title: str = "") -> Table:
    """One row per change, from the setting as shipped to the best one, with the figure after it.

    Args:
        shipped: figure of the setting as shipped.
        unit: of a sample, such as img.
    """
    columns = [
        Column("change", "Setting"),
        Column("figure", heading(goal, unit), "right"),
        Column("ratio", "Gives", "right", lambda cell: "" if cell is None else f"x {units.digits(float(cell), 3)}"),
        Column("total", "In all", "right", lambda cell: f"x {units.digits(float(cell or 0.0), 3)}"),
    ]
    rows: list[list[Cell]] = [["as shipped", shipped, None, 1.0]]
    rows += [[f"+ {change.text}", change.after, change.ratio, change.after / shipped] for change in changes]
    notes = [] if changes else ["No other setting gave more; the one as shipped stays."]
    return Table(columns, rows, title, notes)
