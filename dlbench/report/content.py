"""What a report is made of: the data read from the stores, and the kinds of block that a section holds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from dlbench.report import derive
from dlbench.report.figure_parts import Plot
from dlbench.report.labels import system_ids, system_labels
from dlbench.report.render import Table
from dlbench.results import store
from dlbench.results.records import DONE_STATUSES

#: Confidence intervals are computed for, and tables and figures made of, at most so many cases; metrics.csv has all.
MAX_SHOWN = 2000
_TRACES = ("power_time_s", "power_w", "power_limit_w")


@dataclass(frozen=True)
class Content:
    """The data behind a report, read once."""

    sources: tuple[str, ...]
    rows: pd.DataFrame  # as stored: one per rank
    attempts: pd.DataFrame  # one per attempt, all metrics
    shown: pd.DataFrame  # of each case the attempt that counts, with samples and intervals
    failed: pd.DataFrame  # of each case without samples the latest attempt
    system_names: dict[str, str]  # by system_id
    skipped: tuple[str, ...]  # parts that could not be read, in words

    @property
    def left_out(self) -> int:
        """How many measured cases are beyond `MAX_SHOWN` and stand in metrics.csv alone."""
        latest = derive.current(self.attempts)
        return int(latest["status"].isin(DONE_STATUSES).sum()) - len(self.shown)

    def of_system(self, system_id: str) -> pd.DataFrame:
        """The shown cases of one system."""
        return self.shown[self.shown["system_id"] == system_id]


def read(sources: Sequence[Path | str]) -> Content:
    """Read the stores and derive everything that a report shows.

    Raises:
        StoreError: a source does not exist.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", store.SkippedPart)
        rows = store.load([str(source) for source in sources])
    attempts = derive.tidy(rows)
    attempts["system_id"] = system_ids(attempts)
    latest = derive.current(attempts)
    done = latest["status"].isin(DONE_STATUSES) & latest["steps"].gt(0)
    shown = derive.with_intervals(latest[done].head(MAX_SHOWN))
    traces = rows.drop_duplicates("attempt_id").set_index("attempt_id").reindex(shown["attempt_id"])
    return Content(
        sources=tuple(str(source) for source in sources),
        rows=rows,
        attempts=attempts,
        shown=shown.assign(**{name: traces[name].to_numpy() for name in _TRACES}),
        failed=latest[~latest["status"].isin(DONE_STATUSES)],
        system_names=system_labels(rows),
        skipped=tuple(str(w.message) for w in caught if issubclass(w.category, store.SkippedPart)),
    )


@dataclass(frozen=True)
class KeyFigure:
    """One large number at the head of a report."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Block:
    """One part of a section: words, key figures, a figure or a table, whichever is given."""

    words: str = ""
    figures: tuple[KeyFigure, ...] = ()
    plot: Plot | None = None
    table: Table | None = None
    heading: str = ""
    folded: bool = False  # shown on demand
    filters: tuple[str, ...] = ()  # columns of the table to choose by


@dataclass(frozen=True)
class Section:
    """A chapter of a report."""

    id: str
    title: str
    blocks: Sequence[Block] = field(default=())
