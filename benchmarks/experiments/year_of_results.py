"""Make a year of made-up daily results: 100 cases on 50 nodes, one file per month, 1.8 million records.

python benchmarks/experiments/year_of_results.py year       # 0.8 GB
/usr/bin/time -v dlbench history year
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[2]))

from dlbench.results.schema import SCHEMA, to_table
from dlbench.suites.case import Case
from tests.fakes import records as fakes

CASES, NODES, DAYS, STEPS = 100, 50, 360, 30
_START = datetime(2025, 1, 1, 5, tzinfo=UTC)


def one_day() -> pa.Table:
    """The rows of a day: each case once on each node."""
    cases = [
        fakes.record(
            Case("resnet50", batch_size=1 + n, device="cuda"), number=n, step_s=fakes.noisy_steps(0.1, STEPS, n)
        )
        for n in range(CASES)
    ]
    rows = to_table([case for case in cases for _ in range(NODES)])
    return with_column(rows, "system_hostname", [f"n{1 + i % NODES}" for i in range(rows.num_rows)])


def of_day(rows: pa.Table, day: int, rng: np.random.Generator) -> pa.Table:
    """The same rows on another day, with other times."""
    when = _START + timedelta(days=day)
    names = [f"{when:%Y%m%dT%H%M%S}-{number:012x}-abcdef" for number in range(rows.num_rows)]
    steps = rows["step_s"].combine_chunks()
    noise = np.repeat(rng.normal(1, 0.01, rows.num_rows), STEPS)
    times = pa.ListArray.from_arrays(steps.offsets, pa.array(steps.flatten().to_numpy() * noise))
    rows = with_column(rows, "step_s", times)
    for name in ("started_at", "finished_at"):
        rows = with_column(rows, name, [when] * rows.num_rows)
    return with_column(rows, "attempt_id", names)


def with_column(rows: pa.Table, name: str, values: object) -> pa.Table:
    """Replace a column."""
    field = SCHEMA.field(name)
    return rows.set_column(rows.schema.get_field_index(name), field, pa.array(values, field.type))


def main() -> None:
    """Write the year into the folder given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new folder")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True)
    rows, rng = one_day(), np.random.default_rng(0)
    months: dict[str, list[int]] = {}
    for day in range(DAYS):
        months.setdefault(f"{_START + timedelta(days=day):%Y-%m}", []).append(day)
    for month, days in months.items():
        with pq.ParquetWriter(folder / f"merged-{month}-{0:012x}.parquet", SCHEMA, compression="zstd") as writer:
            for day in days:
                writer.write_table(of_day(rows, day, rng))


if __name__ == "__main__":
    main()
