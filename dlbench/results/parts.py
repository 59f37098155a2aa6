"""The Parquet files of a store: which there are, what is in one, and how one is written."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dlbench.errors import StoreError
from dlbench.results.records import SCHEMA_VERSION
from dlbench.results.schema import SCHEMA

#: Folders inside a store that hold Parquet of another kind (see `bounds_schema`): no cases are looked for in them.
NOT_CASES = frozenset(("ceilings", "profiles"))
#: How the files in them are called.
_NOT_CASES_FILES = ("ceilings-", "allreduce-", "layers.")
#: Rows that are compressed together: a reader of some attempts need not look at the others.
ROW_GROUP = 4096
#: What to do about a part that cannot be read.
REBUILD = "`dlbench collect` rebuilds it where the attempt's folder is still there"
#: Columns that every version of dlbench writes in every row.
_NEVER_NULL = (
    *("attempt_id", "rank", "status", "started_at"),
    *("model", "mode", "precision", "batch_size", "device", "protocol"),
)
#: Key of the file's metadata under which `dlbench run` and `collect` sign the parts that they write.
_MARK = b"dlbench_part"


class SkippedPart(UserWarning):
    """A part of a store could not be read and was passed over; the others were read."""


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


def is_marked(part: Path) -> bool:
    """Whether `dlbench run` or `collect` wrote this very file: only such a one may they ever delete.

    The mark holds for a name, a number of rows and a list of columns, since programs that rewrite or copy a file take
    over its metadata.
    """
    try:
        metadata = pq.read_metadata(part)
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError):
        return False
    return bool((schema.metadata or {}).get(_MARK) == _mark(part.name, metadata.num_rows, schema.names))


def _mark(name: str, num_rows: int, columns: Sequence[str]) -> bytes:
    return hashlib.sha256("\n".join((name, str(num_rows), *columns)).encode()).hexdigest()[:16].encode()


def marked(schema: pa.Schema, name: str, num_rows: int) -> pa.Schema:
    """The schema of a part that `is_marked`."""
    return schema.with_metadata({**(schema.metadata or {}), _MARK: _mark(name, num_rows, schema.names)})


def write(target: Path, table: pa.Table) -> Path:
    """Write a Parquet file, whole or not at all; gives its path.

    Raises:
        StoreError: the file cannot be written.
    """
    with writing(target) as file:
        pq.write_table(table, file, compression="zstd", row_group_size=ROW_GROUP)
    return target


@contextlib.contextmanager
def writing(target: Path) -> Iterator[IO[Any]]:
    """A file that becomes `target` when all went well, and is gone when not.

    Raises:
        StoreError: the file cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
