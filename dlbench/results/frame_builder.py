"""Rows as a pandas DataFrame, built table by table to save memory.

Equal texts of system_details and equal lists of texts share one object, and pieces of a column in which all texts are
equal share their memory; samples are views of larger arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


#: Number of columns that are built together, after which freed memory is returned to the system.
_COLUMNS_PER_PIECE = 48

#: Columns of texts of some 300 bytes that are the same in many rows.
_REPEATED_COLUMNS = ("protocol",)


class FrameBuilder:
    """Builder of a DataFrame from tables of one schema."""

    def __init__(self, schema: pa.Schema) -> None:
        self._chunks: dict[str, list[pa.Array]] = {}
        self._objects: dict[str, list[Any]] = {}
        self._known: dict[Any, Any] = {}
        self._equal: dict[str | None, pa.LargeStringArray] = {}
        self._schema = schema
        for f in schema:
            of_objects = pa.types.is_list(f.type) or pa.types.is_dictionary(f.type) or f.name in _REPEATED_COLUMNS
            (self._objects if of_objects else self._chunks)[f.name] = []

    def add(self, table: pa.Table) -> None:
        """Add the rows of a table."""
        for name, chunks in self._chunks.items():
            of_texts = pa.types.is_string(self._schema.field(name).type)
            chunks += map(self._share_equal_texts, table[name].chunks) if of_texts else table[name].chunks
        for name, objects in self._objects.items():
            for chunk in table[name].chunks:
                if name in _REPEATED_COLUMNS:
                    objects += self._texts_of_chunk(chunk.dictionary_encode())
                elif pa.types.is_dictionary(chunk.type):
                    objects += self._texts_of_chunk(chunk)
                elif pa.types.is_string(chunk.type.value_type):
                    objects += _split_lists(chunk, pc.list_flatten(chunk).to_pylist(), self._deduplicated_texts)
                else:
                    numbers = pc.list_flatten(chunk).to_numpy(zero_copy_only=False)
                    objects += _split_lists(chunk, numbers, partial(_fallback_if_empty, numbers[:0]))

    def _share_equal_texts(self, chunk: pa.StringArray) -> pa.LargeStringArray:
        """These texts; if all are equal, from an array that all such pieces share."""
        text = chunk[0].as_py() if len(chunk) else None
        same = chunk.is_null() if text is None else pc.equal(chunk, text)
        if not pc.all(same, skip_nulls=False, min_count=0).as_py():
            return chunk.cast(pa.large_string())
        equal = self._equal.get(text)
        if equal is None or len(equal) < len(chunk):
            equal = self._equal[text] = pa.repeat(pa.scalar(text, pa.large_string()), len(chunk))
        return equal.slice(0, len(chunk))

    def build(self) -> pd.DataFrame:
        """Return all rows; the builder cannot be used afterwards."""
        import pandas as pd

        # In pieces: one piece would double the memory, and a piece per column makes every later column slow.
        pieces = []
        for start in range(0, len(self._schema), _COLUMNS_PER_PIECE):
            release_memory()
            fields = list(self._schema)[start : start + _COLUMNS_PER_PIECE]
            pieces.append(pd.DataFrame({f.name: self._build_column(f) for f in fields}))
        return pd.concat(pieces, axis=1)

    def _build_column(self, f: pa.Field) -> pd.Series[Any]:
        import pandas as pd

        if f.name in self._chunks:
            kind = pa.large_string() if pa.types.is_string(f.type) else f.type  # as pandas holds texts
            values: pd.Series[Any] = pa.chunked_array(self._chunks.pop(f.name), kind).to_pandas()
            return values
        # pandas would otherwise create an Arrow text column with every text in full.
        return pd.Series(_object_array(self._objects.pop(f.name)), dtype=object)

    def _texts_of_chunk(self, chunk: pa.DictionaryArray) -> list[Any]:
        texts = [self._known.setdefault(text, text) for text in chunk.dictionary.to_pylist()]
        places = pc.fill_null(chunk.indices, len(texts)).to_numpy()
        found: list[Any] = _object_array([*texts, None])[places].tolist()
        return found

    def _deduplicated_texts(self, texts: list[str]) -> NDArray[np.object_]:
        found: NDArray[np.object_] | None = self._known.get(tuple(texts))
        if found is None:
            found = self._known[tuple(texts)] = _object_array(texts)
            found.flags.writeable = False  # the same text occurs in many rows
        return found


def as_shared_text_objects(texts: pd.Series) -> pd.Series:
    """A column of texts as Python objects: one for each different text, where `astype` makes one for each row."""
    import pandas as pd

    codes, found = texts.factorize()
    # What is missing has the code -1: the last.
    return pd.Series(_object_array([*found.tolist(), np.nan])[codes], texts.index, dtype=object, name=texts.name)


def release_memory() -> None:
    """Return freed memory to the system: the C library keeps gigabytes between the columns of a large store."""
    pa.default_memory_pool().release_unused()


def _fallback_if_empty(none: NDArray[Any], numbers: NDArray[Any]) -> NDArray[Any]:
    return numbers if numbers.size else none


def _split_lists(chunk: pa.ListArray, values: Any, share: Callable[[Any], Any]) -> list[Any]:
    """The lists of a column from all their values: `share` of each list, None for a missing one."""
    ends = np.cumsum(pc.fill_null(pc.list_value_length(chunk), 0).to_numpy()).tolist()
    lists = [share(values[start:end]) for start, end in pairwise([0, *ends])]
    if chunk.null_count:
        for place in np.flatnonzero(chunk.is_null().to_numpy(zero_copy_only=False)).tolist():
            lists[place] = None
    return lists


def _object_array(values: list[Any]) -> NDArray[np.object_]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
