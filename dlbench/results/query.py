"""SQL queries on a store by DuckDB, which can access only the given tables: no files, no network."""

import datetime
import decimal
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
from pyarrow import dataset

from dlbench.errors import BadInput
from dlbench.results import bounds_schema, bounds_store, store
from dlbench.results.reader import StoreReader
from dlbench.results.schema import IN_MEMORY, SCHEMA

#: Tables, and the meaning of one row.
VIEWS = {
    "records": "one row per rank of each attempt, raw samples as lists",
    "ceilings": "one row per operation and shape that `dlbench ceilings` measured",
    "all_reduces": "one row per message size that `dlbench allreduce` measured",
    "layers": "one row per layer that `dlbench profile` measured",
    "left_out": "one row per reason for which rows are left out of the table records, with the number of these rows",
}


LEFT_OUT_VIEW = "left_out"
_T = TypeVar("_T")
#: Settings that block access to files and to variables of this program; a statement cannot change them.
_DUCKDB_SETTINGS = (
    "TimeZone = 'UTC'",
    "enable_external_access = false",
    "python_enable_replacements = false",
    "lock_configuration = true",
)


def query(sql: str, sources: Sequence[str | Path]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run DuckDB's SQL over the views of `VIEWS`; return column names and rows (of the last statement).

    Raises StoreError if a source does not exist, BadInput for an SQL error, or no statement.
    """
    return _run_sql(sql, sources, _to_python_rows)


def query_as_arrow_table(sql: str, sources: Sequence[str | Path]) -> pa.Table:
    """Run `sql` on all records, read in pieces; return an Arrow table. Raises StoreError if a source does not exist."""
    return _run_sql(sql, sources, lambda table: table)


def _run_sql(sql: str, sources: Sequence[str | Path], convert: Callable[[pa.Table], _T]) -> _T:
    """Run `sql`; return the converted result of its last statement. Values that cannot be converted are bad input."""
    connection = duckdb.connect(":memory:")
    views = _tables_by_view_name(sources)
    for name, view in views.items():
        connection.register(name, view)
    # All keys are read once more for it.
    if LEFT_OUT_VIEW in sql.lower():
        connection.register(LEFT_OUT_VIEW, _count_left_out_rows(sources))
    for setting in _DUCKDB_SETTINGS:
        connection.execute(f"SET {setting}")
    try:
        found = connection.sql(sql)
        answer = None if found is None else convert(found.to_arrow_table())
    except (duckdb.Error, pa.ArrowException, OverflowError, ValueError) as error:
        raise BadInput(f"SQL error: {' '.join(str(error).split())[:500]}") from error
    except RuntimeError as error:
        if "interrupted" in str(error).lower():
            raise KeyboardInterrupt from error
        raise
    finally:
        connection.close()
    store.warn_about_skipped_parts(list(dict.fromkeys(views["records"].problems)))
    if answer is None:
        raise BadInput(f"the query {sql!r} contains no statement; tables: {', '.join(VIEWS)}")
    return answer


def _to_python_rows(table: pa.Table) -> tuple[list[str], list[tuple[Any, ...]]]:
    # Python cannot represent some values of DuckDB, such as the date "infinity".
    columns = [[_to_json_type(value) for value in column.to_pylist()] for column in table.columns]
    return table.column_names, list(zip(*columns, strict=True))


class _RecordSource(dataset.Dataset):  # type: ignore[misc]  # pyarrow has no types
    """Rows of stores, which DuckDB reads in pieces and only in the columns it needs."""

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader

    @property
    def problems(self) -> list[str]:
        return self._reader.problems

    @property
    def schema(self) -> pa.Schema:
        return IN_MEMORY

    def scanner(self, columns: Sequence[str] | None = None, filter: Any = None, **_: Any) -> dataset.Scanner:
        """Return the rows with these columns; `filter` may use other columns."""
        # All column names that occur in the text of the filter.
        words = set(re.findall(r"\w+", str(filter))) if filter is not None else set()
        names = [name for name in SCHEMA.names if columns is None or name in columns or name in words]
        schema = pa.schema([IN_MEMORY.field(name) for name in names])
        batches = (
            batch
            for table in self._reader.attempt_tables(names)
            for batch in table.select(names).cast(schema).to_batches()
        )
        rows = pa.RecordBatchReader.from_batches(schema, batches)
        return dataset.Scanner.from_batches(rows, columns=list(columns) if columns else None, filter=filter)


def _tables_by_view_name(sources: Sequence[str | Path]) -> dict[str, Any]:
    ceilings, all_reduces = bounds_store.read_bounds_tables(sources)
    folders = [Path(source) for source in sources if Path(source).is_dir()]
    layers = sorted({file for f in folders for file in f.rglob(f"{bounds_schema.PROFILES_FOLDER}/*/layers.parquet")})
    return {
        "records": _RecordSource(StoreReader.from_sources(sources)),
        "ceilings": ceilings,
        "all_reduces": all_reduces,
        "layers": bounds_schema.read_run_table(layers, bounds_schema.LAYERS_SCHEMA),
    }


def _count_left_out_rows(sources: Sequence[str | Path]) -> pa.Table:
    """Count the rows of the files that are missing in records, by reason."""
    reader = StoreReader.from_sources(sources)
    for _ in reader.attempt_batches(()):
        pass
    counts = {"copies": reader.num_copies, "passed over": reader.num_rows - reader.num_held}
    return pa.table({"reason": list(counts), "rows": list(counts.values())})


def _to_json_type(value: Any) -> Any:
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return int(value) if value == int(value) else float(value)
    if isinstance(value, list | tuple):
        return [_to_json_type(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _to_json_type(v) for k, v in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else str(value)
