"""Reading of a store in pieces, for stores whose samples do not fit into memory."""

from __future__ import annotations

import os
import re
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dlbench.errors import StoreError
from dlbench.results import duplicates
from dlbench.results import parts as store
from dlbench.results.frame_builder import FrameBuilder, release_memory
from dlbench.results.row_validation import CONVERSION_ERRORS
from dlbench.results.schema import IN_MEMORY, LONG_TEXT, SCHEMA

if TYPE_CHECKING:
    import pandas as pd

# Return memory after reading; Arrow's own allocators would keep a gigabyte of a large store.
pa.set_memory_pool(pa.system_memory_pool())

#: Size of a batch: decoded bytes, and maximum number of tables.
BATCH_BYTES = 16_000_000
_MAX_TABLES = 1000
#: Smaller parts are read completely, without checking their decoded size.
_SMALL_PART_BYTES = 500_000
#: Approximate bytes of a row: columns without lists, and the long text.
_ROW_BYTES = 1000
#: Number of parts opened ahead; similar small parts are processed together.
_AHEAD, _TOGETHER = 32, 500

#: Columns returned as `RaggedArray`.
NUMBER_LISTS = tuple(f.name for f in SCHEMA if pa.types.is_list(f.type) and pa.types.is_floating(f.type.value_type))

#: Called with the number of parts read, and the total.
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class RaggedArray:
    """One list of numbers per row: all values in one array, and the start of each row.

    `starts` has one entry more than there are rows: the end of the last. A missing list is an empty one, a missing
    number NaN.
    """

    values: NDArray[np.float64]
    starts: NDArray[np.int64]

    @property
    def row_lengths(self) -> NDArray[np.int64]:
        """Number of values of each row."""
        return np.diff(self.starts)

    def row(self, row: int) -> NDArray[np.float64]:
        """Return the values of one row."""
        return self.values[self.starts[row] : self.starts[row + 1]]

    def row_arrays(self) -> list[NDArray[np.float64]]:
        """Return the values of all rows; empty ones share one array."""
        none = self.values[:0]
        return [self.values[a:b] if a < b else none for a, b in pairwise(self.starts.tolist())]


@dataclass(frozen=True)
class AttemptBatch:
    """Some attempts with all their ranks, sorted by attempt and rank: columns without and with lists of numbers."""

    scalars: pa.Table
    lists: dict[str, RaggedArray]


