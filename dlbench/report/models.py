"""The catalogue of networks as a table; needs no install."""

from __future__ import annotations

from dlbench import units
from dlbench.report.render import Cell, Column, Table
from dlbench.spec.catalog import CATALOG


def models_table() -> Table:
    """One row per network of the catalogue."""
    columns = [
        Column("name", "model"),
        Column("title", "network"),
        Column("input", align="right"),
        Column("parameters", align="right", show=lambda c: units.quantity(_number(c), "")),
        Column("forward_macs", "MACs", "right", lambda c: units.quantity(_number(c), "MAC")),
        Column("training_flop", "FLOP fwd+bwd", "right", lambda c: units.quantity(_number(c), "FLOP")),
        Column("source"),
    ]
    rows: list[list[Cell]] = [
        [m.name, m.title, "x".join(map(str, m.input_shape)), m.parameters, m.forward_macs, m.training_flop, m.source]
        for m in CATALOG.values()
    ]
    notes = [
        "Per image. Besides: every torchvision and timm classification model by its name (`dlbench models --all`),",
        "and your own as package.module:factory.",
    ]
    return Table(columns, rows, "Networks of the catalogue", notes)


def _number(cell: Cell) -> float | None:
    return float(cell) if isinstance(cell, int | float) else None
