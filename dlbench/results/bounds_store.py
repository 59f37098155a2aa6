"""The ceilings and profiles that lie beside the cases of a report's sources."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from dlbench.errors import StoreError
from dlbench.results.bounds_records import ProfileRun, profile_run
from dlbench.results.bounds_schema import (
    ALL_REDUCE_SCHEMA,
    CEILINGS_FOLDER,
    CEILINGS_SCHEMA,
    PROFILES_FOLDER,
    read_files,
)
from dlbench.results.store import SkippedPart

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StoredBounds:
    """What `dlbench ceilings`, `allreduce` and `profile` left; frames without rows where that is nothing."""

    #: As `bounds_schema.read_ceilings` gives them, of any systems.
    ceilings: pd.DataFrame = field(default_factory=lambda: read_files([], CEILINGS_SCHEMA))
    all_reduces: pd.DataFrame = field(default_factory=lambda: read_files([], ALL_REDUCE_SCHEMA))
    profiles: tuple[ProfileRun, ...] = ()  # by the time of their start


def read(sources: Sequence[str | Path]) -> StoredBounds:
    """What lies in the folders of these sources; what cannot be read is passed over with a `SkippedPart` warning.

    Args:
        sources: as `store.load` takes them. A folder may itself hold stores.
    """
    folders = list(dict.fromkeys(_folders(sources)))
    profiles = [run for folder in folders for run in _profiles(folder)]
    return StoredBounds(
        _frame(folders, "ceilings-*.parquet", CEILINGS_SCHEMA),
        _frame(folders, "allreduce-*.parquet", ALL_REDUCE_SCHEMA),
        tuple(sorted(profiles, key=lambda run: (run.started_at, run.run_id))),
    )


def _folders(sources: Sequence[str | Path]) -> Iterator[Path]:
    for source in sources:
        # Not pathlib's: that takes no absolute patterns.
        found = [str(source)] if Path(source).exists() else sorted(glob.glob(str(source), recursive=True))  # noqa: PTH207
        for path in map(Path, found):
            yield path if path.is_dir() else path.parent
            if path.is_dir():
                yield from sorted(entry for entry in path.iterdir() if entry.is_dir())


def _frame(folders: Sequence[Path], pattern: str, schema: pa.Schema) -> pd.DataFrame:
    files = []
    for file in (f for folder in folders for f in sorted((folder / CEILINGS_FOLDER).glob(pattern))):
        try:
            read_files([file], schema)
            files.append(file)
        except StoreError as error:
            warnings.warn(f"{error}; passed over", SkippedPart, stacklevel=3)
    return read_files(files, schema)


def _profiles(folder: Path) -> Iterator[ProfileRun]:
    for file in sorted((folder / PROFILES_FOLDER).glob("*/profile.json")):
        try:
            yield profile_run(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            warnings.warn(f"cannot read {file}: {reason}; passed over", SkippedPart, stacklevel=4)
