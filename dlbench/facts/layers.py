"""The layers of the networks of the catalogue, as counted from the modules and kept in `layers.csv`.

Listing them is fast and needs no torch. `python -m dlbench.worker.counting.layers_table > dlbench/facts/layers.csv`
counts them again.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from dlbench.facts.csv_files import read_csv_rows


@dataclass(frozen=True)
class LayerRow:
    """One layer. MAC and FLOP grow with the images; what is done once for the whole batch is in `..._fixed`.

    The FLOP of a batch of N are N times `..._flop` plus `..._flop_fixed`, as of a product of parameters or of weights
    that are normalised; the bytes are N times `..._bytes_per_image` plus `..._bytes_fixed`. Without recomputation.

    Bytes count every operand and result of the layer's own operations as moved once, in fp32: input, weights and
    output forward; gradients, input and weights backward. Caches may save some, libraries may move more.
    """

    name: str
    kind: str  # conv | conv_transposed | fc | other (such as attention, whose products have no layer of their own)
    M: int | None
    C: int | None
    H: int | None
    W: int | None
    R: int | None
    S: int | None
    P: int | None
    Q: int | None
    groups: int | None
    stride: tuple[int, ...] | None
    padding: tuple[int, ...] | str | None
    weights: int  # without biases
    macs: int
    forward_flop: int
    backward_flop: int  # gradients to the weights and, where one is needed, to the input
    forward_bytes_per_image: int
    forward_bytes_fixed: int
    backward_bytes_per_image: int
    backward_bytes_fixed: int
    forward_flop_fixed: int = 0
    backward_flop_fixed: int = 0
    uncounted: tuple[str, ...] = ()  # names of its operations that may multiply and are not in MACs and FLOP


#: Columns of `layers.csv`: network, whether the layer is training-only, and the fields of a row.
COLUMNS = ("model", "auxiliary", *(field.name for field in dataclasses.fields(LayerRow)))


def catalogue_layers(model: str, auxiliary: bool = False) -> list[LayerRow] | None:
    """The layers of a network in their order, `auxiliary` heads too if asked; None outside the catalogue."""
    rows = [row for row in read_csv_rows("layers.csv") if row["model"] == model]
    return [_parse_layer(row) for row in rows if auxiliary or row["auxiliary"] == "0"] if rows else None


def layer_row_cells(row: LayerRow) -> list[Any]:
    """The cells of one layer in `layers.csv`, behind network and `auxiliary`."""
    values = (getattr(row, field.name) for field in dataclasses.fields(row))
    return [" ".join(map(str, value)) if isinstance(value, tuple) else value for value in values]


def _parse_layer(row: dict[str, str]) -> LayerRow:
    texts = {name: row[name] for name in COLUMNS[2:]}
    values: dict[str, Any] = {name: int(text) if text.isdecimal() else None for name, text in texts.items()}
    for name in ("stride", "padding"):
        numbers = texts[name].split()
        values[name] = tuple(map(int, numbers)) if "".join(numbers).isdecimal() else texts[name] or None
    values |= {"name": texts["name"], "kind": texts["kind"], "uncounted": tuple(texts["uncounted"].split())}
    return LayerRow(**values)
