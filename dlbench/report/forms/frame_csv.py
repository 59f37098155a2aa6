"""A large DataFrame as CSV, fast: whole rows are formatted at a time, and texts once for each different value."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd

from dlbench.csv_cells import csv_line, escape_formula, quote_field

#: Rows that are written at a time: the texts of all cells of a large frame would not fit in memory.
_ROWS_PER_PART = 5000


def csv_chunks(frame: pd.DataFrame, columns: Sequence[str]) -> Iterator[str]:
    """These columns as CSV, in parts of which only one need be in memory.

    Floats have six significant digits, lists are joined by "; ", missing values are empty. The text is what
    `DataFrame.to_csv` gives with ``float_format="%.6g"``, in a fraction of the time; but no text in it is one that a
    spreadsheet would run.
    """
    yield csv_line(columns)
    shown = [_value_formatter(frame[name]) for name in columns]
    for start in range(0, len(frame), _ROWS_PER_PART):
        chunk = slice(start, min(start + _ROWS_PER_PART, len(frame)))
        cells = [
            _column_pattern_and_cells(frame[name].iloc[chunk], show) for name, show in zip(columns, shown, strict=True)
        ]
        pattern = ",".join(field for field, _ in cells) + "\n"
        varying = [values for _, values in cells if values is not None]
        rows = zip(*varying, strict=True) if varying else [()] * (chunk.stop - start)
        yield "".join(map(pattern.__mod__, rows))


def _column_pattern_and_cells(column: pd.Series, show: Callable[[pd.Index], list[str]]) -> tuple[str, list[Any] | None]:
    """A field of the pattern of a row, and what goes into it row by row; None where all rows are alike."""
    if column.dtype == np.float64:
        numbers = column.to_numpy()
        if numbers.min() < numbers.max():  # neither holds if one is missing
            return "%.6g", numbers.tolist()
    elif column.dtype == object:
        column = _join_lists_in_column(column)
    codes, values = pd.factorize(column)
    # What is missing has the code -1: the last.
    shown = show(values)
    if not pd.api.types.is_numeric_dtype(column.dtype):  # "-inf" may be a number
        shown = [quote_field(escape_formula(text)) for text in shown]
    texts = np.array([*shown, ""], dtype=object)
    if (codes == codes[0]).all():
        return texts[codes[0]].replace("%", "%%"), None
    return "%s", texts[codes].tolist()


def _join_lists_in_column(column: pd.Series) -> pd.Series:
    """Lists as texts; each object once, for a large store repeats few."""
    cells = column.tolist()
    codes, ids = pd.factorize(np.fromiter(map(id, cells), np.int64, len(cells)))
    by_id = dict(zip(map(id, cells), cells, strict=True))
    texts = ["; ".join(cell) or None if np.ndim(cell) else cell for cell in map(by_id.__getitem__, ids.tolist())]
    return pd.Series(np.array([*texts, None], dtype=object)[codes], dtype=object)


def _value_formatter(column: pd.Series) -> Callable[[pd.Index], list[str]]:
    """How values of a column are written: times to the millisecond, where one of them has any."""
    if pd.api.types.is_float_dtype(column.dtype):
        return lambda values: list(map("%.6g".__mod__, values))
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return partial(_format_times, unit="ms" if column.dt.microsecond.any() else "s")
    return lambda values: list(map(str, values.tolist()))


def _format_times(values: pd.Index, unit: Literal["s", "ms"]) -> list[str]:
    in_utc = pd.DatetimeIndex(values).tz_convert(None).to_numpy()
    return [f"{text.replace('T', ' ')}+00:00" for text in np.datetime_as_string(in_utc, unit=unit).tolist()]
