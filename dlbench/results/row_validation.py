"""Validation of every row that is read from a store, so that users of rows need no further checks.

`fit_to_schema` converts each column to its type in the schema; `drop_invalid_attempts` drops attempts with rows that do
not describe a valid measurement. Both report what they drop.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dlbench.errors import DlbenchError
from dlbench.json_text import load_json
from dlbench.results.records import DONE_STATUSES, STATUSES
from dlbench.results.schema import DEFAULTS, SCHEMA
from dlbench.safe_names import short_repr, why_unsafe_name
from dlbench.suites.case import CHOICES, Protocol, make_protocol

#: Columns that all versions of dlbench write in every row.
REQUIRED_COLUMNS = (
    *("attempt_id", "rank", "status", "started_at"),
    *("model", "mode", "precision", "batch_size", "device", "protocol"),
)
#: Whole numbers and their minimum. The maximum keeps products within 64 bits.
_MIN_VALUES = {
    **dict.fromkeys(("rank", "local_rank", "repeat", "suite_version"), 0),
    **dict.fromkeys(("batch_size", "nodes", "devices_per_node", "world_size", "bucket_cap_mb", "phase_stride"), 1),
}
_MAX_INT = 2**31 - 1
#: Valid years: clocks that were never set start in 1970; pandas' times end in 2262.
_TIME_COLUMNS = ("started_at", "finished_at")
_FIRST_TIME, _LAST_TIME = 0, int(datetime(2262, 1, 1, tzinfo=UTC).timestamp() * 1000)
_NAME_COLUMNS = ("model", "suite", "case_id", "system_key", "label")
#: Maximum bytes of names and of other texts.
_NAME_BYTES, _TEXT_BYTES = 1000, 1_000_000
_PLAIN_ID = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$"
#: Columns that are always read: they decide whether a row is dropped.
_DECIDING = {*REQUIRED_COLUMNS, *_MIN_VALUES, *_TIME_COLUMNS, *_NAME_COLUMNS, *CHOICES}
CHECKED_COLUMNS = tuple(n for n in SCHEMA.names if n in {*_DECIDING, "window_s", "parameters", "step_s"})
#: Chunk size for finding single invalid values of a column.
_MAX_MISFITS = 1000
#: Exceptions of pyarrow for invalid values.
CONVERSION_ERRORS = (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError)


def fit_to_schema(table: pa.Table, schema: pa.Schema) -> tuple[pa.Table, list[str]]:
    """Convert `table` to the columns and types of `schema`; invalid values become null and are reported.

    Columns that it lacks are null, or the value that everything had before there was such a column. So are values that
    are null because another program joined files with and without the column.
    """
    problems = []
    columns = []
    present = set(table.column_names)
    for f in schema:
        if f.name not in present:
            columns.append(pa.chunked_array([pa.repeat(pa.scalar(DEFAULTS.get(f.name), f.type), table.num_rows)]))
            continue
        column, misfits = _fit_column(table[f.name], f)
        default = None if pa.types.is_nested(f.type) else DEFAULTS.get(f.name)
        if default is not None and table[f.name].null_count:
            column = pc.if_else(table[f.name].is_null(), pa.scalar(default, f.type), column)
        columns.append(column)
        if misfits:
            of = f"of type {table[f.name].type}" if misfits == table.num_rows else f"in {misfits} of its rows"
            problems.append(f"column '{f.name}' has invalid values ({short_repr(of)[1:-1]}); treated as missing")
    return pa.table(columns, schema=schema), problems


def _fit_column(column: pa.ChunkedArray, f: pa.Field) -> tuple[pa.ChunkedArray, int]:
    """Convert the column to the type of the field; also return the number of values set to null."""
    try:
        # On an empty array: types that cannot be converted fail before any value is read.
        _cast_column(pa.chunked_array([], column.type), f.type)
    except CONVERSION_ERRORS:
        return pa.chunked_array([pa.nulls(len(column), f.type)]), len(column) - column.null_count
    misfits: list[int] = []

    def cast_and_check_part(part: pa.ChunkedArray, start: int) -> list[pa.Array]:
        try:
            return list(_require_valid_texts(_cast_column(part, f.type), f.name).chunks)
        except CONVERSION_ERRORS:
            if len(misfits) > _MAX_MISFITS:
                return [pa.nulls(len(part), f.type)]
            if len(part) == 1:
                misfits.append(start)
                return [pa.nulls(1, f.type)]
            half = len(part) // 2
            return cast_and_check_part(part.slice(0, half), start) + cast_and_check_part(part.slice(half), start + half)

    return pa.chunked_array(cast_and_check_part(column, 0), f.type), len(misfits)


def _require_valid_texts(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return the column; raise ValueError if it has texts that are too long, or not UTF-8."""
    if pa.types.is_dictionary(column.type):
        for chunk in column.chunks:
            _require_valid_texts(pa.chunked_array([chunk.dictionary]), name)
        return column
    kind = column.type.value_type if pa.types.is_list(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return column
    column.validate(full=True)  # the only check that texts are UTF-8
    texts = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    longest = pc.max(pc.binary_length(texts)).as_py() or 0
    if longest > (_TEXT_BYTES if name in _LONG_TEXT_COLUMNS else _NAME_BYTES):
        raise ValueError(f"a text of {longest} bytes is too long")
    return column


_LONG_TEXT_COLUMNS = (
    *("error", "warnings", "energy_note", "throttle_reasons", "protocol", "system_details", "system_cpu_binding"),
)


def _cast_column(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if column.type == kind:
        return column
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    if pa.types.is_dictionary(kind):
        return _dictionary_encode(column, kind)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(kind):
        return _to_utc(column, kind)
    if pa.types.is_integer(kind) and pa.types.is_floating(column.type):
        # pandas converts whole numbers with missing values to floats.
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    value = kind.value_type if pa.types.is_list(kind) else kind
    # Any number type is accepted for a float column.
    return column.cast(kind, safe=not pa.types.is_floating(value))


def _dictionary_encode(column: pa.ChunkedArray, kind: pa.DictionaryType) -> pa.ChunkedArray:
    if not pa.types.is_dictionary(column.type):
        column = _cast_column(column, kind.value_type).dictionary_encode()
    chunks = [
        pa.DictionaryArray.from_arrays(chunk.indices.cast(kind.index_type), chunk.dictionary.cast(kind.value_type))
        for chunk in column.chunks
    ]
    return pa.chunked_array(chunks, kind)


def _to_utc(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Convert times, dates or texts (with or without time zone) to UTC times."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return column.cast(pa.timestamp("ms", getattr(column.type, "tz", None)), safe=False).cast(kind)
    if str(column.type) not in ("string", "large_string", "string_view"):
        raise TypeError(f"{column.type} is not a time type")
    column = column.cast(pa.string())
    try:
        return column.cast(pa.timestamp("us", "UTC")).cast(kind, safe=False)
    except pa.ArrowInvalid:
        return column.cast(pa.timestamp("us")).cast(kind, safe=False)


def drop_invalid_attempts(table: pa.Table, present: Collection[str]) -> tuple[pa.Table, list[str]]:
    """Return the attempts whose rows are all valid, and the reasons for dropping others.

    Args:
        table: fitted rows with `CHECKED_COLUMNS` and any others; all rows of an attempt that its file has.
        present: the columns that the file has.
    """
    bad = np.zeros(table.num_rows, dtype=bool)
    reasons: list[tuple[int, str]] = []
    for places, why in _find_invalid_rows(table, present):
        if places.any():
            place = int(np.argmax(places))
            reasons.append((place, why(place)))
            bad |= places
    if not reasons:
        return table, []
    ids = table["attempt_id"]
    spoilt = pc.is_in(ids, value_set=ids.filter(pa.array(bad)).combine_chunks().drop_null())
    problems = [f"attempt {short_repr(ids[place].as_py())} is skipped: {reason}" for place, reason in reasons]
    num_attempts = len(ids.filter(pa.array(bad)).unique())
    if num_attempts > len(problems):
        problems.append(f"in total {num_attempts} attempts are skipped for reasons like these")
    return table.filter(pc.and_not(pc.invert(spoilt), pa.array(bad))), problems


#: Invalid rows, and a function from an index to the reason.
_Fault = tuple[NDArray[np.bool_], Callable[[int], str]]


def _find_invalid_rows(table: pa.Table, present: Collection[str]) -> Iterable[_Fault]:
    for name in REQUIRED_COLUMNS:
        if table[name].null_count:
            yield table[name].is_null().to_numpy(), partial("some rows have no value in column '{}'".format, name)
    yield from _values_out_of_range(table)
    if not pc.all(pc.match_substring_regex(table["attempt_id"], _PLAIN_ID), min_count=0).as_py():
        yield from _invalid_values(table, "attempt_id", why_unsafe_name)
    for name, known in {"status": STATUSES, **CHOICES}.items():
        yield from _invalid_values(table, name, partial(_why_unknown_choice, known))
    for name in _NAME_COLUMNS:
        yield from _invalid_values(table, name, why_not_one_line)
    yield from _invalid_values(table, "protocol", _why_invalid_protocol)
    yield from _invalid_step_times(table)
    if {"window_s", "parameters"} <= set(present):
        unmeasured = pc.and_(pc.is_null(table["window_s"]), pc.is_null(table["parameters"]))
        lost = pc.and_(pc.is_in(table["status"], pa.array(DONE_STATUSES)), unmeasured)
        yield _to_bool_array(lost), lambda _: "it has no measured values"


def _values_out_of_range(table: pa.Table) -> Iterable[_Fault]:
    limits = {name: (least, _MAX_INT) for name, least in _MIN_VALUES.items()}
    limits |= dict.fromkeys(_TIME_COLUMNS, (_FIRST_TIME, _LAST_TIME))
    for name, (least, greatest) in limits.items():
        column = table[name].cast(pa.int64())
        extremes = pc.min_max(column).as_py()
        if (extremes["min"] or least) < least or (extremes["max"] or least) > greatest:
            is_time = name in _TIME_COLUMNS
            rule = "is not a valid time of a measurement" if is_time else f"must be from {least} to {greatest}"
            outside = pc.or_(pc.less(column, least), pc.greater(column, greatest))
            yield _to_bool_array(outside), _reason_with_value(table, name, rule)
    too_high = pc.greater_equal(table["rank"], table["world_size"])
    yield _to_bool_array(too_high), _reason_with_value(table, "rank", "must be below world_size")


def _invalid_step_times(table: pa.Table) -> Iterable[_Fault]:
    """The rows with a step that is negative or no finite number."""
    values = pc.list_flatten(table["step_s"]).to_numpy()
    wrong = ~((values >= 0) & (values < np.inf))
    if wrong.any():
        ends = np.cumsum(pc.fill_null(pc.list_value_length(table["step_s"]), 0).to_numpy())
        found = np.searchsorted(ends, np.flatnonzero(wrong), side="right")
        places = np.zeros(table.num_rows, dtype=bool)
        places[found] = True
        first = dict(zip(found[::-1].tolist(), values[wrong][::-1].tolist(), strict=True))
        yield places, lambda place: f"step_s contains {first[place]}; times must be at least 0 s"


def _to_bool_array(places: pa.ChunkedArray) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = pc.fill_null(places, False).to_numpy()
    return mask


def _reason_with_value(table: pa.Table, name: str, rule: str) -> Callable[[int], str]:
    # Python cannot represent every Arrow time: print milliseconds.
    kind = pa.int64() if name in _TIME_COLUMNS else SCHEMA.field(name).type
    return lambda place: f"{name} is {short_repr(table[name].cast(kind)[place].as_py())}; it {rule}"


def _invalid_values(table: pa.Table, name: str, fault: Callable[[Any], str]) -> Iterable[_Fault]:
    """Return the rows with an invalid value of a column; each distinct value is checked once."""
    found = {value: why for value in table[name].unique().to_pylist() if value is not None and (why := fault(value))}
    if found:
        places = pc.is_in(table[name], value_set=pa.array(list(found), pa.string()))
        values = table[name]
        yield _to_bool_array(places), lambda place: f"{name} is {short_repr(v := values[place].as_py())}; it {found[v]}"


def _why_unknown_choice(known: Sequence[str], value: str) -> str:
    return "" if value in known else f"must be one of {', '.join(known)}"


def why_not_one_line(value: str) -> str:
    """Return why a text is not a name, which must fit on one line; "" if it is one."""
    return "" if value and value.isprintable() else "must be a text of one line"


def _why_invalid_protocol(text: str) -> str:
    try:
        values = load_json(text)
        # A newer dlbench may have additional keys.
        known = Protocol.__dataclass_fields__
        make_protocol({k: v for k, v in values.items() if k in known} if isinstance(values, dict) else values)
    except (ValueError, DlbenchError) as error:
        return f"is not a valid protocol: {short_repr(str(error), 200)[1:-1]}"
    return ""
