"""A store read in pieces, for those who need something of every attempt but cannot hold all its samples at once."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dlbench.errors import StoreError
from dlbench.results import store
from dlbench.results.schema import SCHEMA

if TYPE_CHECKING:
    import pandas as pd

#: A batch is made of about so much, decoded, and of at most so many tables.
BATCH_BYTES = 16_000_000
_MAX_TABLES = 1000
#: A part smaller than this is read whole without asking first how large it becomes.
_SMALL_PART_BYTES = 500_000
#: What the columns of a row that hold no numbers in lists take, about, and what its long text does.
_ROW_BYTES = 1000
_LONG_TEXT, _LONG_TEXT_BYTES = "system_details", 20_000
#: So many parts are opened ahead.
_AHEAD = 32

#: The columns that come as `Lists`.
NUMBER_LISTS = tuple(f.name for f in SCHEMA if pa.types.is_list(f.type) and pa.types.is_floating(f.type.value_type))

#: Is told how many parts have been read, and how many there are.
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Lists:
    """Of each row a list of numbers: all of them one after the other, and where each row's begin.

    `starts` has one entry more than there are rows: the end of the last. A missing list is an empty one, a missing
    number NaN.
    """

    values: NDArray[np.float64]
    starts: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many numbers each row has."""
        return np.diff(self.starts)

    def of(self, row: int) -> NDArray[np.float64]:
        """The numbers of one row."""
        return self.values[self.starts[row] : self.starts[row + 1]]


@dataclass(frozen=True)
class Batch:
    """Some attempts with all their ranks, by attempt and rank: the columns without and those with lists of numbers."""

    scalars: pa.Table
    lists: dict[str, Lists]


