"""What makes a measured process worth a second look before its figure is believed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from dlbench.results.records import CHOSEN_CLOCKS


def doubts(cases: pd.DataFrame) -> pd.DataFrame:
    """One boolean column per doubt, named by what is said of the process.

    Args:
        cases: a row each, with `status`, `throttle_reasons`, `steady`, `other_processes` and `warnings`.
    """
    return pd.DataFrame(
        {
            "unstable": cases["status"] == "unstable",
            "throttled": cases["throttle_reasons"].map(_says_throttled),
            "not warmed up": cases["steady"].map(lambda steady: steady is False),
            "on a shared device": cases["other_processes"].fillna(0).astype(float) > 0,
            "on a busy host": cases["warnings"].map(_says_busy),
        },
        index=cases.index,
        dtype=bool,
    )


def of_each(cases: pd.DataFrame) -> list[str]:
    """Per process its doubts in words, without that it is unstable, which its status says."""
    found = doubts(cases).drop(columns="unstable")
    names = [str(name) for name in found.columns]
    return [", ".join(name for name, holds in zip(names, row, strict=True) if holds) for row in found.to_numpy()]


def of_all(cases: pd.DataFrame) -> str:
    """The doubts of all in words ("2 of 3 on a busy host"); "" without any."""
    counts = doubts(cases).sum()
    several = len(cases) > 1
    said = [f"{count} of {len(cases)} {name}" if several else str(name) for name, count in counts.items() if count]
    return ", ".join(said)


def _says_throttled(reasons: object) -> bool:
    return isinstance(reasons, list | tuple | np.ndarray) and any(reason not in CHOSEN_CLOCKS for reason in reasons)


def _says_busy(warnings: object) -> bool:
    return isinstance(warnings, list | tuple | np.ndarray) and any(str(w).startswith("busy_host:") for w in warnings)
