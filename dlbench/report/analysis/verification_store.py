"""The rows of a store against the folders of its attempts: what the workers and their supervisor wrote themselves."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dlbench.atomic_file import read_text
from dlbench.results import schema
from dlbench.results.reader import StoreReader
from dlbench.results.records import Outcome, Record
from dlbench.safe_names import why_unsafe_name

_ATTEMPTS_FOLDER = "attempts"
#: Parquet holds times in milliseconds.
_TICK = timedelta(milliseconds=1)


def attempt_folders(sources: Sequence[str | Path]) -> dict[str, Path]:
    """The folder of each ended attempt that lies with these results, those of single nodes too."""
    roots = [Path(source) for source in sources if Path(source).is_dir()]
    found = {
        folder for root in roots for depth in range(4) for folder in root.glob(f"{'*/' * depth}{_ATTEMPTS_FOLDER}")
    }
    records = (record for folder in sorted(found) for record in sorted(folder.glob("*/record.json")))
    return {record.parent.name: record.parent for record in records}


def compare_with_attempt_folders(reader: StoreReader, folders: Mapping[str, Path]) -> Iterator[tuple[str, str, str]]:
    """Compare rows with folders, and name the attempts that are in no Parquet file.

    Yields the check, the attempt, and what is wrong with it, "" where nothing is.
    """
    held: set[str] = set()
    for batch in reader.attempt_batches(schema.SCHEMA.names):
        for place, row in enumerate(batch.scalars.to_pylist()):
            attempt = row["attempt_id"]
            held.add(attempt)
            written = _rows_from_attempt_folder(folders.get(attempt))
            if row["rank"] >= len(written):
                continue
            row |= {name: numbers.row(place).tolist() for name, numbers in batch.lists.items()}
            names = [name for name, value in written[row["rank"]].items() if not _is_same_value(row.get(name), value)]
            differs = f"the row differs from the attempt's own files in {', '.join(names[:6])}"
            yield "attempts", attempt, differs if names else ""
    for attempt, path in folders.items():
        record = _read_record(path)
        if record is not None:
            missing = "" if attempt in held else f"the attempt ended as {record.status}, but is in no Parquet file"
            yield "left out", attempt, missing


def _rows_from_attempt_folder(folder: Path | None) -> list[dict[str, Any]]:
    """The rows that the files of an attempt stand for; none where these are missing or cannot be read."""
    record = None if folder is None else _read_record(folder)
    if folder is None or record is None:
        return []
    try:
        outcome = Outcome.from_json(read_text(folder / "result.json"))
    except (OSError, ValueError):
        return []
    return schema.record_rows(dataclasses.replace(record, ranks=outcome.ranks))


def _read_record(folder: Path) -> Record | None:
    if why_unsafe_name(folder.name):
        return None
    try:
        return Record.from_json(read_text(folder / "record.json"), folder.name)
    except (OSError, ValueError):
        return None


def _is_same_value(stored: Any, written: Any) -> bool:
    if isinstance(written, tuple):
        own = [] if stored is None else list(stored)
        return len(own) == len(written) and all(map(_is_same_value, own, written))
    if isinstance(stored, datetime):
        return abs(stored - datetime.fromisoformat(written)) < _TICK
    if isinstance(stored, float) and math.isnan(stored):
        stored = None
    return bool(stored == written)