@dataclass
class Reader:
    """Reads the parts of stores; remembers which part holds which attempt, and what could not be read."""

    parts: Sequence[Path]
    problems: list[str] = field(default_factory=list)
    _holders: dict[str, int] = field(default_factory=dict)  # of each attempt the index of its part

    @staticmethod
    def of(sources: Sequence[str | Path]) -> Reader:
        """A reader of the given files, folders or glob patterns.

        Raises:
            StoreError: a source does not exist, or is a file that cannot be read.
        """
        for source in sources:
            if Path(source).is_file():
                store.read_part(Path(source), ["attempt_id"])  # somebody who names one file wants that one
        return Reader(list(dict.fromkeys(part for source in sources for part in store.parts(source))))

    def batches(self, columns: Iterable[str], told: Told | None = None) -> Iterator[Batch]:
        """All rows, each once, the rows of an attempt together; of an attempt in several parts those of the first.

        Args:
            columns: of the schema; attempt and rank come anyway. What a part lacks is null.
        """
        yield from self._joined(range(len(self.parts)), _schema(columns), self._unheld, told, {})

    def of_attempts(self, attempts: Collection[str], columns: Iterable[str]) -> Iterator[Batch]:
        """The same for some attempts alone, from the parts in which `batches` found them."""
        wanted: dict[int, list[str]] = {}
        for attempt in sorted(attempts):
            wanted.setdefault(self._holders[attempt], []).append(attempt)

        def only(part: int, table: pa.Table) -> pa.Table:
            return table.filter(pc.is_in(table["attempt_id"], value_set=pa.array(wanted[part], pa.string())))

        yield from self._joined(sorted(wanted), _schema(columns), only, None, wanted)

    def part_of(self, attempt: str) -> Path:
        """The part in which `batches` found an attempt."""
        return self.parts[self._holders[attempt]]

    def _joined(
        self,
        indices: Sequence[int],
        schema: pa.Schema,
        sifted: Callable[[int, pa.Table], pa.Table],
        told: Told | None,
        wanted: Mapping[int, Sequence[str]],
    ) -> Iterator[Batch]:
        waiting: list[pa.Table] = []
        size = 0
        for index, table in self._tables(indices, schema, told, wanted):
            waiting.append(sifted(index, table))
            size += _decoded_bytes(waiting[-1])
            if size >= BATCH_BYTES or len(waiting) >= _MAX_TABLES:
                yield _batch(waiting)
                waiting, size = [], 0
        if waiting:
            yield _batch(waiting)

    def _unheld(self, index: int, table: pa.Table) -> pa.Table:
        """The rows of attempts that no earlier part holds."""
        ids = table["attempt_id"].unique().to_pylist()
        doubles = [a for a in ids if self._holders.setdefault(a, index) != index]
        return table.filter(pc.invert(pc.is_in(table["attempt_id"], value_set=pa.array(doubles)))) if doubles else table

    def _tables(
        self, indices: Sequence[int], schema: pa.Schema, told: Told | None, wanted: Mapping[int, Sequence[str]]
    ) -> Iterator[tuple[int, pa.Table]]:
        """The parts' tables in their order; several parts are opened at the same time."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done in range(0, len(indices), _AHEAD):
                ahead = indices[done : done + _AHEAD]
                opened = [pool.submit(_opened, self.parts[i], schema, wanted.get(i)) for i in ahead]
                for index, future in zip(ahead, opened, strict=True):
                    num_rows = 0
                    try:
                        remark, tables = future.result()
                        self.problems += [remark] if remark else []
                        for table in tables:
                            num_rows += table.num_rows
                            yield index, table
                    except StoreError as error:
                        rest = f"only its first {num_rows} rows are in here" if num_rows else "passed over"
                        self.problems.append(f"{error}; {rest}; {store.REBUILD}")
                if told:
                    told(done + len(ahead), len(indices))


def to_frame(tables: list[pa.Table], columns: Iterable[str]) -> pd.DataFrame:
    """The tables as one DataFrame, by attempt and rank; the list of them is emptied, for it takes much memory."""
    whole = _in_order(pa.concat_tables(tables)) if tables else _schema(columns).empty_table()
    tables.clear()
    frame: pd.DataFrame = whole.to_pandas()
    del whole
    # What reading took is given back: a report needs memory for other things now.
    pa.default_memory_pool().release_unused()
    return frame


def _schema(columns: Iterable[str]) -> pa.Schema:
    """The current schema of these columns alone, in its order."""
    wanted = {"attempt_id", "rank", *columns}
    assert wanted <= set(SCHEMA.names), sorted(wanted - set(SCHEMA.names))
    return pa.schema([f for f in SCHEMA if f.name in wanted])


def _opened(part: Path, schema: pa.Schema, wanted: Sequence[str] | None) -> tuple[str, Iterable[pa.Table]]:
    """What is to be known of a part, and its tables: a small one's are read at once, a large one's when asked for.

    Args:
        wanted: attempts by the alphabet; what certainly holds none of them may be left out.

    Raises:
        StoreError: the file is corrupt, or is not one of ours.
    """
    try:
        file = pq.ParquetFile(part)
        present = file.schema_arrow
        if _LONG_TEXT in schema.names and _LONG_TEXT in present.names:
            # The same text in many rows is decoded once.
            file = pq.ParquetFile(part, metadata=file.metadata, read_dictionary=[_LONG_TEXT])
        remark = store.remark(part, present)
        if "attempt_id" not in present.names:
            raise store.not_ours(part)
        names = [name for name in schema.names if name in present.names]
        if part.stat().st_size < _SMALL_PART_BYTES:
            return remark, [store.fitted(part, file.read(columns=names, use_threads=False), schema)]
    except (pa.ArrowException, OSError) as error:
        raise store.unreadable(part, error) from error
    return remark, _ahead(_streamed(part, file, names, schema, wanted))


def _ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same, each read while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, tables, None)
        while (table := coming.result()) is not None:
            coming = pool.submit(next, tables, None)
            yield table


def _streamed(
    part: Path, file: pq.ParquetFile, names: list[str], schema: pa.Schema, wanted: Sequence[str] | None
) -> Iterator[pa.Table]:
    """The tables of a large part; the rows of an attempt are never torn apart."""
    try:
        num_rows = int(BATCH_BYTES // _bytes_per_row(file, schema))
        if num_rows >= file.metadata.num_rows or not _together(file):
            yield store.fitted(part, file.read(columns=names), schema)
            return
        groups = [g for g in range(file.metadata.num_row_groups) if wanted is None or _may_hold(file, g, wanted)]
        held = schema.empty_table()
        for batch in file.iter_batches(max(1, num_rows), row_groups=groups, columns=names):
            table = pa.concat_tables([held, store.fitted(part, pa.Table.from_batches([batch]), schema)])
            ids = table["attempt_id"]
            # The last attempt may go on in the next batch.
            complete = table.num_rows - pc.sum(pc.equal(ids, ids[-1])).as_py()
            held = table.slice(complete)
            if complete:
                yield table.slice(0, complete)
        yield held
    except (pa.ArrowException, OSError) as error:
        raise store.unreadable(part, error) from error


def _may_hold(file: pq.ParquetFile, group: int, attempts: Sequence[str]) -> bool:
    """Whether one of the attempts lies between the first and the last of a row group, by the alphabet."""
    index = next(i for i in range(file.metadata.num_columns) if file.schema.column(i).path == "attempt_id")
    limits = file.metadata.row_group(group).column(index).statistics
    if limits is None or not limits.has_min_max:
        return True
    return bisect_left(attempts, limits.min) < bisect_right(attempts, limits.max)


def _bytes_per_row(file: pq.ParquetFile, schema: pa.Schema) -> float:
    """What a row of these columns takes once it is decoded, which says more than its size in the file."""
    metadata = file.metadata
    places = [
        i for i in range(metadata.num_columns) if file.schema.column(i).path.partition(".")[0] in _lists_of(schema)
    ]
    groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
    numbers: int = sum(group.column(i).num_values for group in groups for i in places)
    text = _LONG_TEXT_BYTES if _LONG_TEXT in schema.names else 0
    num_rows: int = metadata.num_rows
    return _ROW_BYTES + text + 8 * numbers / max(1, num_rows)


def _lists_of(schema: pa.Schema) -> set[str]:
    return set(schema.names) & set(NUMBER_LISTS)


def _together(file: pq.ParquetFile) -> bool:
    """Whether the rows of each attempt follow each other, as in all that dlbench writes."""
    ids = file.read(columns=["attempt_id"])["attempt_id"]
    changes = pc.sum(pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1))).as_py() or 0
    return bool(changes + 1 == pc.count_distinct(ids).as_py())


def _decoded_bytes(table: pa.Table) -> int:
    lists = (name for name in table.column_names if name in NUMBER_LISTS)
    size: int = table.num_rows * _ROW_BYTES + sum(table[name].nbytes for name in lists)
    return size


def _batch(tables: list[pa.Table]) -> Batch:
    table = _in_order(pa.concat_tables(tables))
    names = [name for name in table.column_names if name in NUMBER_LISTS]
    return Batch(table.drop_columns(names).combine_chunks(), {name: _lists(table[name]) for name in names})


def _in_order(table: pa.Table) -> pa.Table:
    """By attempt and rank, and of rows with the same attempt and rank the first."""
    order = pc.sort_indices(table, [("attempt_id", "ascending"), ("rank", "ascending")])
    keys = table.select(["attempt_id", "rank"]).take(order)
    same = [pc.equal(keys[name].slice(1), keys[name].slice(0, max(0, len(order) - 1))) for name in keys.column_names]
    doubled = np.flatnonzero(pc.and_(*same).to_numpy()) + 1
    places = np.delete(order.to_numpy(), doubled)
    # Samples are large: they are moved only if they must be.
    return table if np.array_equal(places, np.arange(table.num_rows)) else table.take(pa.array(places))


def _lists(column: pa.ChunkedArray) -> Lists:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    starts = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    return Lists(pc.list_flatten(column).to_numpy(), starts)