@dataclass
class StoreReader:
    """Reader of stores; records the part of each attempt, and unreadable parts."""

    parts: Sequence[Path]
    problems: list[str] = field(default_factory=list)
    #: The attempts of each table that was read with the index of the part of each row; a dict of a million attempts
    #: would take a quarter of a gigabyte.
    _held: list[tuple[pa.Array, NDArray[np.int32]]] = field(default_factory=list)
    _holders: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of shared attempts the indices of their parts
    #: Rows of the parts; of these those that hold, and of these those that another row of their rank counts for.
    num_rows: int = 0
    num_held: int = 0
    num_copies: int = 0
    _unopened: set[int] = field(default_factory=set)  # parts of which `num_rows` counts one row as yet
    #: Attempts with duplicate rows -> position of the row of each rank that is used.
    _shared: dict[str, dict[int, _RowPlace]] | None = None
    _lock: Lock = field(default_factory=Lock)

    @staticmethod
    def from_sources(sources: Sequence[str | Path]) -> StoreReader:
        """Create a reader of files, folders or patterns. Raises StoreError without a source, or for a bad file."""
        files: dict[Path, None] = {}
        problems: list[str] = []
        for source in sources:
            found, others = store.find_parts(source)
            if found == [Path(source)]:
                store.read_part(found[0], ["attempt_id"])  # an explicitly named file must be readable
            files |= dict.fromkeys(found)
            problems += others
        return StoreReader(list(files), problems)

    def attempt_batches(self, columns: Iterable[str], on_progress: OnProgress | None = None) -> Iterator[AttemptBatch]:
        """Read all rows once, grouped by attempt; of duplicate rows the most complete.

        Attempt and rank are always among the columns; missing columns are null.
        """
        yield from map(_to_attempt_batch, self.attempt_tables(columns, on_progress))

    def attempt_tables(self, columns: Iterable[str], on_progress: OnProgress | None = None) -> Iterator[pa.Table]:
        """Read the rows as tables with the types of `IN_MEMORY`, each sorted by attempt and rank."""
        shared = self._find_shared_attempts()
        self.num_held = self.num_copies = 0
        self._held = []
        self._holders |= {a: tuple(sorted({p for p, _ in ranks.values()})) for a, ranks in shared.items()}
        tables = self._read_part_tables(range(len(self.parts)), _schema_with_columns(columns), on_progress)
        yield from _join_into_batches(self._select_used_rows(tables))

    def read_attempts(self, attempts: Collection[str], columns: Iterable[str]) -> Iterator[AttemptBatch]:
        """Read some attempts, from the parts in which `batches` found them."""
        wanted: dict[int, list[str]] = {}
        for attempt, parts in sorted(self.parts_of_attempts(attempts).items()):
            for part in parts:
                wanted.setdefault(part, []).append(attempt)
        tables = self._read_wanted_attempts(wanted, _schema_with_columns(columns))
        yield from map(_to_attempt_batch, _join_into_batches(self._select_used_rows(tables)))

    def parts_of_attempts(self, attempts: Collection[str]) -> dict[str, tuple[int, ...]]:
        """Return the indices of the parts of each attempt, as found by `attempt_batches`."""
        asked = sorted(attempts)
        found = {attempt: self._holders[attempt] for attempt in attempts if attempt in self._holders}
        for ids, indices in self._held:
            there = _is_wanted_attempt(ids, asked)
            if there.any():
                names = ids.filter(pa.array(there)).to_pylist()
                found |= {a: (i,) for a, i in zip(names, indices[there].tolist(), strict=True)}
        return found

    def first_part_of_attempts(self, attempts: Collection[str]) -> dict[str, Path]:
        """Return the (first) part of each attempt, as found by `attempt_batches`."""
        return {attempt: self.parts[parts[0]] for attempt, parts in self.parts_of_attempts(attempts).items()}

    def _find_shared_attempts(self) -> dict[str, dict[int, _RowPlace]]:
        """Find attempts with duplicate rows, and select the rows that are used."""
        # A query may read the rows several times at once.
        with self._lock:
            if self._shared is None:
                self._shared = {}
                self._search_shared_attempts()
        return self._shared

    def _search_shared_attempts(self) -> None:
        tables = []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for index, found in enumerate(pool.map(_read_attempt_rank_keys, self.parts)):
                if found is None:
                    self._unopened.add(index)
                else:
                    tables.append(found.append_column("part", pa.array(np.full(found.num_rows, index))))
        if self._unopened:
            names = [self.parts[index].stem for index in sorted(self._unopened)]
            keys = pa.table({"attempt_id": names, "rank": [0] * len(names)}, schema=_KEYS)
            tables.append(keys.append_column("part", pa.array(sorted(self._unopened), pa.int64())))
        if not tables:
            return
        whole = pa.concat_tables(tables)
        self.num_rows = whole.num_rows
        held = whole.group_by("attempt_id").aggregate(
            [("part", "count_distinct"), ("rank", "count_distinct"), ("rank", "count")]
        )
        several = pc.greater(held["part_count_distinct"], 1)
        doubled = pc.greater(held["rank_count"], held["rank_count_distinct"])
        shared = held.filter(pc.or_(several, doubled))["attempt_id"].combine_chunks()
        if len(shared):
            self._resolve_duplicate_rows(whole.filter(pc.is_in(whole["attempt_id"], value_set=shared)))

    def _resolve_duplicate_rows(self, keys: pa.Table) -> None:
        """Select the most complete row per rank of attempts in several parts."""
        wanted: dict[int, list[str]] = {}
        for part, attempt in sorted(set(zip(keys["part"].to_pylist(), keys["attempt_id"].to_pylist(), strict=True))):
            wanted.setdefault(part, []).append(attempt)
        places: list[_RowPlace] = []
        tables: list[pa.Table] = []
        for indices, whole in self._read_wanted_attempts(wanted, SCHEMA):
            for index, table in _group_rows_by_file(indices, whole):
                tables.append(duplicates.replace_lists_by_checksums(table.cast(SCHEMA)))
                places += [(index, number) for number in _count_earlier_equal_rows(table)]
        if not tables:
            return
        rows = pa.concat_tables(tables)
        kept, problems = duplicates.choose_most_complete_rows(rows, np.array([part for part, _ in places]), self.parts)
        self.problems += problems
        for attempt, rank, place, counts in zip(
            rows["attempt_id"].to_pylist(), rows["rank"].to_pylist(), places, kept.tolist(), strict=True
        ):
            if counts and self._shared is not None:
                self._shared.setdefault(attempt, {})[rank] = place

    def _select_used_rows(self, tables: Iterator[_ReadRows]) -> Iterator[pa.Table]:
        """Return the rows of attempts that are complete in one part, and at the end the used rows of the others."""
        places = self._shared or {}
        apart: list[pa.Table] = []
        shared = sorted(places)
        for indices, table in tables:
            self.num_held += table.num_rows
            there = _is_wanted_attempt(table["attempt_id"], shared)
            if there.any():
                for index, mine in _group_rows_by_file(indices[there], table.filter(pa.array(there))):
                    keys = zip(
                        mine["attempt_id"].to_pylist(),
                        mine["rank"].to_pylist(),
                        _count_earlier_equal_rows(mine),
                        strict=True,
                    )
                    counting = [places[attempt].get(rank) == (index, number) for attempt, rank, number in keys]
                    apart.append(mine.filter(pa.array(counting, pa.bool_())))
                    self.num_copies += counting.count(False)
                indices, table = indices[~there], table.filter(pa.array(~there))
            if table.num_rows:
                self._held.append((pa.concat_arrays(table["attempt_id"].chunks), indices.astype(np.int32)))
            yield table
        if apart:
            yield pa.concat_tables(apart)

    def _read_wanted_attempts(self, wanted: Mapping[int, Sequence[str]], schema: pa.Schema) -> Iterator[_ReadRows]:
        """Read the rows of some attempts by part; unreadable parts are reported at the end."""
        everyone = sorted({attempt for some in wanted.values() for attempt in some})
        for indices, table in StoreReader(self.parts)._read_part_tables(
            sorted(wanted), _schema_with_columns(schema.names), None, wanted
        ):
            there = _is_wanted_attempt(table["attempt_id"], everyone)
            yield (indices, table) if there.all() else (indices[there], table.filter(pa.array(there)))

    def _read_part_tables(
        self,
        indices: Sequence[int],
        schema: pa.Schema,
        on_progress: OnProgress | None,
        wanted: Mapping[int, Sequence[str]] | None = None,
    ) -> Iterator[_ReadRows]:
        """Iterate over the tables of parts in order; several parts are opened at the same time."""
        waiting: list[tuple[int, _SmallPart]] = []
        for done, (index, future) in enumerate(self._open_parts(indices, schema, wanted), 1):
            if on_progress and (done % _AHEAD == 0 or done == len(indices)):
                on_progress(done, len(indices))
            try:
                found = future.result()
            except StoreError as error:
                self.problems.append(f"{error}; skipped; {store.REBUILD_ADVICE}")
                continue
            if index in self._unopened and isinstance(found, _SmallPart):
                self.num_rows += found.table.num_rows - 1
                self._unopened.remove(index)
            if waiting and not (isinstance(found, _SmallPart) and _can_check_together(found, [s for _, s in waiting])):
                yield from self._read_similar_files_together(waiting, schema)
                waiting = []
            if isinstance(found, _SmallPart):
                waiting.append((index, found))
            else:
                yield from self._read_large_part_file(index, *found)
        if waiting:
            yield from self._read_similar_files_together(waiting, schema)

    def _open_parts(
        self, indices: Sequence[int], schema: pa.Schema, wanted: Mapping[int, Sequence[str]] | None
    ) -> Iterator[tuple[int, Future[_SmallPart | _LargePart]]]:
        """Open parts in other threads, `_AHEAD` of them before they are needed."""
        ahead: deque[tuple[int, Future[_SmallPart | _LargePart]]] = deque()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for index in indices:
                some = wanted[index] if wanted else None
                ahead.append((index, pool.submit(_open_part, self.parts[index], schema, some)))
                if len(ahead) > _AHEAD:
                    yield ahead.popleft()
            yield from ahead

    def _read_large_part_file(self, index: int, problems: list[str], tables: Iterable[pa.Table]) -> Iterator[_ReadRows]:
        num_rows = 0
        try:
            for table in tables:
                num_rows += table.num_rows
                yield np.full(table.num_rows, index), table
            self.problems += problems
        except StoreError as error:
            rest = f"only the first {num_rows} rows of the file were read" if num_rows else "skipped"
            self.problems.append(f"{error}; {rest}; {store.REBUILD_ADVICE}")

    def _read_similar_files_together(
        self, parts: list[tuple[int, _SmallPart]], schema: pa.Schema
    ) -> Iterator[_ReadRows]:
        """Read similar small parts together; one by one if there is a problem."""
        problems = [small.opened.remark for _, small in parts if small.opened.remark]
        table = _check_parts_together([small for _, small in parts], schema, problems)
        if table is not None and not problems:
            yield np.repeat([i for i, _ in parts], [small.table.num_rows for _, small in parts]), table
            return
        for index, small in parts:
            problems = [small.opened.remark] if small.opened.remark else []
            table = _check_parts_together([small], schema, problems)
            if table is None or (small.table.num_rows and not table.num_rows):
                self.problems.append(f"cannot read {problems[-1]}; skipped; {store.REBUILD_ADVICE}")
                continue
            self.problems += problems
            yield np.full(table.num_rows, index), table


