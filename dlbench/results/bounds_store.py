"""Ceilings and profiles in the results folders of a report."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from dlbench.atomic_file import read_text
from dlbench.results.bounds_records import ProfileRun, parse_profile_run
from dlbench.results.bounds_schema import (
    ALL_REDUCE_SCHEMA,
    CEILINGS_FOLDER,
    CEILINGS_SCHEMA,
    PROFILES_FOLDER,
    read_run_files,
)
from dlbench.results.store import SkippedPart

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StoredBounds:
    """Results of `dlbench ceilings`, `allreduce` and `profile`; frames are empty if there are none."""

    #: As returned by `bounds_schema.read_ceilings`, of all systems.
    ceilings: pd.DataFrame = field(default_factory=lambda: read_run_files([], CEILINGS_SCHEMA))
    all_reduces: pd.DataFrame = field(default_factory=lambda: read_run_files([], ALL_REDUCE_SCHEMA))
    profiles: tuple[ProfileRun, ...] = ()  # by the time of their start
    files: Mapping[str, Path] = field(default_factory=dict)  # of each run by its id


def read_bounds(sources: Sequence[str | Path]) -> StoredBounds:
    """Read ceilings and profiles of these sources; unreadable files are skipped with a `SkippedPart` warning.

    Args:
        sources: as for `store.load`. A folder may contain several stores.
    """
    folders = list(dict.fromkeys(store_folders(sources)))
    files: dict[str, Path] = {}
    profiles = [run for folder in folders for run in _read_profiles(folder, files)]
    return StoredBounds(
        _read_kind(folders, "ceilings-*.parquet", CEILINGS_SCHEMA, files),
        _read_kind(folders, "allreduce-*.parquet", ALL_REDUCE_SCHEMA, files),
        tuple(sorted(profiles, key=lambda run: (run.started_at, run.run_id))),
        files,
    )


def store_folders(sources: Sequence[str | Path]) -> Iterator[Path]:
    """Iterate over the folders of these sources, and the folders directly inside, which may be stores, too."""
    for source in sources:
        # glob instead of pathlib, which rejects absolute patterns.
        found = [str(source)] if Path(source).exists() else sorted(glob.glob(str(source), recursive=True))  # noqa: PTH207
        for path in map(Path, found):
            yield path if path.is_dir() else path.parent
            if path.is_dir():
                yield from sorted(entry for entry in path.iterdir() if entry.is_dir())


def _read_kind(folders: Sequence[Path], pattern: str, schema: pa.Schema, of_runs: dict[str, Path]) -> pd.DataFrame:
    """Read the rows of all files of one kind; `of_runs` receives the run of each file."""
    files = []
    for file in (f for folder in folders for f in sorted((folder / CEILINGS_FOLDER).glob(pattern))):
        runs = read_run_files([file], schema)["run_id"].dropna()
        of_runs.update(dict.fromkeys(runs, file))
        files += [file] if len(runs) else []
    return read_run_files(files, schema)


def _read_profiles(folder: Path, of_runs: dict[str, Path]) -> Iterator[ProfileRun]:
    for file in sorted((folder / PROFILES_FOLDER).glob("*/profile.json")):
        try:
            run = parse_profile_run(read_text(file))
            of_runs[run.run_id] = file
            yield run
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            warnings.warn(f"cannot read {file}: {reason}; skipped", SkippedPart, stacklevel=4)
