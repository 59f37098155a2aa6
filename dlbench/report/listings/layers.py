"""The layers of one network as a table, from rows that a worker's counting gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dlbench import units
from dlbench.facts import counted
from dlbench.table import Cell, Column, Table, bytes_of, quantity_of


class Layer(counted.LayerRow, Protocol):
    """What the table needs of a row of `dlbench.worker.counting.layers`, besides the letters."""

    @property
    def name(self) -> str:
        """The path of its module."""

    @property
    def stride(self) -> tuple[int, ...] | None:
        """Along each spatial axis; None where the layer has none."""

    @property
    def forward_flop(self) -> int:
        """Per image."""

    @property
    def backward_flop(self) -> int:
        """Per image."""

    @property
    def forward_flop_fixed(self) -> int:
        """What is done once for the whole batch."""

    @property
    def backward_flop_fixed(self) -> int:
        """What is done once for the whole batch."""

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Names of operations that are not in MACs and FLOP."""

    @property
    def forward_bytes_per_image(self) -> int:
        """What is moved for each image of a batch."""

    @property
    def forward_bytes_fixed(self) -> int:
        """What is moved once for the whole batch."""

    @property
    def backward_bytes_per_image(self) -> int:
        """What is moved for each image of a batch."""

    @property
    def backward_bytes_fixed(self) -> int:
        """What is moved once for the whole batch."""


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
        Column("forward_flop", "FLOP fwd", "right", quantity_of("FLOP")),
        Column("backward_flop", "FLOP bwd", "right", quantity_of("FLOP")),
        Column("forward_bytes", "bytes fwd", "right", bytes_of),
        Column("backward_bytes", "bytes bwd", "right", bytes_of),
    ]
    cells: list[list[Cell]] = [
        [
            row.name,
            row.kind,
            *(getattr(row, letter) for letter in _LETTERS),
            _stride(row.stride),
            row.weights,
            *(
                work or None if row.uncounted else work
                for work in (
                    row.macs + row.forward_flop_fixed // 2,
                    row.forward_flop + row.forward_flop_fixed,
                    row.backward_flop + row.backward_flop_fixed,
                )
            ),
            row.forward_bytes_per_image + row.forward_bytes_fixed,
            row.backward_bytes_per_image + row.backward_bytes_fixed,
        ]
        for row in rows
    ]
    first_sum = 3 + len(_LETTERS)
    partial = {row.name or "the network itself": ", ".join(row.uncounted) for row in rows if row.uncounted}
    sums: list[Cell] = [sum(int(row[i] or 0) for row in cells) for i in range(first_sum, len(columns))]
    # A sum of nothing but what is not counted is missing as well.
    known = [any(row[i] is not None for row in cells) for i in range(first_sum, len(columns))]
    sums = [total if has or not partial else None for total, has in zip(sums, known, strict=True)]
    cells.append(["total", None, *[None] * len(_LETTERS), None, *sums])
    if partial:
        columns.append(Column("uncounted", "not counted", "left"))
        names = [*(", ".join(row.uncounted) or None for row in rows), ", ".join(dict.fromkeys(partial.values()))]
        cells = [[*row, name] for row, name in zip(cells, names, strict=True)]
    notes = [
        "Per image, without biases. M filters, C input channels, H x W input, R x S filter, P x Q output.",
        "FLOP = 2 x MAC. Bytes: every operand and result once, fp32, batch of one image.",
    ]
    if partial:
        notes.append("Not counted: these operations may multiply too; MACs and FLOP of their rows are lower bounds.")
    return Table(columns, cells, f"{model}: {units.counted(len(rows), 'layer')}", notes)


def _stride(stride: tuple[int, ...] | None) -> Cell:
    if stride is None or len(set(stride)) == 1:
        return stride[0] if stride else None
    return "x".join(map(str, stride))
