"""The layers of one network as a table, from rows that a worker's counting gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dlbench import units
from dlbench.report.render import Cell, Column, Table


class Layer(Protocol):
    """What the table needs of a row of `dlbench.worker.layers`."""

    name: str
    kind: str
    stride: tuple[int, ...] | None
    weights: int
    macs: int
    forward_flop: int
    backward_flop: int
    forward_bytes_per_image: int
    forward_bytes_fixed: int
    backward_bytes_per_image: int
    backward_bytes_fixed: int


_LETTERS = ("M", "C", "H", "W", "R", "S", "P", "Q", "groups")


def layers_table(model: str, rows: Sequence[Layer]) -> Table:
    """One row per layer and a last one with the sums; work and bytes are those of one image."""
    columns = [
        Column("name", "layer", "left"),
        Column("kind"),
        *(Column(letter, align="right") for letter in _LETTERS),
        Column("stride", align="right"),
        Column("weights", align="right"),
        Column("macs", "MACs", "right"),
        Column("forward_flop", "FLOP fwd", "right", lambda c: units.quantity(_number(c), "FLOP")),
        Column("backward_flop", "FLOP bwd", "right", lambda c: units.quantity(_number(c), "FLOP")),
        Column("forward_bytes", "bytes fwd", "right", lambda c: units.bytes_(_number(c))),
        Column("backward_bytes", "bytes bwd", "right", lambda c: units.bytes_(_number(c))),
    ]
    cells: list[list[Cell]] = [
        [
            row.name,
            row.kind,
            *(getattr(row, letter) for letter in _LETTERS),
            None if row.stride is None else row.stride[0] if len(set(row.stride)) == 1 else "x".join(map(str, row.stride)),
            row.weights,
            row.macs,
            row.forward_flop,
            row.backward_flop,
            row.forward_bytes_per_image + row.forward_bytes_fixed,
            row.backward_bytes_per_image + row.backward_bytes_fixed,
        ]
        for row in rows
    ]
    first_sum = 3 + len(_LETTERS)
    sums = [sum(int(row[i] or 0) for row in cells) for i in range(first_sum, len(columns))]
    cells.append(["total", None, *[None] * len(_LETTERS), None, *sums])
    notes = [
        "Per image, without biases. M filters, C input channels, H x W input, R x S filter, P x Q output.",
        "FLOP = 2 x MAC. Bytes: every operand and result once, fp32, batch of one image.",
    ]
    return Table(columns, cells, f"{model}: {len(rows)} layers", notes)


def _number(cell: Cell) -> float | None:
    return float(cell) if isinstance(cell, int | float) else None
