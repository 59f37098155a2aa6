"""Counts the layers of all networks of the catalogue: `python -m dlbench.worker.counting.layers_table` prints
`dlbench/facts/layers.csv`."""

import csv
import sys
from collections.abc import Iterator
from typing import Any

from dlbench.facts.layers import COLUMNS, layer_row_cells
from dlbench.suites.catalog import CATALOG
from dlbench.worker.counting.layers import layers


def layer_rows(model: str) -> Iterator[list[Any]]:
    """Return the rows of one network, with training-only layers."""
    main = {row.name for row in layers(model)}
    for row in layers(model, auxiliary=True):
        yield [model, int(row.name not in main), *layer_row_cells(row)]


def main() -> None:
    """Print the table."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for model in CATALOG:
        writer.writerows(layer_rows(model))


if __name__ == "__main__":
    main()
