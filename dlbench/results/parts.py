"""The Parquet files of a store: find, open, check and write them."""

import contextlib
import errno
import glob
import hashlib
import os
import stat
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from dlbench.atomic_file import temporary_name
from dlbench.errors import StoreError, convert_write_errors
from dlbench.results.records import SCHEMA_VERSION
from dlbench.results.row_validation import (
    CHECKED_COLUMNS,
    CONVERSION_ERRORS,
    REQUIRED_COLUMNS,
    drop_invalid_attempts,
    fit_to_schema,
)
from dlbench.results.schema import SCHEMA
from dlbench.safe_names import short_repr

#: Folders in a store with other Parquet tables (`bounds_schema`, `training_store`), which are not searched for cases.
NON_CASE_FOLDERS = frozenset(("ceilings", "profiles", "trainings"))
#: Names of the files in them.
_NON_CASE_PREFIXES = ("ceilings-", "allreduce-", "layers.", "training-")
#: Folders without parts, possibly with many files.
_FOLDERS_WITHOUT_PARTS = NON_CASE_FOLDERS | {"attempts", "jobs", "claims"}
#: Rows per row group: readers of some attempts skip other groups.
ROW_GROUP = 4096
#: Advice about a part that cannot be read.
REBUILD_ADVICE = "run `dlbench collect` to rebuild it if the attempt folder still exists"
#: Compression of a part of one attempt. To set up zstd for each column takes 40 % of the time to read such a part.
ONE_ATTEMPT_CODEC = "snappy"
#: Metadata key of the signature of parts written by `dlbench run` and `collect`.
SIGNATURE_KEY = b"dlbench_part"
#: Columns of the schema in their order; `SCHEMA.names` makes a list at each access.
_COLUMNS = dict.fromkeys(SCHEMA.names)
#: Rows in memory at a time where a part is read in pieces.
_ROWS_PER_PIECE = 1024


class SkippedPart(UserWarning):
    """A part of a store could not be read and was skipped; the others were read."""


def find_parts_with_warnings(source: str | Path) -> list[Path]:
    """Return the Parquet files of `source`, as `find_parts` does; a `SkippedPart` warning lists unreadable ones."""
    found, problems = find_parts(source)
    for problem in problems:
        warnings.warn(problem, SkippedPart, stacklevel=2)
    return found


def find_parts(source: str | Path) -> tuple[list[Path], list[str]]:
    """Return the Parquet files of `source` (a file, a folder or a pattern), and descriptions of unreadable ones.

    Raises StoreError if nothing is there.
    """
    if source == "":
        raise StoreError("no results at '': the path is empty; use '.' for the current folder")
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise StoreError(f"cannot read {path_text(path)}: {error.strerror}") from None
        return _find_parts_by_pattern(str(source))
    if stat.S_ISDIR(mode):
        return _parts_in_folder(path)
    if not stat.S_ISREG(mode):
        raise StoreError(f"cannot read {path_text(path)}: it is neither a file nor a folder")
    return [path], []


def _find_parts_by_pattern(pattern: str) -> tuple[list[Path], list[str]]:
    # glob instead of pathlib, which rejects absolute patterns.
    matching = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else []  # noqa: PTH207
    if not matching:
        raise StoreError(
            f"no results at '{path_text(Path(pattern))}': it does not exist; run `dlbench run quick` first"
        )
    found: list[Path] = []
    problems: list[str] = []
    for match in matching:
        if not _is_bounds_or_training_file(Path(match)):
            try:
                more, others = find_parts(match)
                found += more
                problems += others
            except StoreError as error:
                problems.append(f"{error}; skipped")
    return found, problems


def _parts_in_folder(folder: Path) -> tuple[list[Path], list[str]]:
    found: list[Path] = []
    problems: list[str] = []

    def report_unreadable_folder(error: OSError) -> None:
        problems.append(f"cannot read {path_text(Path(str(error.filename)))}: {error.strerror}; skipped")

    for place, folders, files in os.walk(folder, onerror=report_unreadable_folder):
        folders[:] = [name for name in folders if name not in _FOLDERS_WITHOUT_PARTS]
        for name in files:
            file = Path(place, name)
            if not name.endswith(".parquet") or name.startswith(".") or _is_bounds_or_training_file(file):
                continue
            if file.is_file():
                found.append(file)
            else:
                problems.append(f"cannot read {path_text(file)}: it is a broken link, or not a regular file; skipped")
    return sorted(found), problems


