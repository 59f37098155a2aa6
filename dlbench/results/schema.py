"""The explicit Arrow schema of the store: one row per rank of one attempt.

The columns are the fields of `Record`, `Case`, `Measurement` and (prefixed `system_`) `System`; their types come from
the dataclasses, never from data. Units are in the field metadata. `tests/golden/schema.txt` contains the whole schema,
to detect accidental changes. New columns default to null, so that old parts stay readable.
"""

import dataclasses
import json
from datetime import datetime
from typing import Any

import pyarrow as pa

from dlbench.json_text import dump_json
from dlbench.results.records import SCHEMA_VERSION, Measurement, Record, System
from dlbench.suites.case import Case

_ARROW_TYPES = {
    "str": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "tuple[float, ...]": pa.list_(pa.float64()),
    "tuple[int, ...]": pa.list_(pa.int64()),
    "tuple[str, ...]": pa.list_(pa.string()),
    "dict[str, Any]": pa.string(),  # JSON text
    "Protocol": pa.string(),  # JSON text
}
_UNIT_OF_SUFFIX = {"s": "s", "j": "J", "w": "W", "bytes": "B", "mhz": "MHz", "c": "°C", "flop": "FLOP", "macs": "MAC"}
_TIME_COLUMNS = ("started_at", "finished_at")
_BEFORE_AND_AFTER = ("before", "after")
#: Columns that parts written before 2026-11-28 lack. Add new columns here.
ADDED_LATER = frozenset(
    (
        *("system_job_threads", "system_node_cpu_cores", "system_node_cpu_threads", "system_node_memory_bytes"),
        *("system_cpu_quota", "system_cpu_binding", "network_key", "facts_from"),
        *("sample_unit", "items_per_sample"),
        *("optimizer_impl", "loader", "loader_workers", "data_path"),
        *("data_wait_s", "loader_batch_s", "loader_read_s", "loader_decode_s", "device_step_s"),
        *("loader_cpu_s", "loader_memory_bytes"),
        *("cuda_graph", "cudnn_benchmark_limit", "prefetch", "fold_batch_norm", "freeze", "flush_denormals", "threads"),
        *("fingerprint_deviation", "fingerprint_limit", "fingerprint_of"),
        *(
            f"ecc_{k}_{t}_{w}"
            for k in ("corrected", "uncorrected")
            for t in ("volatile", "aggregate")
            for w in _BEFORE_AND_AFTER
        ),
        *(f"rows_remapped_{kind}_{when}" for kind in ("corrected", "uncorrected") for when in _BEFORE_AND_AFTER),
        *(f"remap_{what}_{when}" for what in ("pending", "failed") for when in _BEFORE_AND_AFTER),
        "xid_events",
        *("power_cap_w", "clock_mhz", "system_firmware"),
    )
)
#: What rows had that were written before there was such a column.
DEFAULTS: dict[str, Any] = {
    f.name: f.default
    for cls in (Case, Measurement)
    for f in dataclasses.fields(cls)
    if f.name in ADDED_LATER and f.default is not None
}


def unit_of_column(column: str) -> str:
    """Return the unit at the end of a column name, or "": ``unit_of_column("step_s") == "s"``."""
    return _UNIT_OF_SUFFIX.get(column.rpartition("_")[2], "")


def _arrow_field(column: str, annotation: str) -> pa.Field:
    if column in _TIME_COLUMNS:
        return pa.field(column, pa.timestamp("ms", tz="UTC"))
    arrow_type = _ARROW_TYPES[annotation.removesuffix(" | None")]
    unit = unit_of_column(column) if arrow_type not in (pa.string(), pa.bool_()) else ""
    return pa.field(column, arrow_type, metadata={"unit": unit} if unit else None)


def arrow_fields_of_dataclass(cls: type, prefix: str = "", without: tuple[str, ...] = ()) -> list[pa.Field]:
    """Return a column for each field of a dataclass, with its unit in the metadata."""
    return [_arrow_field(prefix + f.name, str(f.type)) for f in dataclasses.fields(cls) if f.name not in without]


SCHEMA: pa.Schema = pa.schema(
    arrow_fields_of_dataclass(Record, without=("case", "ranks"))
    + arrow_fields_of_dataclass(Case)
    + arrow_fields_of_dataclass(Measurement)
    + arrow_fields_of_dataclass(System, prefix="system_"),
    metadata={"dlbench_schema_version": str(SCHEMA_VERSION)},
)

#: Text of about 20 kB, equal in many rows: stored once in memory.
LONG_TEXT = "system_details"
#: Types of rows in memory: 64-bit offsets, because 230 000 rows exceed 32 bits.
IN_MEMORY: pa.Schema = pa.schema(
    [f.with_type(pa.dictionary(pa.int32(), pa.large_string())) if f.name == LONG_TEXT else f for f in SCHEMA],
    metadata=SCHEMA.metadata,
)


def record_rows(record: Record) -> list[dict[str, Any]]:
    """Return the rows of one record: one per rank, or one with an empty measurement if no rank reported."""
    head = {f.name: getattr(record, f.name) for f in dataclasses.fields(Record) if f.name not in ("case", "ranks")}
    case = {**record.case, "protocol": json.dumps(record.case.get("protocol", {}), sort_keys=True)}
    return [head | case | _row_of_rank(s, m) for s, m in record.ranks or ((System(), Measurement(rank=0)),)]


def _row_of_rank(system: System, measurement: Measurement) -> dict[str, Any]:
    values = dataclasses.asdict(measurement)
    values |= {f"system_{name}": value for name, value in dataclasses.asdict(system).items()}
    values["system_details"] = dump_json(system.details)
    return values


def to_table(records: list[Record]) -> pa.Table:
    """Convert records to one Arrow table of `SCHEMA`."""
    rows = [row for record in records for row in record_rows(record)]
    for row in rows:
        # Arrow needs datetime objects; JSON has texts.
        row |= {name: datetime.fromisoformat(row[name]) for name in _TIME_COLUMNS if row.get(name)}
    return pa.Table.from_pylist(rows, schema=SCHEMA)
