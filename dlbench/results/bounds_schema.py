"""Ceilings and profiled layers in Parquet: explicit Arrow schema, raw samples and derived values.

    results/ceilings/ceilings-<id>.parquet      one row per operation and shape
    results/ceilings/allreduce-<id>.parquet     one row per message size
    results/profiles/<id>/layers.parquet        one row per layer

They are in separate folders, which readers of case records skip.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dlbench.errors import StoreError
from dlbench.results import bounds_records
from dlbench.results.parts import SkippedPart, path_text, unreadable_part_error, write_part
from dlbench.results.row_validation import CONVERSION_ERRORS
from dlbench.results.schema import arrow_fields_of_dataclass

if TYPE_CHECKING:
    import pandas as pd

CEILINGS_FOLDER = "ceilings"
PROFILES_FOLDER = "profiles"
#: A sample faster than the median by more than this factor is a clock error and is ignored.
_GLITCH_FACTOR = 2

_RUN_FIELDS: list[pa.Field] = [
    pa.field("run_id", pa.string()),
    pa.field("started_at", pa.timestamp("ms", tz="UTC")),
    *arrow_fields_of_dataclass(bounds_records.DeviceIdentity),
]
_VERSION_METADATA = {"dlbench_bounds_version": str(bounds_records.BOUNDS_VERSION)}


def _rate_fields(unit: str, *names: str) -> list[pa.Field]:
    return [pa.field(name, pa.float64(), metadata={"unit": unit}) for name in names]


#: Rates of the fastest valid sample and of the median sample; `spread` is interquartile range over median.
CEILINGS_SCHEMA: pa.Schema = pa.schema(
    [
        *_RUN_FIELDS,
        *arrow_fields_of_dataclass(bounds_records.Ceiling),
        *_rate_fields("FLOP/s", "best_flop_per_s", "median_flop_per_s"),
        *_rate_fields("B/s", "best_bytes_per_s", "median_bytes_per_s"),
        pa.field("spread", pa.float64()),
        pa.field("busy_share", pa.float64()),
    ],
    metadata=_VERSION_METADATA,
)
#: Columns that older files lack.
_COLUMNS_ADDED_LATER = {"busy_share", "note", "weights", "save_weights", "network_key"}

#: Bandwidths as in nccl-tests: message size over time (algorithm), and that times 2(n-1)/n (bus).
ALL_REDUCE_SCHEMA: pa.Schema = pa.schema(
    [
        *_RUN_FIELDS,
        *(pa.field(n, pa.int64()) for n in ("nodes", "ranks")),
        *(pa.field(n, pa.string()) for n in ("backend", "transport", "warning")),
        *arrow_fields_of_dataclass(bounds_records.AllReduce),
        pa.field("median_s", pa.float64(), metadata={"unit": "s"}),
        *_rate_fields("B/s", "algorithm_bytes_per_s", "bus_bytes_per_s"),
    ],
    metadata=_VERSION_METADATA,
)

_CASE_COLUMNS = ("model", "mode", "precision", "memory_format", "optimizer")
LAYERS_SCHEMA: pa.Schema = pa.schema(
    [
        *_RUN_FIELDS,
        *(pa.field(n, pa.string()) for n in _CASE_COLUMNS),
        pa.field("batch_size", pa.int64()),
        *arrow_fields_of_dataclass(bounds_records.LayerTime),
        pa.field("network_key", pa.string()),
    ],
    metadata=_VERSION_METADATA,
)


def write_ceilings(root: Path, run: bounds_records.CeilingRun) -> Path:
    """Write one run to the results folder `root`; return the file. Raises StoreError if it cannot be written."""
    return write_part(root / CEILINGS_FOLDER / f"ceilings-{run.run_id}.parquet", _ceilings_table(run))


def write_all_reduces(root: Path, run: bounds_records.AllReduceRun) -> Path:
    """Write one run to the results folder `root`; return the file. Raises StoreError if it cannot be written."""
    target = root / CEILINGS_FOLDER / f"allreduce-{run.run_id}.parquet"
    return write_part(target, pa.Table.from_pylist(_all_reduce_rows(run), schema=ALL_REDUCE_SCHEMA))


def write_layers(folder: Path, run: bounds_records.ProfileRun) -> Path:
    """Write the layers of a profile to `layers.parquet` in its folder; return it. Raises StoreError if that fails."""
    case = {name: run.case.get(name) for name in (*_CASE_COLUMNS, "batch_size")}
    case["network_key"] = run.network_key
    rows = [_common_run_columns(run) | case | dataclasses.asdict(layer) for layer in run.layers]
    return write_part(folder / "layers.parquet", pa.Table.from_pylist(rows, schema=LAYERS_SCHEMA))


def read_ceilings(root: Path) -> pd.DataFrame:
    """Read all rows of all runs in the results folder `root`, as `read_run_frame` does; it may have none."""
    return read_run_frame(sorted((root / CEILINGS_FOLDER).glob("ceilings-*.parquet")), CEILINGS_SCHEMA)


def read_run_table(
    files: Sequence[Path], schema: pa.Schema, check: Callable[[pa.Table], None] = lambda _: None
) -> pa.Table:
    """Read the rows of all files of one kind; columns of `schema` that were added later may be missing.

    A file that cannot be read, is of another kind or fails `check` (by a ValueError) is skipped with a `SkippedPart`
    warning.
    """
    tables = []
    for file in files:
        try:
            tables.append(_read_checked_table(file, schema, check))
        except StoreError as error:
            warnings.warn(f"{error}; skipped", SkippedPart, stacklevel=3)
    return pa.concat_tables(tables or [schema.empty_table()])


def read_run_frame(files: Sequence[Path], schema: pa.Schema) -> pd.DataFrame:
    """Read as `read_run_table` does, to a frame, in which whole numbers with missing values are floats."""
    frame: pd.DataFrame = read_run_table(files, schema).to_pandas()
    return frame


def layers_frame(layers: tuple[bounds_records.LayerTime, ...]) -> pd.DataFrame:
    """Convert layers to a frame with the columns of `LayerTime`."""
    names = {f.name for f in dataclasses.fields(bounds_records.LayerTime)}
    schema = pa.schema([f for f in LAYERS_SCHEMA if f.name in names])
    frame: pd.DataFrame = pa.Table.from_pylist([dataclasses.asdict(x) for x in layers], schema=schema).to_pandas()
    return frame


def ceilings_frame(run: bounds_records.CeilingRun) -> pd.DataFrame:
    """Convert one run to the frame that `read_ceilings` returns."""
    frame: pd.DataFrame = _ceilings_table(run).to_pandas()
    return frame


def _ceilings_table(run: bounds_records.CeilingRun) -> pa.Table:
    rows = [
        _common_run_columns(run) | _ceiling_row(ceiling) | {"busy_share": run.busy_share} for ceiling in run.ceilings
    ]
    return pa.Table.from_pylist(rows, schema=CEILINGS_SCHEMA)


def _all_reduce_rows(run: bounds_records.AllReduceRun) -> list[dict[str, Any]]:
    head = _common_run_columns(run) | {
        n: getattr(run, n) for n in ("nodes", "ranks", "backend", "transport", "warning")
    }
    rows = []
    for size in run.sizes:
        row = head | dataclasses.asdict(size)
        times = _valid_time_samples(size.time_s)
        if times:
            median_s = statistics.median(times)
            row |= {"median_s": median_s, "algorithm_bytes_per_s": size.size_bytes / median_s}
            row["bus_bytes_per_s"] = bus_bandwidth(size.size_bytes, median_s, run.ranks)
        rows.append(row)
    return rows


def bus_bandwidth(size_bytes: int, time_s: float, ranks: int) -> float | None:
    """Return the bus bandwidth [B/s] of an all-reduce: 2(n-1)/n of the message over the time; None for one rank."""
    return None if ranks == 1 else size_bytes / time_s * 2 * (ranks - 1) / ranks


def _common_run_columns(
    run: bounds_records.CeilingRun | bounds_records.ProfileRun | bounds_records.AllReduceRun,
) -> dict[str, Any]:
    started_at = datetime.fromisoformat(run.started_at) if run.started_at else None
    return {"run_id": run.run_id, "started_at": started_at, **dataclasses.asdict(run.where)}


def _ceiling_row(ceiling: bounds_records.Ceiling) -> dict[str, Any]:
    row = dataclasses.asdict(ceiling)
    times = _valid_time_samples(ceiling.time_s)
    if not times:
        return row | {"error": ceiling.error or "no usable sample"}
    median = statistics.median(times)
    best = min(t for t in times if t * _GLITCH_FACTOR >= median)
    for name in ("flop", "bytes"):
        work = row[name]
        row[f"best_{name}_per_s"] = None if work is None else work / best
        row[f"median_{name}_per_s"] = None if work is None else work / median
    if len(times) > 1:
        quartiles = statistics.quantiles(times, n=4, method="inclusive")
        row["spread"] = (quartiles[2] - quartiles[0]) / median
    return row


def _valid_time_samples(times_s: Sequence[float | None]) -> list[float]:
    """Return the valid samples: positive and finite, so that no rate is infinite."""
    return [t for t in times_s if t is not None and math.isfinite(t) and t > 0]


def _read_checked_table(file: Path, schema: pa.Schema, check: Callable[[pa.Table], None]) -> pa.Table:
    try:
        if not file.is_file():
            raise StoreError(f"cannot read {path_text(file)}: it is not a file")
        table = pq.ParquetFile(file).read()
        for name in _COLUMNS_ADDED_LATER.intersection(schema.names).difference(table.column_names):
            table = table.append_column(name, pa.nulls(len(table), schema.field(name).type))
        whole = pa.table([table[f.name].cast(f.type) for f in schema], schema=schema)
        whole.validate(full=True)  # the only check that texts are UTF-8
        check(whole)
        return whole
    except (*CONVERSION_ERRORS, KeyError) as error:
        raise unreadable_part_error(file, error) from error