def path_text(path: Path) -> str:
    """Format a path for a message, on one line, with any bytes."""
    return "".join(c if c.isprintable() else "?" for c in str(path))


def _is_bounds_or_training_file(file: Path) -> bool:
    """Whether this is a file of ceilings, profiles or trainings, which a pattern can also match."""
    return file.name.startswith(_NON_CASE_PREFIXES) and not NON_CASE_FOLDERS.isdisjoint(file.parts)


@dataclass(frozen=True)
class OpenedPart:
    """An opened Parquet file of a store, with its columns and their conversion to the schema."""

    path: Path
    file: pq.ParquetFile
    columns: frozenset[str]  # of the schema, in the file or in the names of its folders
    constants: dict[str, str | None]  # from folders such as model=resnet50, which the file then need not repeat
    remark: str  # remark about the file, or ""

    def needed_columns(self, schema: pa.Schema) -> list[str]:
        """Return the columns of the file that are needed for rows with `schema`."""
        wanted = {*schema.names, *CHECKED_COLUMNS} & (self.columns - self.constants.keys())
        return [name for name in _COLUMNS if name in wanted]

    def fit_to_schema(self, table: pa.Table, problems: list[str], schema: pa.Schema = SCHEMA) -> pa.Table:
        """Convert rows to the types of `schema`; `problems` receives invalid values."""
        for name, text in self.constants.items():
            table = table.append_column(name, pa.chunked_array([pa.array([text] * table.num_rows, pa.string())]))
        names = {*table.column_names, *CHECKED_COLUMNS}
        table, found = fit_to_schema(table, pa.schema([f for f in schema if f.name in names]))
        problems += [f"{path_text(self.path)}: {problem}" for problem in found]
        return table

    def drop_invalid_attempts(self, table: pa.Table, schema: pa.Schema, problems: list[str]) -> pa.Table:
        """Return the valid attempts of fitted rows, with `schema`; `problems` receives the reasons for dropping others.

        The rows are all that the file has of each attempt.
        """
        table, found = drop_invalid_attempts(table, self.columns)
        problems += [f"{path_text(self.path)}: {problem}" for problem in found]
        present = set(table.column_names)
        for f in schema:
            if f.name not in present:
                table = table.append_column(f, pa.nulls(table.num_rows, f.type))
        return table.select(schema.names).cast(schema)


def open_part(part: Path) -> OpenedPart:
    """Open a part. Raises StoreError if it is corrupt, not from dlbench, or lacks required columns."""
    try:
        if not part.is_file():
            raise StoreError(f"cannot read {path_text(part)}: it is not a file")
        file = pq.ParquetFile(part)
        schema = file.schema_arrow  # made anew at each access
        names = schema.names
        constants = _hive_partition_values(part, names)
        remark = _newer_version_remark(part, schema)
    except CONVERSION_ERRORS as error:
        raise unreadable_part_error(part, error) from error
    if "attempt_id" not in (*names, *constants):
        raise StoreError(f"cannot read {path_text(part)}: it has no column 'attempt_id', so it is not a dlbench store")
    missing = [f"'{name}'" for name in REQUIRED_COLUMNS if name not in (*names, *constants)]
    if missing:
        raise StoreError(f"cannot read {path_text(part)}: it has no column {', '.join(missing)}")
    twice = [name for name, count in Counter(names).items() if count > 1 and name in _COLUMNS]
    if twice:
        raise StoreError(f"cannot read {path_text(part)}: it has two columns '{twice[0]}'")
    return OpenedPart(part, file, frozenset({*names, *constants} & _COLUMNS.keys()), constants, remark)


def _hive_partition_values(part: Path, names: Sequence[str]) -> dict[str, str | None]:
    """Return missing columns whose values are in folder names (Hive partitioning: Spark, DuckDB, Polars)."""
    constants: dict[str, str | None] = {}
    for folder in part.parts[:-1]:
        key, equals, value = folder.partition("=")
        if equals and key in _COLUMNS and key not in names:
            constants[key] = None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
    return constants


def read_part(part: Path, columns: Iterable[str] | None = None) -> pa.Table:
    """Read one part in the current schema, or these of its columns; missing columns are null, invalid rows left out.

    Raises StoreError if the file is corrupt, not from dlbench, or has only invalid rows.
    """
    opened = open_part(part)
    schema = SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])
    try:
        table = opened.file.read(columns=opened.needed_columns(schema))
    except CONVERSION_ERRORS as error:
        raise unreadable_part_error(part, error) from error
    faults: list[str] = []
    rows = opened.drop_invalid_attempts(opened.fit_to_schema(table, []), schema, faults)
    if table.num_rows and not rows.num_rows:
        raise StoreError(f"cannot read {faults[0]}")
    return rows


