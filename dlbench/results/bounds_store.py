"""Ceilings and profiles in the results folders of a report."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from dlbench.atomic_file import read_text
from dlbench.results.bounds_records import ProfileRun, parse_run_json
from dlbench.results.bounds_schema import (
    ALL_REDUCE_SCHEMA,
    CEILINGS_FOLDER,
    CEILINGS_SCHEMA,
    PROFILES_FOLDER,
    read_run_frame,
    read_run_table,
)
from dlbench.results.store import SkippedPart

if TYPE_CHECKING:
    import pandas as pd


CEILINGS_FILES, ALL_REDUCE_FILES = "ceilings-*.parquet", "allreduce-*.parquet"


@dataclass(frozen=True)
class StoredBounds:
    """Results of `dlbench ceilings`, `allreduce` and `profile`; frames are empty if there are none."""

    #: As returned by `bounds_schema.read_ceilings`, of all systems.
    ceilings: pd.DataFrame = field(default_factory=lambda: read_run_frame([], CEILINGS_SCHEMA))
    all_reduces: pd.DataFrame = field(default_factory=lambda: read_run_frame([], ALL_REDUCE_SCHEMA))
    profiles: tuple[ProfileRun, ...] = ()  # by the time of their start
    files: Mapping[str, Path] = field(default_factory=dict)  # of each run by its id


def read_bounds(sources: Sequence[str | Path]) -> StoredBounds:
    """Read ceilings and profiles of these sources; unreadable files are skipped with a `SkippedPart` warning."""
    files: dict[str, Path] = {}
    ceilings, all_reduces = read_bounds_tables(sources, files)
    return StoredBounds(ceilings.to_pandas(), all_reduces.to_pandas(), read_profiles(sources, files), files)


def read_bounds_tables(
    sources: Sequence[str | Path], of_runs: dict[str, Path] | None = None
) -> tuple[pa.Table, pa.Table]:
    """Read ceilings and all-reduces of these sources with each value as it is stored.

    Unreadable files are skipped with a `SkippedPart` warning; `of_runs` receives the file of each run.
    """
    found = []
    for pattern, schema in ((CEILINGS_FILES, CEILINGS_SCHEMA), (ALL_REDUCE_FILES, ALL_REDUCE_SCHEMA)):
        tables = [schema.empty_table()]
        for file in files_in_stores(sources, CEILINGS_FOLDER, pattern):
            table = read_run_table([file], schema)
            runs = table["run_id"].drop_null().unique().to_pylist()
            if of_runs is not None:
                of_runs.update(dict.fromkeys(runs, file))
            tables += [table] if runs else []
        found.append(pa.concat_tables(tables))
    ceilings, all_reduces = found
    return ceilings, all_reduces


def files_in_stores(sources: Sequence[str | Path], name: str, pattern: str) -> list[Path]:
    """Return the files of a pattern in the folders `name` of these sources, and of the stores directly inside them."""
    folders: dict[Path, None] = {}
    for source in sources:
        # glob instead of pathlib, which rejects absolute patterns.
        found = [str(source)] if Path(source).exists() else sorted(glob.glob(str(source), recursive=True))  # noqa: PTH207
        for path in map(Path, found):
            folders[path if path.is_dir() else path.parent] = None
            if path.is_dir():
                folders |= dict.fromkeys(sorted(entry for entry in path.iterdir() if entry.is_dir()))
    return [file for folder in folders for file in sorted((folder / name).glob(pattern))]


def read_profiles(sources: Sequence[str | Path], of_runs: dict[str, Path] | None = None) -> tuple[ProfileRun, ...]:
    """Read the profiles of these sources, by the time of their start; unreadable ones are skipped with a warning.

    `of_runs` receives the file of each run.
    """
    found = []
    for file in files_in_stores(sources, PROFILES_FOLDER, "*/profile.json"):
        try:
            run = parse_run_json(ProfileRun, read_text(file))
            if of_runs is not None:
                of_runs[run.run_id] = file
            found.append(run)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            warnings.warn(f"cannot read {file}: {reason}; skipped", SkippedPart, stacklevel=4)
    return tuple(sorted(found, key=lambda run: (run.started_at, run.run_id)))
