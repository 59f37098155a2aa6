"""The store: a folder of Parquet parts, one per attempt, each written once under a unique name.

    results/
      <attempt_id>.parquet          rows of one attempt, one per rank
      merged-2026-11-<digest>.parquet   the attempts of a month, after `dlbench collect --merge`
      ceilings/  profiles/          other tables, skipped here (see `bounds_schema`)
      attempts/<attempt_id>/        files of the attempt (see `dlbench.launch.attempts`)

Any Parquet reader can open the parts: ``duckdb -c "select * from 'results/*.parquet'"``.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dlbench.errors import StoreError, UnknownName
from dlbench.results.duplicates import contains_rows
from dlbench.results.merging import drop_contained_parts, merge_parts_by_month
from dlbench.results.parts import (
    ONE_ATTEMPT_CODEC,
    SkippedPart,
    find_parts,
    find_parts_with_warnings,
    is_written_by_dlbench,
    open_part,
    open_part_writer,
    read_in_pieces,
    read_part,
)
from dlbench.results.reader import StoreReader, tables_to_frame
from dlbench.results.records import DONE_STATUSES, FINAL_STATUSES, Record
from dlbench.results.schema import ADDED_LATER, IN_MEMORY, SCHEMA, to_table
from dlbench.safe_names import short_repr, why_unsafe_name

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "SkippedPart",
    "append_record",
    "complete_attempt_ids",
    "drop_contained_parts",
    "find_parts_with_warnings",
    "finished_keys",
    "is_written_by_dlbench",
    "load",
    "merge_parts_by_month",
    "read_part",
    "read_rows",
    "warn_about_skipped_parts",
]

#: Columns that identify the case of a row, whether it has ended, and whether all ranks are present.
_KEY_COLUMNS = ["suite", "suite_version", "case_id", "system_key", "network_key", "status"]
_RANK_COLUMNS = ["attempt_id", "rank", "world_size", "status"]


def append_record(root: Path, record: Record, make_folder: bool = True) -> Path:
    """Write one record as a separate part, atomically; return its path.

    `make_folder`: not during a run, whose folder may have been moved or deleted. Raises StoreError if the part cannot
    be written, or the record has invalid values.
    """
    if reason := why_unsafe_name(record.attempt_id):
        raise StoreError(f"cannot store attempt {short_repr(record.attempt_id)}: {reason}")
    try:
        table = to_table([record])
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        raise StoreError(f"cannot store {record.attempt_id}: {error}") from error
    target = _unused_part_path(root, record.attempt_id)
    with open_part_writer(target, make_folder, ONE_ATTEMPT_CODEC) as writer:
        writer.write_table(table)
    return target


def _unused_part_path(root: Path, attempt_id: str) -> Path:
    """Return a free name for the part of this attempt; a readable file is never replaced, another one is renamed."""
    target = root / f"{attempt_id}.parquet"
    number = 1
    while target.exists():
        try:
            read_part(target)
        except StoreError:
            if target.is_file():
                target.replace(target.with_name(f"{target.name}.damaged"))
                break
        number += 1
        target = root / f"{attempt_id}-{number}.parquet"
    return target


def complete_attempt_ids(
    root: Path, among: Iterable[Path] | None = None, original: Callable[[str], Record | None] | None = None
) -> set[str]:
    """Return the attempts that are complete in the readable Parquet parts of `root`.

    Excludes attempts in corrupt parts, and those in foreign files without all columns, ranks or samples.

    Args:
        among: only these parts.
        original: gives the record of an attempt, if it still exists. Each part is then read completely, to find damage
            in any column, and foreign files must hold each value of the record.
    """
    known: set[str] = set()
    for part in find_parts(root)[0] if among is None else among:
        with contextlib.suppress(StoreError):  # `read_rows` warns about it
            if is_written_by_dlbench(part):
                ids = set(read_part(part, ["attempt_id"])["attempt_id"].to_pylist())
            elif set(SCHEMA.names) - ADDED_LATER <= open_part(part).columns:
                ids = _find_complete_attempts(read_part(part, _RANK_COLUMNS))
            else:
                continue
            known |= _attempts_verified_in_part(part, ids, original) if original else ids
    return known


def _attempts_verified_in_part(part: Path, ids: set[str], original: Callable[[str], Record | None]) -> set[str]:
    """Return those of these attempts of which the part, read completely, holds each value of the record."""
    wrong: set[str] = set()
    signed = is_written_by_dlbench(part)
    for piece in read_in_pieces(part):
        for attempt in () if signed else ids.intersection(piece["attempt_id"].to_pylist()):
            record = original(attempt)
            if record is not None and not contains_rows(piece, to_table([record])):
                wrong.add(attempt)
    return ids - wrong


def _find_complete_attempts(rows: pa.Table) -> set[str]:
    """Return the attempts with all their ranks."""
    counted = rows.group_by("attempt_id").aggregate([("rank", "count_distinct"), ("world_size", "max")])
    done = set(rows.filter(pc.is_in(rows["status"], pa.array(DONE_STATUSES)))["attempt_id"].to_pylist())
    return {
        row["attempt_id"]
        for row in counted.to_pylist()
        if row["attempt_id"] not in done or row["rank_count_distinct"] >= (row["world_size_max"] or 1)
    }


def finished_keys(root: Path, among: Iterable[Path] | None = None) -> set[tuple[str, int, str, str, str]]:
    """Return the keys of cases that have ended by the parts of `root`, or those `among` them; not without samples."""
    ended = set()
    for part in find_parts(root)[0] if among is None else among:
        with contextlib.suppress(StoreError):  # `read_rows` warns about it
            # The worker writes both or none, and lists take much longer to read.
            samples = "window_s" if is_written_by_dlbench(part) else "step_s"
            ended |= _finished_keys_of_rows(read_part(part, [*_KEY_COLUMNS, samples]), samples)
    return ended


def _finished_keys_of_rows(rows: pa.Table, samples: str) -> set[tuple[str, int, str, str, str]]:
    measured = [bool(value) for value in rows[samples].to_pylist()]
    return {
        (row["suite"], row["suite_version"], row["case_id"], row["system_key"] or "", row["network_key"] or "")
        for row, has_samples in zip(rows.select(_KEY_COLUMNS).to_pylist(), measured, strict=True)
        if row["status"] in FINAL_STATUSES and (has_samples or row["status"] not in DONE_STATUSES)
    }


def read_rows(sources: str | Path | Sequence[str | Path]) -> pa.Table:
    """Read all rows of files, folders or glob patterns, each row once, in the types of `IN_MEMORY`.

    A part that cannot be read is skipped with a `SkippedPart` warning. Raises StoreError as
    `StoreReader.from_sources` does.
    """
    reader = StoreReader.from_sources([sources] if isinstance(sources, str | Path) else sources)
    tables = list(reader.attempt_tables(SCHEMA.names))
    warn_about_skipped_parts(reader.problems)
    return pa.concat_tables(tables) if tables else IN_MEMORY.empty_table()


def load(sources: str | Path | Sequence[str | Path] = "results", columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Load all rows as a pandas DataFrame: one row per rank of each attempt, raw samples as arrays.

    Args:
        sources: a store's folder, a Parquet file, a glob pattern, or several of them.
        columns: only these columns, in this order; saves time and memory for a large store.

    Returns:
        The rows; `attrs["sources"]` names where they are from.

    Raises:
        StoreError: a source does not exist.
        UnknownName: unknown column.
    """
    for name in columns or ():
        if name not in SCHEMA.names:
            raise UnknownName("column", name, SCHEMA.names)
    named = [sources] if isinstance(sources, str | Path) else list(sources)
    reader = StoreReader.from_sources(named)
    wanted = SCHEMA.names if columns is None else columns
    frame = tables_to_frame(reader.attempt_tables(wanted), wanted)
    warn_about_skipped_parts(reader.problems)
    frame.attrs["sources"] = list(map(str, named))
    return frame if columns is None else frame[list(columns)]


def warn_about_skipped_parts(problems: Sequence[str]) -> None:
    """Emit a `SkippedPart` warning per problem, at the line of the caller's caller."""
    for problem in problems:
        warnings.warn(problem, SkippedPart, stacklevel=3)
