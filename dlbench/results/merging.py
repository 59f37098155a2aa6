"""Merging of parts: only files that dlbench wrote are deleted, after another file contains all their rows."""

from __future__ import annotations

import re
import secrets
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dlbench.errors import StoreError
from dlbench.results import duplicates, parts
from dlbench.results.parts import REBUILD_ADVICE, ROW_GROUP, SkippedPart
from dlbench.results.row_validation import CONVERSION_ERRORS
from dlbench.results.schema import SCHEMA

_MERGED_PREFIX = "merged-"
#: A row group that is written has about so many bytes at most.
_ROW_GROUP_BYTES = 64_000_000


@dataclass(frozen=True)
class _MergeablePart:
    """A part that dlbench may delete, with its attempts."""

    part: Path
    attempts: frozenset[str]

    @cached_property
    def attempt_months(self) -> frozenset[str]:
        """The months of its attempts, as parts of a file's name."""
        return frozenset(map(_month_of_attempt, self.attempts))


def merge_parts_by_month(root: Path, max_bytes: int | None = None, most: int | None = None) -> list[Path]:
    """Merge the parts directly in `root` into one file per month, which load much faster; return the new files.

    Foreign parts, parts with other columns, unreadable parts and parts that share an attempt are not merged, nor is
    the only part of a month. A merged part is written, read back and compared before small parts are deleted;
    `drop_contained_parts` repairs an interrupted merge. Raises StoreError if a merged part cannot be written.

    Args:
        max_bytes: larger files are not merged.
        most: maximum number of files, oldest attempts first.
    """
    own = list(islice(_find_mergeable_parts(root, max_bytes, thorough=True), most))
    holders = Counter(attempt for one in own for attempt in one.attempts)
    alone = [one for one in own if all(holders[attempt] == 1 for attempt in one.attempts)]
    months: dict[str, list[_MergeablePart]] = {}
    for one in alone:
        for month in one.attempt_months:
            months.setdefault(month, []).append(one)
    merged: dict[str, _PartFileRows] = {}
    for month, parts_of_month in sorted(months.items()):
        if len(parts_of_month) > 1 or len(parts_of_month[0].attempt_months) > 1:
            target = root / f"{_MERGED_PREFIX}{month}{secrets.token_hex(6)}.parquet"
            _write_month(target, parts_of_month, month)
            merged[month] = _PartFileRows(target)
    for one in alone:
        if one.attempt_months <= set(merged) and all(
            duplicates.contains_rows(_rows_of_month(merged, month).rows_of_same_attempts(rows), rows)
            for piece in parts.read_in_pieces(one.part)
            for month, rows in _split_by_month(piece, one.attempt_months)
        ):
            one.part.unlink(missing_ok=True)
    return [rows.part for rows in merged.values()]


def _rows_of_month(merged: Mapping[str, _PartFileRows], month: str) -> _PartFileRows:
    """The rows of a month; the others keep none in memory."""
    for other, rows in merged.items():
        if other != month:
            rows.drop_cached_rows()
    return merged[month]


def _split_by_month(piece: pa.Table, months: Collection[str]) -> Iterator[tuple[str, pa.Table]]:
    if len(months) == 1:
        yield from ((month, piece) for month in months)
        return
    month_of = np.array([_month_of_attempt(attempt) for attempt in piece["attempt_id"].to_pylist()])
    for month in dict.fromkeys(month_of.tolist()):
        yield month, piece.filter(pa.array(month_of == month))


def _month_of_attempt(attempt: str) -> str:
    """The month at the beginning of an attempt's name, such as `2026-11-`; "" for other names."""
    found = re.match(r"(\d{4})(\d{2})\d{2}T", attempt)
    return f"{found[1]}-{found[2]}-" if found else ""


