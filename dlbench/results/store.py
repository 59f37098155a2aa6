"""The store: a folder of Parquet parts, one per attempt, each written once under a name nobody else can choose.

    results/
      <attempt_id>.parquet          rows of one attempt, one per rank
      merged-<digest>.parquet       many attempts, after `dlbench collect --merge`
      ceilings/  profiles/          of another kind, and left out here (see `bounds_schema`)
      attempts/<attempt_id>/        what the attempt left behind (see `dlbench.launch.attempts`)

Any reader of Parquet can open the parts: ``duckdb -c "select * from 'results/*.parquet'"``.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dlbench.errors import StoreError
from dlbench.results.records import FINAL_STATUSES, SCHEMA_VERSION, Record
from dlbench.results.schema import SCHEMA, to_table

if TYPE_CHECKING:
    import pandas as pd


#: Folders inside a store that hold Parquet of another kind (see `bounds_schema`): no cases are looked for in them.
NOT_CASES = frozenset(("ceilings", "profiles"))
#: How the files in them are called.
_NOT_CASES_FILES = ("ceilings-", "allreduce-", "layers.")


_MERGED = "merged-"
#: Rows that are compressed together: a reader of some attempts need not look at the others.
_ROW_GROUP = 4096
#: What to do about a part that cannot be read.
REBUILD = "`dlbench collect` rebuilds it where the attempt's folder is still there"


class SkippedPart(UserWarning):
    """A part of a store could not be read and was passed over; the others were read."""


#: Columns that every version of dlbench writes in every row.
_NEVER_NULL = (
    *("attempt_id", "rank", "status", "started_at"),
    *("model", "mode", "precision", "batch_size", "device", "protocol"),
)


def append(root: Path, record: Record) -> Path:
    """Write one record as a part of its own, whole or not at all; gives the part's path.

    Raises:
        StoreError: the folder cannot be written, or the record holds what its columns cannot.
    """
    try:
        table = to_table([record])
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        raise StoreError(f"cannot store {record.attempt_id}: {error}") from error
    return _write(root / f"{record.attempt_id}.parquet", table)


def attempt_ids(root: Path, thorough: bool = False) -> set[str]:
    """The attempts that the readable Parquet parts of `root` hold; those of a corrupt part are missing here.

    Args:
        thorough: read each part whole, so that damage in any column is found.
    """
    known: set[str] = set()
    for part in parts(root):
        try:
            table = read_part(part) if thorough else read_part(part, ["attempt_id"])
        except StoreError:
            continue  # `read` warns of it
        known.update(table["attempt_id"].to_pylist())
    return known


def final_keys(root: Path) -> set[tuple[str, int, str, str]]:
    """Suite, suite version, case and system of what the Parquet parts of `root` hold as ended."""
    columns = ["suite", "suite_version", "case_id", "system_key", "status", "attempt_id"]
    ended = set()
    for part in parts(root):
        try:
            rows = read_part(part, columns).to_pylist()
        except StoreError:
            continue  # `read` warns of it
        ended |= {
            (row["suite"], row["suite_version"], row["case_id"], row["system_key"] or "")
            for row in rows
            if row.keys() >= set(columns) and row["status"] in FINAL_STATUSES
        }
    return ended


def merge(root: Path) -> Path | None:
    """Put the parts that lie directly in `root` into one, which reads much faster; None when there are fewer than two.

    Parts that hold more than this version knows (other columns, a newer schema) and parts that cannot be read are left
    alone. The merged part is in place before the first small one goes; what a kill leaves between is put right by
    `drop_doubles`.
    """
    found = [(part, table) for part in _own_parts(root) if (table := _read_or_warn(part)) is not None]
    if len(found) < 2:
        return None
    table = _without_doubles(pa.concat_tables([t for _, t in found]))
    names = "\n".join(sorted(set(table["attempt_id"].to_pylist())))
    target = root / f"{_MERGED}{hashlib.sha256(names.encode()).hexdigest()[:12]}.parquet"
    _write(target, table)
    for part, _ in found:
        if part != target:
            part.unlink(missing_ok=True)
    return target


def drop_doubles(root: Path) -> int:
    """Remove the parts whose rows a merged part holds as well: a merge was cut off there. Gives how many they were."""
    held: dict[Path, set[str]] = {}
    for part in _own_parts(root):
        with contextlib.suppress(StoreError):
            held[part] = set(read_part(part)["attempt_id"].to_pylist())
    dropped: set[Path] = set()
    for merged in held:
        if merged.name.startswith(_MERGED) and merged not in dropped:
            dropped |= {part for part in held if part != merged and held[part] <= held[merged]}
    for part in dropped:
        part.unlink(missing_ok=True)
    return len(dropped)


def _own_parts(root: Path) -> list[Path]:
    """The parts directly in `root` that can be written again without loss."""
    own = []
    for part in sorted(root.glob("*.parquet")):
        try:
            schema = pq.read_schema(part)
            newer = not 1 <= _schema_version(part, schema) <= SCHEMA_VERSION
        except (pa.ArrowException, OSError, StoreError):
            continue
        if not part.name.startswith(".") and not newer and set(schema.names) <= set(SCHEMA.names):
            own.append(part)
    return own


def read(sources: str | Path | Sequence[str | Path]) -> pa.Table:
    """All rows of the given files, folders or glob patterns, each row once, in the order of their attempts.

    A part that cannot be read is passed over with a `SkippedPart` warning.

    Raises:
        StoreError: a source does not exist, or is a file that cannot be read.
    """
    if isinstance(sources, str | Path):
        sources = [sources]
    for source in sources:
        if Path(source).is_file():
            read_part(Path(source))  # somebody who names one file wants that one
    tables = [table for s in sources for part in parts(s) if (table := _read_or_warn(part)) is not None]
    if not tables:
        return SCHEMA.empty_table()
    return _without_doubles(pa.concat_tables(tables)).sort_by([("attempt_id", "ascending"), ("rank", "ascending")])


def load(sources: str | Path | Sequence[str | Path] = "results") -> pd.DataFrame:
    """All rows as a pandas DataFrame: one row per rank of each attempt, raw samples as arrays.

    Args:
        sources: a store's folder, a Parquet file, a glob pattern, or several of them.

    Raises:
        StoreError: a source does not exist.
    """
    frame: pd.DataFrame = read(sources).to_pandas()
    return frame


def parts(source: str | Path) -> list[Path]:
    """The Parquet files that `source` names: itself, those inside the folder, or those matching the pattern.

    Raises:
        StoreError: nothing is there.
    """
    if source == "":
        raise StoreError("no results at '': the name is empty; '.' is the folder that you are in")
    path = Path(source)
    if path.is_dir():
        found = (p for p in path.rglob("*.parquet") if not p.name.startswith("."))
        return sorted(p for p in found if not (NOT_CASES.intersection(p.relative_to(path).parts) or _no_cases(p)))
    if path.is_file():
        return [path]
    # Not pathlib's: that takes no absolute patterns.
    matching = sorted(glob.glob(str(source), recursive=True))  # noqa: PTH207
    if not matching:
        raise StoreError(f"no results at '{source}': no such file or folder; `dlbench run` makes one")
    return [part for match in matching if not _no_cases(Path(match)) for part in parts(match)]


def _no_cases(file: Path) -> bool:
    """Whether this is a file of ceilings or profiles, which a pattern or the name of their folder may lead to."""
    return file.name.startswith(_NOT_CASES_FILES) and not NOT_CASES.isdisjoint(file.parts)


def read_part(part: Path, columns: Iterable[str] | None = None) -> pa.Table:
    """One part in the current schema: columns that it lacks are null.

    Raises:
        StoreError: the file is corrupt, or is not one of ours.
    """
    try:
        table = pq.ParquetFile(part).read(columns=list(columns) if columns else None)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(part, error) from error
    if "attempt_id" not in table.column_names:
        raise not_ours(part)
    if columns:
        return table
    newer = remark(part, table.schema)
    if newer:
        warnings.warn(newer, SkippedPart, stacklevel=3)
    return fitted(part, table, SCHEMA)


def unreadable(part: Path, error: Exception) -> StoreError:
    """The error that says why a part cannot be read."""
    return StoreError(f"cannot read {part}: {(str(error).splitlines() or [type(error).__name__])[0]}")


def not_ours(part: Path) -> StoreError:
    """The error about a Parquet file that is somebody else's."""
    return StoreError(f"cannot read {part}: it has no column 'attempt_id', so it is no part of a dlbench store")


