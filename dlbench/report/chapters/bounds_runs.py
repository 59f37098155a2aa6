"""The runs of `dlbench ceilings`, `allreduce` and `profile` behind a report: each with its file and its command."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from dlbench import units
from dlbench.report.analysis.labels import case_name
from dlbench.results.bounds_store import StoredBounds
from dlbench.suites.case import AXES, Case
from dlbench.table import Cell, Column, Table

#: Axes of a profile that its command always names.
_NAMED_AXES = ("mode", "precision", "batch_size", "device")


def bounds_runs_table(stored: StoredBounds) -> Table:
    """One row per run: what it measured, where, when, the file that holds it, and the command that repeats it."""
    columns = [Column("run_id", "Run"), Column("measured", "What"), Column("hostname", "Host", "left")]
    columns += [Column("started_at", "Started (UTC)", "left"), Column("file", "File", "left")]
    columns.append(Column("command", "Measure it again"))
    # By id, so that each is there once however many sources hold it.
    found = {str(row[0]): row for row in _bounds_run_rows(stored) if row[0]}
    return Table(columns, list(found.values()))


def _bounds_run_rows(stored: StoredBounds) -> Iterator[list[Cell]]:
    for frame, describe in ((stored.ceilings, _ceilings_command), (stored.all_reduces, _all_reduce_command)):
        for run_id, rows in frame.groupby("run_id", sort=False, dropna=False):
            first = rows.iloc[0]
            what, words = describe(rows)
            when = f"{first['started_at']:%Y-%m-%d %H:%M:%S}" if pd.notna(first["started_at"]) else ""
            yield _bounds_run_row(stored, str(run_id), what, first["hostname"], when, words)
    for run in stored.profiles:
        when = run.started_at[:19].replace("T", " ")
        what = f"profile, {case_name(run.case)}"
        yield _bounds_run_row(stored, run.run_id, what, run.where.hostname, when, profile_command(run.case))


def _bounds_run_row(stored: StoredBounds, run_id: str, what: str, host: str, when: str, words: list[str]) -> list[Cell]:
    file = stored.files.get(run_id)
    # <results>/ceilings/<file>, <results>/profiles/<id>/<file>
    results = ["--results", str(file.parents[2 if words[1] == "profile" else 1])] if file else []
    return [run_id, what, host or None, when, str(file or units.MISSING), shlex.join([*words, *results])]


def _ceilings_command(rows: pd.DataFrame) -> tuple[str, list[str]]:
    device = str(rows["device_kind"].iloc[0])
    return f"ceilings, {device}", ["dlbench", "ceilings", "--device", device]


def _all_reduce_command(rows: pd.DataFrame) -> tuple[str, list[str]]:
    first: dict[Any, Any] = rows.iloc[0].to_dict()
    nodes, ranks = int(first["nodes"]), int(first["ranks"])
    words = ["dlbench", "allreduce", "--nodes", str(nodes), "--devices-per-node", str(ranks // nodes)]
    words += ["--device", str(first["device_kind"]), "--backend", str(first["backend"])]
    words += ["--min-bytes", str(rows["size_bytes"].min()), "--max-bytes", str(rows["size_bytes"].max())]
    return f"all-reduce, {ranks} ranks", [*words, *(["--launcher", "srun"] if nodes > 1 else [])]


def profile_command(case: Mapping[Any, Any]) -> list[str]:
    """The command that profiles a case."""
    words, defaults = ["dlbench", "profile", str(case["model"])], Case("")
    for axis in AXES:
        value = case.get(axis, getattr(defaults, axis))
        if axis in _NAMED_AXES or (axis != "model" and value != getattr(defaults, axis)):
            words += ["-P", f"{axis}={value}"]
    return words
