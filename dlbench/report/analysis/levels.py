"""The confidence of intervals in words: each case's protocol asks for its own, and nearly all ask for 95 %."""

from __future__ import annotations

import pandas as pd

from dlbench import units
from dlbench.report.loading.intervals import confidences
from dlbench.suites.case import USUAL_CONFIDENCE


def levels(cases: pd.DataFrame) -> list[float]:
    """The different levels of these cases, the lowest first; the usual one where they have no protocol."""
    if "protocol" not in cases or cases.empty:
        return [USUAL_CONFIDENCE]
    found = confidences(cases["protocol"].astype(object).where(cases["protocol"].notna(), None).unique().tolist())
    return sorted({level for level in found.tolist() if level == level}) or [USUAL_CONFIDENCE]


def named(cases: pd.DataFrame) -> str:
    """The levels as words before "interval": "95 %", or "90 % or 99 % (set in each case's protocol)"."""
    return joined(levels(cases))


def joined(found: list[float]) -> str:
    """`named` of levels that are known."""
    words = " or ".join(units.level(level) for level in found)
    return f"{words} (set in each case's protocol)" if len(found) > 1 else words


def unusual(cases: pd.DataFrame) -> bool:
    """Whether a level is another than 95 %, so that each row of a table has to say its own."""
    return levels(cases) != [USUAL_CONFIDENCE]
