"""Duplicates: files with rows of the same attempt and rank; completeness of rows, containment of files."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def attempt_and_rank_keys(table: pa.Table) -> pa.Array:
    """Return one key per row, from attempt and rank."""
    rank = pc.fill_null(table["rank"].cast(pa.string()), "")
    names = pc.binary_join_element_wise(rank, table["attempt_id"].cast(pa.string()), " ")
    return pa.concat_arrays(names.chunks) if names.num_chunks != 1 else names.chunk(0)


def count_filled_values(table: pa.Table) -> NDArray[np.int64]:
    """Count the values of each row; a list counts by its length."""
    values = np.zeros(table.num_rows, dtype=np.int64)
    for column in table.columns:
        count = pc.list_value_length(column) if pa.types.is_list(column.type) else pc.is_valid(column).cast(pa.int64())
        values += pc.fill_null(count, 0).to_numpy().astype(np.int64)
    return values


def contains_rows(table: pa.Table, part: pa.Table) -> bool:
    """Whether `table` contains all rows of `part` with all their values, also nested ones."""
    if not set(part.column_names) <= set(table.column_names):
        return False
    places = pc.index_in(attempt_and_rank_keys(part), value_set=attempt_and_rank_keys(table))
    if places.null_count:
        return False
    other = table.select(part.column_names).take(places)
    return all(_all_equal(_combine_chunks(part[name]), _combine_chunks(other[name])) for name in part.column_names)


#: Column that `replace_lists_by_checksums` adds: number of values of a row.
_NUM_VALUES_COLUMN = "fullness"


def replace_lists_by_checksums(table: pa.Table) -> pa.Table:
    """Reduce rows to the input of `choose_most_complete_rows`: each list becomes its length and a checksum."""
    columns = {_NUM_VALUES_COLUMN: pa.array(count_filled_values(table))}
    for name in table.column_names:
        column = table[name]
        if not pa.types.is_list(column.type):
            columns[name] = column
            continue
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
        columns[f"length of {name}"] = pa.array(lengths, mask=column.is_null().to_numpy())
        if pa.types.is_floating(column.type.value_type):
            columns[name] = pa.array(_list_checksums(pc.list_flatten(column).to_numpy(), lengths))
    return pa.table(columns)


def _list_checksums(values: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a weighted sum of each list, as a checksum that depends on the order."""
    sums = np.zeros(lengths.size)
    places = np.arange(values.size) - np.repeat(np.r_[0, np.cumsum(lengths)[:-1]], lengths)
    np.add.at(sums, np.repeat(np.arange(lengths.size), lengths), np.nan_to_num(values) * (1 + places % 97))
    return sums


def choose_most_complete_rows(
    rows: pa.Table, files: NDArray[np.int64], names: Sequence[Path]
) -> tuple[NDArray[np.bool_], list[str]]:
    """Select the most complete row per attempt and rank, the first of equals, and report where others disagree.

    Values are never merged. `rows` are reduced by `replace_lists_by_checksums`; `files` are the indices of their
    `names`.
    """
    # A number per row that is equal for the same attempt and rank.
    codes = np.asarray(attempt_and_rank_keys(rows).dictionary_encode().indices.to_numpy(), dtype=np.int64)
    order = np.lexsort((np.arange(codes.size), -rows[_NUM_VALUES_COLUMN].to_numpy(), codes))
    first = np.r_[True, np.diff(codes[order]) != 0]
    winners = order[np.maximum.accumulate(np.where(first, np.arange(order.size), 0))]
    kept = np.zeros(codes.size, dtype=bool)
    kept[order[first]] = True
    rows = rows.drop_columns([_NUM_VALUES_COLUMN])
    return kept, _describe_disagreements(rows, order[~first], winners[~first], files, list(names))


def _describe_disagreements(
    rows: pa.Table, losers: NDArray[np.int64], winners: NDArray[np.int64], files: NDArray[np.int64], names: list[Path]
) -> list[str]:
    pairs: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, pair in enumerate(zip(files[winners].tolist(), files[losers].tolist(), strict=True)):
        pairs[pair].append(place)
    problems = []
    for (used, unused), at in pairs.items():
        mine, others = rows.take(pa.array(winners[at])), rows.take(pa.array(losers[at]))
        columns = [
            name
            for name in rows.column_names
            if not _agree_ignoring_nulls(_combine_chunks(mine[name]), _combine_chunks(others[name]))
        ]
        if columns:
            ids = mine["attempt_id"].unique().to_pylist()
            attempts = f"attempt {ids[0]}" if len(ids) == 1 else f"{len(ids)} attempts ({ids[0]}, ...)"
            columns = list(dict.fromkeys(name.removeprefix("length of ") for name in columns))
            among = f"{', '.join(columns[:5])}{', ...' if len(columns) > 5 else ''}"
            where = f"{names[used]} and {names[unused]} differ" if used != unused else f"rows of {names[used]} differ"
            problems.append(f"{where} in {attempts}: {among}; the more complete row, in {names[used].name}, is used")
    return problems


def _agree_ignoring_nulls(values: pa.Array, others: pa.Array) -> bool:
    """Whether all values equal those of `others`; nulls are ignored."""
    both = pc.and_(values.is_valid(), others.is_valid())
    return _all_equal(values.filter(both), others.filter(both))


def _combine_chunks(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def _all_equal(values: pa.Array, others: pa.Array) -> bool:
    """Whether all values except nulls equal those of `others`; NaN equals NaN."""
    if values.equals(others):
        return True
    if values.null_count:
        there = values.is_valid()
        values, others = values.filter(there), others.filter(there)
    if values.type != others.type or others.null_count:
        return False
    if pa.types.is_list(values.type):
        same_lengths = pc.list_value_length(values).equals(pc.list_value_length(others))
        inside, others_inside = pc.list_flatten(values), pc.list_flatten(others)
        return bool(same_lengths and inside.is_valid().equals(others_inside.is_valid())) and _all_equal(
            inside, others_inside
        )
    if pa.types.is_floating(values.type):
        # Compare bits, because NaN is unequal to itself.
        bits = {64: pa.int64(), 32: pa.int32()}[values.type.bit_width]
        return bool(values.view(bits).equals(others.view(bits)))
    return bool(values.equals(others))