class _PartFileRows:
    """Rows of a part, by attempt. The row group that was read last is kept: neighbours lie in it."""

    def __init__(self, part: Path) -> None:
        """Look which attempts each row group holds."""
        self.part = part
        self._opened = parts.open_part(part)
        groups = range(self._opened.file.num_row_groups)
        self._ids = [set(self._read_row_group(group, ["attempt_id"])["attempt_id"].to_pylist()) for group in groups]
        self._last: tuple[int, pa.Table] | None = None

    def rows_of_same_attempts(self, table: pa.Table) -> pa.Table:
        asked = table["attempt_id"].unique()
        wanted = set(asked.to_pylist())
        groups = [group for group, ids in enumerate(self._ids) if not ids.isdisjoint(wanted)]
        tables = [
            rows.filter(pc.is_in(rows["attempt_id"], value_set=asked)) for rows in map(self._load_row_group, groups)
        ]
        return pa.concat_tables(tables) if tables else SCHEMA.empty_table()

    def drop_cached_rows(self) -> None:
        """Free the row group that was read last."""
        self._last = None

    def _load_row_group(self, group: int) -> pa.Table:
        if self._last is None or self._last[0] != group:
            self._last = None  # two would not fit in memory where one does
            rows = self._opened.fit_to_schema(self._read_row_group(group), [])
            self._last = group, self._opened.drop_invalid_attempts(rows, SCHEMA, [])
        return self._last[1]

    def _read_row_group(self, group: int, columns: list[str] | None = None) -> pa.Table:
        try:
            return self._opened.file.read_row_group(group, columns or self._opened.needed_columns(SCHEMA))
        except CONVERSION_ERRORS as error:
            raise parts.unreadable_part_error(self.part, error) from error


def _write_month(target: Path, alone: list[_MergeablePart], month: str) -> None:
    """Write the rows that all parts have of a month to `target`, some at a time."""
    waiting: list[pa.Table] = []
    with parts.open_part_writer(target, make_folder=False) as writer:
        for one in alone:
            pieces = (
                pair for piece in parts.read_in_pieces(one.part) for pair in _split_by_month(piece, one.attempt_months)
            )
            for rows in (rows for own_month, rows in pieces if own_month == month):
                waiting.append(rows)
                if sum(t.num_rows for t in waiting) >= ROW_GROUP or sum(t.nbytes for t in waiting) >= _ROW_GROUP_BYTES:
                    writer.write_table(pa.concat_tables(waiting), row_group_size=ROW_GROUP)
                    waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting), row_group_size=ROW_GROUP)


def drop_contained_parts(root: Path) -> int:
    """Remove own parts whose rows another own part contains (interrupted merge); return their number.

    Of two equal parts the first by name stays, so that two concurrent processes never delete both.
    """
    own = list(_find_mergeable_parts(root))
    holders: dict[str, list[_MergeablePart]] = {}
    for one in own:
        for attempt in one.attempts:
            holders.setdefault(attempt, []).append(one)
    dropped = 0
    rows: _PartFileRows | None = None
    for one in own:
        some = next(iter(one.attempts), None)
        for other in holders.get(some or "", ()):
            if other is one or not one.attempts <= other.attempts:
                continue
            try:
                rows = rows if rows and rows.part == other.part else _PartFileRows(other.part)
                contained = _is_contained_in_other(one, other, rows)
            except StoreError:
                continue
            if contained:
                one.part.unlink(missing_ok=True)
                dropped += 1
                break
    return dropped


def _is_contained_in_other(one: _MergeablePart, other: _MergeablePart, rows: _PartFileRows) -> bool:
    """Whether `other` exists and contains all rows of `one`; of equal parts the first by name counts as containing."""
    equal = one.attempts == other.attempts
    for piece in parts.read_in_pieces(one.part):
        held = rows.rows_of_same_attempts(piece)
        if not duplicates.contains_rows(held, piece):
            return False
        equal = equal and duplicates.contains_rows(piece, held)
    return other.part.is_file() and (not equal or other.part.name < one.part.name)


def _find_mergeable_parts(root: Path, max_bytes: int | None = None, thorough: bool = False) -> Iterator[_MergeablePart]:
    """Return the parts directly in `root` that dlbench wrote and that can be rewritten without loss.

    Larger files than `max_bytes` are skipped; `thorough` reads each part completely, to find damage in any column.
    """
    for part in sorted(root.glob("*.parquet")):
        if (
            part.name.startswith(".")
            or not part.is_file()
            or (max_bytes is not None and part.stat().st_size > max_bytes)
        ):
            continue
        if not parts.is_written_by_dlbench(part):
            continue
        problems: list[str] = []
        ids: list[str] = []
        try:
            columns = parts.open_part(part).file.schema_arrow.names
            for piece in parts.read_in_pieces(part, None if thorough else ["attempt_id"], problems):
                ids += piece["attempt_id"].to_pylist()
        except StoreError as error:
            warnings.warn(f"{error}; skipped; {REBUILD_ADVICE}", SkippedPart, stacklevel=3)
            continue
        # Rows or columns that this version does not read would be lost.
        if not problems and set(columns) <= set(SCHEMA.names):
            yield _MergeablePart(part, frozenset(ids))