def unreadable_part_error(part: Path, error: Exception) -> StoreError:
    """Return the error for a part that cannot be read."""
    if isinstance(error, StoreError):
        return error
    words = (str(error).splitlines() or [""])[0] or type(error).__name__
    return StoreError(f"cannot read {path_text(part)}: {short_repr(words, 300)[1:-1]}")


def _newer_version_remark(part: Path, schema: pa.Schema) -> str:
    """Return a remark that a file is newer than this dlbench, or ""."""
    text = (schema.metadata or {}).get(b"dlbench_schema_version", b"0")
    if not text.isdigit() or len(text) > 9:
        return f"{path_text(part)} has schema version {short_repr(text)}, which is not a number"
    if int(text) <= SCHEMA_VERSION:
        return ""
    newer = f"newer than schema {SCHEMA_VERSION} of this dlbench: the file's additional columns are not read"
    return f"{path_text(part)} has schema {int(text)}, {newer}"


def read_in_pieces(
    part: Path, columns: Iterable[str] | None = None, problems: list[str] | None = None
) -> Iterator[pa.Table]:
    """Read as `read_part` does, but in pieces, to save memory. Raises StoreError if the file cannot be read."""
    found: list[str] = [] if problems is None else problems
    opened = open_part(part)
    found += [opened.remark] if opened.remark else []
    schema = SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])
    try:
        for batch in opened.file.iter_batches(_ROWS_PER_PIECE, columns=opened.needed_columns(schema)):
            rows = opened.fit_to_schema(pa.Table.from_batches([batch]), found)
            yield opened.drop_invalid_attempts(rows, schema, found)
    except CONVERSION_ERRORS as error:
        raise unreadable_part_error(part, error) from error


def is_written_by_dlbench(part: Path) -> bool:
    """Whether `dlbench run` or `collect` wrote this file: they delete only such files.

    The signature covers the file's name and its footer (columns, their sizes and numbers of values), because programs
    that rewrite or copy a file keep its metadata. It is read without Arrow, which would take 50 times as long.
    """
    if not part.is_file():
        return False
    try:
        with part.open("rb", buffering=0) as file:
            _, found, expected = _stored_and_expected_checksum(file, part.name)
    except OSError:
        return False
    return found == expected


def _stored_and_expected_checksum(file: IO[bytes], name: str) -> tuple[int, bytes, bytes]:
    """Return the position of a Parquet file's signature, its value and the expected one; b"" and b"-" if missing."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length + 12 > size:
        return 0, b"", b"-"
    file.seek(size - 8 - length)
    # A key, and a value of Thrift's compact protocol: its type, its length, which is 16, and its bytes.
    head, key, rest = file.read(length).partition(SIGNATURE_KEY + b"\x18\x10")
    digest = hashlib.sha256(name.encode(errors="surrogateescape") + b"\n" + head + rest[16:]).hexdigest()[:16]
    return size - 8 - length + len(head) + len(key), rest[:16], digest.encode() if key else b"-"


def write_part(target: Path, table: pa.Table) -> Path:
    """Write a Parquet file atomically, in a folder that may be missing; return its path. Raises StoreError."""
    with open_file_atomically(target) as file:
        pq.write_table(table, file, compression="zstd", row_group_size=ROW_GROUP)
    return target


@contextlib.contextmanager
def open_part_writer(target: Path, make_folder: bool = True, compression: str = "zstd") -> Iterator[pq.ParquetWriter]:
    """Return a writer of rows of `SCHEMA`; the file is signed (`is_written_by_dlbench`) on success.

    Raises StoreError on failure.

    `compression` is a codec of Parquet; `ONE_ATTEMPT_CODEC` for few rows.
    """
    schema = SCHEMA.with_metadata({**SCHEMA.metadata, SIGNATURE_KEY: b"0" * 16})
    with open_file_atomically(target, make_folder) as file:
        with pq.ParquetWriter(file, schema, compression=compression) as writer:
            yield writer
        place, _, expected = _stored_and_expected_checksum(file, target.name)
        file.seek(place)
        file.write(expected)


@contextlib.contextmanager
def open_file_atomically(target: Path, make_folder: bool = True) -> Iterator[IO[Any]]:
    """Open a temporary file that becomes `target` on success. Raises StoreError if that cannot be written."""
    temporary = temporary_name(target)
    with convert_write_errors(target):
        try:
            if make_folder:
                target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