#: Problems of a large part, and its tables, which are read when they are needed.
_LargePart = tuple[list[str], Iterable[pa.Table]]

#: Rows, and the part index of each.
_ReadRows = tuple[NDArray[np.int64], pa.Table]


@dataclass(frozen=True)
class _SmallPart:
    """A completely read small part, not yet checked."""

    opened: store.OpenedPart
    table: pa.Table


def _can_check_together(one: _SmallPart, others: list[_SmallPart]) -> bool:
    """Whether the rows of a part can be checked together with those of others."""
    first = others[0]
    return (
        len(others) < _TOGETHER
        and sum(s.table.num_rows for s in others) * _ROW_BYTES < BATCH_BYTES
        and not (one.opened.remark or first.opened.remark)
        and one.opened.constants == first.opened.constants
        and one.table.schema.equals(first.table.schema)
    )


def _check_parts_together(parts: list[_SmallPart], schema: pa.Schema, problems: list[str]) -> pa.Table | None:
    """Return the checked rows of similar parts; None on failure, with the reason as last problem."""
    first = parts[0].opened
    try:
        raw = pa.concat_tables([small.table for small in parts])
        raw = raw.combine_chunks() if len(parts) > 1 else raw
        return first.drop_invalid_attempts(first.fit_to_schema(raw, problems, IN_MEMORY), schema, problems)
    except (StoreError, *CONVERSION_ERRORS) as error:
        problems.append(str(store.unreadable_part_error(first.path, error)).removeprefix("cannot read "))
        return None


