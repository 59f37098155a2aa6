"""Merging of parts: only files that dlbench wrote are deleted, after another file contains all their rows."""

from __future__ import annotations

import secrets
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dlbench.errors import StoreError
from dlbench.results import doubles, parts
from dlbench.results.parts import REBUILD, ROW_GROUP, SkippedPart
from dlbench.results.schema import SCHEMA

_MERGED = "merged-"


@dataclass(frozen=True)
class _Own:
    """A part that dlbench may delete, with its attempts and rows."""

    part: Path
    attempts: frozenset[str]
    num_rows: int


def merge(root: Path, max_bytes: int | None = None, most: int | None = None) -> Path | None:
    """Merge the parts directly in `root` into one file, which loads much faster; None if there are fewer than two.

    Foreign parts, parts with other columns, unreadable parts and parts that share an attempt are not merged. The
    merged part is written, read back and compared before small parts are deleted; `drop_doubles` repairs an
    interrupted merge.

    Args:
        root: a results folder.
        max_bytes: larger files are not merged.
        most: maximum number of files, oldest attempts first.

    Raises:
        StoreError: the merged part cannot be written.
    """
    own = list(islice(_own_parts(root, max_bytes, thorough=True), most))
    holders = Counter(attempt for one in own for attempt in one.attempts)
    alone = [one for one in own if all(holders[attempt] == 1 for attempt in one.attempts)]
    if len(alone) < 2:
        return None
    target = root / f"{_MERGED}{secrets.token_hex(6)}.parquet"
    groups = _write_all(target, alone)
    merged = pq.ParquetFile(target)
    for one, indices in zip(alone, groups, strict=True):
        if doubles.contains(_read_back(merged, indices), parts.read_part(one.part)):
            one.part.unlink(missing_ok=True)
    return target


def _read_back(merged: pq.ParquetFile, row_groups: list[int]) -> pa.Table:
    return merged.read_row_groups(row_groups)


def _write_all(target: Path, alone: list[_Own]) -> list[list[int]]:
    """Write the rows of all parts to `target`; return the row groups of each part."""
    groups: list[list[int]] = []
    schema = parts.marked(SCHEMA, target.name, sum(one.num_rows for one in alone))
    written = 0
    waiting: list[pa.Table] = []
    with parts.writing(target, make_folder=False) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for place, one in enumerate(alone):
            waiting.append(parts.read_part(one.part).replace_schema_metadata(schema.metadata))
            num_rows = sum(table.num_rows for table in waiting)
            if num_rows >= ROW_GROUP or place == len(alone) - 1:
                writer.write_table(pa.concat_tables(waiting), row_group_size=ROW_GROUP)
                new = range(written, written + -(-num_rows // ROW_GROUP))
                groups += [list(new)] * len(waiting)
                written, waiting = new.stop, []
    return groups


def drop_doubles(root: Path) -> int:
    """Remove own parts whose rows another own part contains (interrupted merge); return their number.

    Of two equal parts the first by name stays, so that two concurrent processes never delete both.
    """
    own = list(_own_parts(root))
    holders: dict[str, list[_Own]] = {}
    for one in own:
        for attempt in one.attempts:
            holders.setdefault(attempt, []).append(one)
    dropped = 0
    for one in own:
        some = next(iter(one.attempts), None)
        others = [other for other in holders.get(some or "", ()) if other is not one and one.attempts <= other.attempts]
        if others and any(_is_contained(one, other) for other in others):
            one.part.unlink(missing_ok=True)
            dropped += 1
    return dropped


def _is_contained(one: _Own, other: _Own) -> bool:
    """Whether `other` exists and contains all rows of `one`; of equal parts the first by name counts as containing."""
    try:
        part, table = parts.read_part(one.part), parts.read_part(other.part)
    except StoreError:
        return False
    equal = doubles.contains(part, table)
    return doubles.contains(table, part) and (not equal or other.part.name < one.part.name)


def _own_parts(root: Path, max_bytes: int | None = None, thorough: bool = False) -> Iterator[_Own]:
    """Return the parts directly in `root` that dlbench wrote and that can be rewritten without loss.

    Args:
        root: a results folder.
        max_bytes: larger files are skipped.
        thorough: read each part completely, to find damage in any column.
    """
    for part in sorted(root.glob("*.parquet")):
        if (
            part.name.startswith(".")
            or not part.is_file()
            or (max_bytes is not None and part.stat().st_size > max_bytes)
        ):
            continue
        if not parts.is_marked(part):
            continue
        problems: list[str] = []
        try:
            columns = parts.open_part(part).file.schema_arrow.names
            ids = parts.read_part(part, None if thorough else ["attempt_id"], problems)["attempt_id"]
        except StoreError as error:
            warnings.warn(f"{error}; skipped; {REBUILD}", SkippedPart, stacklevel=3)
            continue
        # Rows or columns that this version does not read would be lost.
        if not problems and set(columns) <= set(SCHEMA.names):
            yield _Own(part, frozenset(ids.to_pylist()), len(ids))
