"""The catalogue of networks as a table; needs no install."""

from __future__ import annotations

from dlbench.suites.catalog import CATALOG
from dlbench.table import Cell, Column, Table, quantity_format


def models_table() -> Table:
    """One row per network of the catalogue."""
    columns = [
        Column("name", "model"),
        Column("title", "network"),
        Column("input", align="right"),
        Column("inference_parameters", "parameters", "right", quantity_format("")),
        Column("parameters", "in training", "right", quantity_format("")),
        Column("forward_macs", "MACs", "right", quantity_format("MAC")),
        Column("training_flop", "FLOP fwd+bwd", "right", quantity_format("FLOP")),
        Column("source"),
    ]
    rows: list[list[Cell]] = [
        [
            *(m.name, m.title, "x".join(map(str, m.input_shape)), m.inference_parameters, m.parameters),
            *(m.forward_macs, m.training_flop, m.source),
        ]
        for m in CATALOG.values()
    ]
    notes = [
        "Per image or sequence. Biases count as parameters. In training, GoogLeNet has two additional auxiliary heads.",
        "Also available: every torchvision and timm classification model by its name (`dlbench models --all`), and "
        "your own networks as package.module:factory.",
    ]
    return Table(columns, rows, "Networks of the catalogue", notes)
