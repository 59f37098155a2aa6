"""`dlbench.metrics`: every metric with its interval as one DataFrame, for notebooks and for `dlbench export`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dlbench.report.analysis.content import read_content


def metrics(sources: str | Path | Sequence[str | Path] = "results", every_attempt: bool = False) -> pd.DataFrame:
    """One row per case: what names it, its axes, every metric in SI units, and the intervals as `_low` and `_high`.

    Args:
        sources: a results folder, a Parquet file, a glob pattern, NAME=SOURCE, or several of them.
        every_attempt: one row per attempt instead, failed and superseded ones included.

    Returns:
        The columns of metrics.csv and `system` (its name); without `every_attempt` also `samples` (step times [s] of
        the slowest rank) and the power trace. What is missing is NaN. `dlbench.plots` draws from such a frame, or from
        a part of it; of every attempt only what needs no samples.

    `attrs["rows"]` of the frame says where every row of the files is: how many were read, how many stand behind the
    rows of the frame ("shown"), and how many are left out for which reason.

    A part that cannot be read is passed over with a `SkippedPart` warning.

    Raises:
        StoreError: a source does not exist.
    """
    content = read_content(
        [sources] if isinstance(sources, str | Path) else sources,
        max_shown=0 if every_attempt else math.inf,
        with_rows=False,
    )
    content.warn_of_skipped()
    frame = content.attempts if every_attempt else content.shown
    names, account = content.system_names, content.account
    del content  # of a large store its other frames take gigabytes
    frame = frame.assign(system=frame["system_id"].map(names)).reset_index(drop=True)
    frame.attrs["rows"] = account.rows_with_every_attempt() if every_attempt else account.rows_read()
    return frame
