"""The rows of a store against the folders of its attempts: each holds what the worker itself wrote."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlbench.atomic_file import read_text
from dlbench.names import why_unsafe
from dlbench.results.reader import Reader
from dlbench.results.records import Measurement, Outcome, Record

_FOLDER = "attempts"
#: Columns that only the worker writes.
_MEASURED = tuple(Measurement.__dataclass_fields__)


def attempt_folders(sources: Sequence[str | Path]) -> dict[str, Path]:
    """The folder of each attempt that lies with these results, those of single nodes too."""
    roots = [Path(source) for source in sources if Path(source).is_dir()]
    found = {folder for root in roots for depth in range(4) for folder in root.glob(f"{'*/' * depth}{_FOLDER}")}
    return {path.name: path for folder in sorted(found) for path in sorted(folder.glob("*/"))}


def compare(reader: Reader, folders: Mapping[str, Path]) -> Iterator[tuple[str, str, str]]:
    """Compare rows with folders, and name the attempts that are in no Parquet file.

    Yields:
        The check, the attempt, and what is wrong with it, "" where nothing is.
    """
    held: set[str] = set()
    for batch in reader.batches(_MEASURED):
        for place, row in enumerate(batch.scalars.to_pylist()):
            attempt = row["attempt_id"]
            held.add(attempt)
            outcome = _outcome(folders.get(attempt))
            if outcome is None or row["rank"] >= len(outcome.ranks):
                continue
            row |= {name: numbers.of(place).tolist() for name, numbers in batch.lists.items()}
            names = _differing(row, outcome.ranks[row["rank"]][1])
            yield "attempts", attempt, f"differs from its result.json in {', '.join(names[:6])}" if names else ""
    for attempt, path in folders.items():
        record = _record(path)
        if record is not None:
            missing = "" if attempt in held else f"ended as {record.status}, and is in no Parquet file"
            yield "left out", attempt, missing


def _outcome(folder: Path | None) -> Outcome | None:
    if folder is None:
        return None
    try:
        return Outcome.from_json(read_text(folder / "result.json"))
    except (OSError, ValueError):
        return None


def _record(folder: Path) -> Record | None:
    if why_unsafe(folder.name):
        return None
    try:
        return Record.from_json(read_text(folder / "record.json"), folder.name)
    except (OSError, ValueError):
        return None


def _differing(row: dict[str, Any], measured: Measurement) -> list[str]:
    return [name for name in _MEASURED if name in row and not _same(row[name], getattr(measured, name))]


def _same(stored: Any, written: Any) -> bool:
    if isinstance(written, tuple):
        own = [] if stored is None else list(stored)
        return len(own) == len(written) and all(map(_same, own, written))
    if isinstance(stored, float) and math.isnan(stored):
        stored = None
    return bool(stored == written)
