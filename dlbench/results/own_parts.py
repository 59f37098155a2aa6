"""Which attempts have a signed Parquet part of their own, found without opening 10 000 files by way of Arrow."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import pyarrow.parquet as pq

from dlbench.results import parts
from dlbench.results.schema import SCHEMA

_MAGIC = b"PAR1"
#: An attempt has one row per rank. Where there are more, the part is opened in the usual way.
_MOST_ROWS = 16


def split(found: Collection[Path], root: Path, attempts: Collection[str]) -> tuple[set[str], list[Path]]:
    """Of these Parquet files the attempts that have a part of their own, and the files that have to be opened.

    Args:
        found: Parquet files.
        root: the results folder; own parts lie in it directly.
        attempts: the names of attempts.
    """
    own: set[str] = set()
    others: list[Path] = []
    known: list[list[str]] = [list(SCHEMA.names)]  # the columns of this version, and of others as they are met
    for part in found:
        if part.stem in attempts and part.parent == root and _is_signed(part, known):
            own.add(part.stem)
        else:
            others.append(part)
    return own, others


def _is_signed(part: Path, known: list[list[str]]) -> bool:
    """As `parts.is_marked`, which takes 50 times as long, and is asked once for each list of columns."""
    mark = _mark_in(part)
    if not mark:
        return False
    if any(parts.mark(part.name, rows, columns) == mark for columns in known for rows in range(1, _MOST_ROWS + 1)):
        return True
    if not parts.is_marked(part):
        return False
    columns = list(pq.read_schema(part).names)
    if columns not in known:
        known.insert(0, columns)  # the next part is probably of the same version
    return True


def _mark_in(part: Path) -> bytes:
    """The signature in the file's footer; b"" where there is none, or the file is not whole."""
    try:
        with part.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - 8))
            tail = file.read(8)
            length = int.from_bytes(tail[:4], "little")
            if tail[4:] != _MAGIC or length + 12 > size:
                return b""
            file.seek(size - 8 - length)
            footer = file.read(length)
    except OSError:
        return b""
    # A key and a value of Thrift's compact protocol: the value's type, its length, which is 16, and its bytes.
    _, found, after = footer.partition(parts.MARK + b"\x18\x10")
    return after[:16] if found else b""
