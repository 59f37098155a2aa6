"""The CSV files of this folder; `dlbench/facts/README.md` lists their sources."""

import csv
from pathlib import Path


def read_csv_rows(name: str) -> list[dict[str, str]]:
    """Read the rows of a CSV file of this folder; an empty text is a figure that the source does not give."""
    with (Path(__file__).parent / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
