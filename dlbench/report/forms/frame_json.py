"""A large DataFrame as JSON, fast: cells become text column by column, in Arrow."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dlbench.json_text import dump_json

#: Rows whose texts are in memory at a time.
_ROWS_PER_PART = 5000
#: Texts that JSON shows as they are, between quotation marks.
_NEEDS_NO_ESCAPE = r"^[ -!#-\[\]-~]*$"


def json_row_chunks(frame: pd.DataFrame, of_json: str) -> Iterator[str]:
    """The rows as JSON objects with a comma between them, as `dump_json` indents them, in parts.

    Args:
        frame: its floats that are not finite become null.
        of_json: the column whose texts are JSON already.
    """
    names = [dump_json(str(name)) for name in frame]
    for start in range(0, len(frame), _ROWS_PER_PART):
        some = frame.iloc[start : start + _ROWS_PER_PART]
        pieces: list[pa.Array | str] = []
        before = ("" if start == 0 else ",") + "\n  {\n   "
        for name, title in zip(frame, names, strict=True):
            cells = _json_cells(some[name], str(name) == of_json)
            before += f"{title}: "
            if isinstance(cells, str):
                before += cells
            else:
                pieces += [before, cells]
                before = ""
            before += ",\n   "
        rows = pc.binary_join_element_wise(*pieces, before.removesuffix(",\n   ") + "\n  }", "")
        yield from _separate_by_commas(rows, len(some))


def _separate_by_commas(rows: pa.Array | pa.Scalar, num_rows: int) -> Iterator[str]:
    # Without any column that varies there is one text for all rows.
    texts = rows.to_pylist() if isinstance(rows, pa.Array) else [rows.as_py()] * num_rows
    yield texts[0]
    yield from (text if text.startswith(",") else f",{text}" for text in texts[1:])


def _json_cells(column: pd.Series, is_json: bool) -> pa.Array | str:
    """The values as JSON texts; one text where all are alike."""
    if column.dtype == np.float64:
        finite = np.isfinite(column.to_numpy())
        numbers = pa.array(column.to_numpy(), mask=~finite).cast(pa.string())
        return pc.fill_null(numbers, "null") if finite.any() else "null"
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        times = pa.array(column.to_numpy(dtype="datetime64[ms]"))
        return pc.fill_null(pc.strftime(times, '"%Y-%m-%dT%H:%M:%S+00:00"'), "null")
    if isinstance(column.dtype, pd.StringDtype) and not is_json:
        texts = _combine_chunks(pa.array(column, pa.string()))
        if pc.all(pc.match_substring_regex(texts, _NEEDS_NO_ESCAPE), min_count=0).as_py():
            return pc.fill_null(pc.binary_join_element_wise('"', texts, '"', ""), "null")
    return _encode_distinct_values(column.tolist(), is_json)


def _combine_chunks(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def _encode_distinct_values(values: list[Any], is_json: bool) -> pa.Array | str:
    """Each different value as text, made once."""
    known: dict[Any, int] = {}
    texts: list[str] = []
    places = []
    for value in values:
        # What cannot be hashed is an array that stands in many rows.
        key = id(value) if hasattr(value, "tolist") or isinstance(value, list) else (type(value), value)
        place = known.get(key)
        if place is None:
            place = known[key] = len(texts)
            plain = json.loads(value or "{}") if is_json else to_json_type(value)
            texts.append(dump_json(plain).replace("\n", "\n   "))
        places.append(place)
    return texts[0] if len(texts) == 1 else pa.array(texts, pa.string()).take(pa.array(places))


def to_json_type(value: Any) -> Any:
    """A cell as a JSON type; None where it is missing."""
    if isinstance(value, list | tuple) or hasattr(value, "tolist"):
        return list(value) if getattr(value, "ndim", 1) else value.item()
    if value is None or pd.isna(value):
        return None
    return value.isoformat() if hasattr(value, "isoformat") else value