def _is_wanted_attempt(names: pa.Array | pa.ChunkedArray, wanted: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each name is one of `wanted`.

    These are sorted: only those from the first to the last name are looked at, since there may be a million.
    """
    limits = pc.min_max(names).as_py()
    if not wanted or limits["min"] is None:
        return np.zeros(len(names), dtype=bool)
    near = wanted[bisect_left(wanted, limits["min"]) : bisect_right(wanted, limits["max"])]
    there: NDArray[np.bool_] = pc.is_in(names, value_set=pa.array(near, pa.string())).to_numpy(zero_copy_only=False)
    return there


def _group_rows_by_file(indices: NDArray[np.int64], table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    starts = np.flatnonzero(np.r_[True, np.diff(indices) != 0]) if indices.size else np.empty(0, np.int64)
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), indices.size], strict=True):
        yield int(indices[start]), table.slice(start, end - start)


#: Columns that identify a row.
_KEYS = pa.schema([IN_MEMORY.field(name) for name in ("attempt_id", "rank")])

#: Name of a part of one attempt, which is the attempt's id.
_ATTEMPT_NAME = re.compile(r"\d{8}T\d{6}-[0-9a-f]{12}(-[0-9a-f]{6})?")

#: Position of a row: index of its part, and number of earlier rows of the same attempt and rank there.
_RowPlace = tuple[int, int]


def _read_attempt_rank_keys(part: Path) -> pa.Table | None:
    """Read attempt and rank of each row; empty if unreadable. None if the name tells the only attempt of a small part.

    `store.append_record` signs such parts; to open them once more takes a third of the time of a query over thousands.
    """
    try:
        if _ATTEMPT_NAME.fullmatch(part.stem) and _is_small_part(part) and store.is_written_by_dlbench(part):
            return None
        opened = store.open_part(part)
        columns = [name for name in opened.needed_columns(_KEYS) if name in _KEYS.names]
        keys = opened.file.read(columns=columns, use_threads=False)
        # Usual case, and ten times faster.
        return keys if keys.schema.equals(_KEYS) else opened.fit_to_schema(keys, []).select(_KEYS.names)
    except (StoreError, *CONVERSION_ERRORS):
        return _KEYS.empty_table()


def _count_earlier_equal_rows(table: pa.Table) -> list[int]:
    """Return for each row the number of earlier rows of the same attempt and rank."""
    seen: Counter[tuple[str, int]] = Counter()
    numbers = []
    for key in zip(table["attempt_id"].to_pylist(), table["rank"].to_pylist(), strict=True):
        numbers.append(seen[key])
        seen[key] += 1
    return numbers


def _join_into_batches(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    size = 0
    for table in tables:
        waiting.append(table)
        lists = (table[name] for name in table.column_names if name in NUMBER_LISTS)
        size += table.num_rows * _ROW_BYTES + sum(column.nbytes for column in lists)
        if size >= BATCH_BYTES or len(waiting) >= _MAX_TABLES:
            yield _sort_and_deduplicate(pa.concat_tables(waiting))
            waiting, size = [], 0
    if waiting:
        yield _sort_and_deduplicate(pa.concat_tables(waiting))


def tables_to_frame(tables: Iterable[pa.Table], columns: Iterable[str]) -> pd.DataFrame:
    """Combine tables to one DataFrame, sorted by attempt and rank."""
    frame = FrameBuilder(_schema_with_columns(columns))
    keys = []
    for table in tables:
        keys.append(table.select(["attempt_id", "rank"]))
        frame.add(table)
    whole = frame.build()
    if keys:
        order = pc.sort_indices(pa.concat_tables(keys), [("attempt_id", "ascending"), ("rank", "ascending")]).to_numpy()
        if not np.array_equal(order, np.arange(order.size)):
            whole = whole.take(order).reset_index(drop=True)
    release_memory()  # which a report needs now
    return whole


def _schema_with_columns(columns: Iterable[str]) -> pa.Schema:
    wanted = {"attempt_id", "rank", *columns}
    assert wanted <= set(SCHEMA.names), sorted(wanted - set(SCHEMA.names))
    return pa.schema([f for f in IN_MEMORY if f.name in wanted])


def _open_part(part: Path, schema: pa.Schema, wanted: Sequence[str] | None) -> _SmallPart | _LargePart:
    """Open a part: a small one completely, a large one with its problems and lazily read tables.

    Row groups without any of the `wanted` (sorted) attempts may be skipped. Raises StoreError as `read_part` does.
    """
    opened = store.open_part(part)
    if _is_small_part(part):
        try:
            table = opened.file.read(columns=opened.needed_columns(schema), use_threads=False)
        except CONVERSION_ERRORS as error:
            raise store.unreadable_part_error(part, error) from error
        finally:
            opened.file.close()  # many are held at a time
        return _SmallPart(opened, table)
    problems = [opened.remark] if opened.remark else []
    return problems, _prefetch_tables(_stream_part(opened, schema, wanted, problems))


def _prefetch_tables(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Open parts ahead: each is read while the previous one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, tables, None)
        while (table := coming.result()) is not None:
            coming = pool.submit(next, tables, None)
            yield table


def _is_small_part(part: Path) -> bool:
    return part.is_file() and part.stat().st_size < _SMALL_PART_BYTES


def _stream_part(
    opened: store.OpenedPart, schema: pa.Schema, wanted: Sequence[str] | None, problems: list[str]
) -> Iterator[pa.Table]:
    """Iterate over the tables of a large part; rows of an attempt stay together."""
    part, file, names = opened.path, opened.file, opened.needed_columns(schema)
    try:
        if LONG_TEXT in names:
            # A text in many rows is decoded once.
            file = pq.ParquetFile(part, metadata=file.metadata, read_dictionary=[LONG_TEXT])
        num_rows = int(BATCH_BYTES // _bytes_per_row(file, names))
        if num_rows >= file.metadata.num_rows or not _is_grouped_by_attempt(file):
            rows = opened.fit_to_schema(file.read(columns=names), problems, IN_MEMORY)
            yield opened.drop_invalid_attempts(rows, schema, problems)
            return
        groups = [
            g
            for g in range(file.metadata.num_row_groups)
            if wanted is None or _row_group_may_hold_attempts(file, g, wanted)
        ]
        held: pa.Table | None = None
        for batch in file.iter_batches(max(1, num_rows), row_groups=groups, columns=names):
            table = opened.fit_to_schema(pa.Table.from_batches([batch]), problems, IN_MEMORY)
            table = pa.concat_tables([held, table]) if held else table
            ids = table["attempt_id"]
            # The last attempt may continue in the next batch.
            complete = table.num_rows - (pc.sum(pc.equal(ids, ids[-1])).as_py() or 0)
            held = table.slice(complete)
            if complete:
                yield opened.drop_invalid_attempts(table.slice(0, complete), schema, problems)
        if held:
            yield opened.drop_invalid_attempts(held, schema, problems)
    except CONVERSION_ERRORS as error:
        raise store.unreadable_part_error(part, error) from error


def _row_group_may_hold_attempts(file: pq.ParquetFile, group: int, attempts: Sequence[str]) -> bool:
    """Whether an attempt lies between the first and last attempt of a row group."""
    index = next(i for i in range(file.metadata.num_columns) if file.schema.column(i).path == "attempt_id")
    limits = file.metadata.row_group(group).column(index).statistics
    if limits is None or not limits.has_min_max:
        return True
    return bisect_left(attempts, limits.min) < bisect_right(attempts, limits.max)


def _bytes_per_row(file: pq.ParquetFile, columns: Collection[str]) -> float:
    """Return the decoded bytes per row of these columns."""
    metadata = file.metadata
    names = [file.schema.column(i).path.partition(".")[0] for i in range(metadata.num_columns)]
    groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
    places = [i for i, name in enumerate(names) if name in columns and name in NUMBER_LISTS]
    numbers: int = sum(group.column(i).num_values for group in groups for i in places)
    # A text in many rows is stored once per group.
    texts = [i for i, name in enumerate(names) if name == LONG_TEXT and name in columns]
    text: int = sum(group.column(i).total_uncompressed_size for group in groups for i in texts)
    num_rows: int = metadata.num_rows
    return _ROW_BYTES + (text + 8 * numbers) / max(1, num_rows)


def _is_grouped_by_attempt(file: pq.ParquetFile) -> bool:
    """Whether the rows of each attempt are consecutive, as in all files of dlbench."""
    if "attempt_id" not in file.schema_arrow.names:
        return False
    ids = file.read(columns=["attempt_id"])["attempt_id"]
    changes = pc.sum(pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1))).as_py() or 0
    return bool(changes + 1 == pc.count_distinct(ids).as_py())


def _to_attempt_batch(table: pa.Table) -> AttemptBatch:
    names = [name for name in table.column_names if name in NUMBER_LISTS]
    return AttemptBatch(
        table.drop_columns(names).combine_chunks(), {name: _ragged_column(table[name]) for name in names}
    )


def _sort_and_deduplicate(table: pa.Table) -> pa.Table:
    """Sort by attempt and rank; keep the first of equal keys."""
    order = pc.sort_indices(table, [("attempt_id", "ascending"), ("rank", "ascending")])
    keys = table.select(["attempt_id", "rank"]).take(order)
    same = [pc.equal(keys[name].slice(1), keys[name].slice(0, max(0, len(order) - 1))) for name in keys.column_names]
    doubled = np.flatnonzero(pc.and_(*same).to_numpy()) + 1
    places = np.delete(order.to_numpy(), doubled)
    # Samples are large: avoid moving them.
    return table if np.array_equal(places, np.arange(table.num_rows)) else table.take(pa.array(places))


def _ragged_column(column: pa.ChunkedArray) -> RaggedArray:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    starts = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    return RaggedArray(pc.list_flatten(column).to_numpy(), starts)