def remark(part: Path, schema: pa.Schema) -> str:
    """What a reader should know of a part with this schema: that it is newer than this dlbench; "" where nothing.

    Raises:
        StoreError: its version is no number.
    """
    version = _schema_version(part, schema)
    if version <= SCHEMA_VERSION:
        return ""
    return f"{part} has schema {version}, newer than this dlbench's {SCHEMA_VERSION}: columns it adds are not read"


def fitted(part: Path, table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with the columns of `schema` in their current types: those that it lacks are null.

    Raises:
        StoreError: a column holds what its current type cannot, or a row does not say what was measured.
    """
    for name in _NEVER_NULL:
        if name in table.column_names and table[name].null_count:
            raise StoreError(f"cannot read {part}: it has rows without a value of '{name}'")
    if table.schema.equals(schema):
        return table
    present = set(table.column_names)
    try:
        columns = [
            table[f.name].cast(f.type) if f.name in present else pa.nulls(table.num_rows, f.type) for f in schema
        ]
    except pa.ArrowException as error:
        raise unreadable(part, error) from error
    return pa.table(columns, schema=schema)


def _schema_version(part: Path, schema: pa.Schema) -> int:
    text = (schema.metadata or {}).get(b"dlbench_schema_version", b"0")
    try:
        return int(text)
    except ValueError:
        raise StoreError(f"cannot read {part}: its schema version is {text!r}") from None


def _read_or_warn(part: Path) -> pa.Table | None:
    try:
        return read_part(part)
    except StoreError as error:
        warnings.warn(f"{error}; passed over; {REBUILD}", SkippedPart, stacklevel=3)
        return None


def _without_doubles(table: pa.Table) -> pa.Table:
    """Of the rows with the same attempt and rank the first."""
    # Only the keys are grouped: the samples stay where they are unless there is a double.
    keys = table.select(["attempt_id", "rank"]).append_column("index", pa.array(range(table.num_rows), pa.int64()))
    first = keys.group_by(["attempt_id", "rank"]).aggregate([("index", "min")])["index_min"]
    return table if len(first) == table.num_rows else table.take(first.take(pc.sort_indices(first)))


def _write(target: Path, table: pa.Table) -> Path:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd", row_group_size=_ROW_GROUP)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StoreError(f"cannot write {target}: {error.strerror or error}") from error
    return target
