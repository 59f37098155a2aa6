"""The rows of a store against the folders of its attempts: each holds what the worker itself wrote."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dlbench.atomic_file import read_text
from dlbench.names import why_unsafe
from dlbench.results.reader import Reader
from dlbench.results.records import Measurement, Outcome, Record

_FOLDER = "attempts"
#: Columns that only the worker writes.
_MEASURED = tuple(Measurement.__dataclass_fields__)


def compare(
    sources: Sequence[str | Path],
    reader: Reader,
    findings: list[Any],
    looked_at: Counter[str],
    notes: list[str],
    finding: Callable[[str, str, str], Any],
) -> None:
    """Add what differs between rows and folders, and which attempts are in no Parquet file."""
    folders = sorted(
        {folder for source in sources if Path(source).is_dir() for folder in _attempt_folders(Path(source))}
    )
    if not folders:
        notes.append(
            "No attempts' folders lie with these results: the rows cannot be compared with what workers wrote."
        )
        return
    by_id = {path.name: path for folder in folders for path in sorted(folder.iterdir()) if path.is_dir()}
    held: set[str] = set()
    for batch in reader.batches(_MEASURED):
        for place, row in enumerate(batch.scalars.to_pylist()):
            attempt = row["attempt_id"]
            held.add(attempt)
            outcome = _outcome(by_id.get(attempt))
            if outcome is None or row["rank"] >= len(outcome.ranks):
                continue
            looked_at["attempts"] += 1
            row |= {name: numbers.of(place).tolist() for name, numbers in batch.lists.items()}
            names = _differing(row, outcome.ranks[row["rank"]][1])
            if names:
                findings.append(finding("attempts", attempt, f"differs from its result.json in {', '.join(names[:6])}"))
    for attempt, path in by_id.items():
        record = _record(path)
        if record is None:
            continue
        looked_at["left out"] += 1
        if attempt not in held:
            findings.append(finding("left out", attempt, f"ended as {record.status}, and is in no Parquet file"))


def _attempt_folders(root: Path) -> list[Path]:
    """Those of the results folder and of single nodes below it."""
    patterns = (_FOLDER, f"*/{_FOLDER}", f"*/*/{_FOLDER}", f"*/*/*/{_FOLDER}")
    return [path for pattern in patterns for path in root.glob(pattern) if path.is_dir()] if root.is_dir() else []


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
