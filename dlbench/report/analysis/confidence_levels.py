"""The confidence of intervals in words: each case's protocol asks for its own, and nearly all ask for 95 %."""

import pandas as pd

from dlbench import units
from dlbench.report.loading.intervals import confidence_of_each_protocol
from dlbench.suites.case import USUAL_CONFIDENCE


def confidence_levels(cases: pd.DataFrame) -> list[float]:
    """The different levels of these cases, the lowest first; the usual one where they have no protocol."""
    if "protocol" not in cases or cases.empty:
        return [USUAL_CONFIDENCE]
    protocols = cases["protocol"].astype(object).where(cases["protocol"].notna(), None)
    found = confidence_of_each_protocol(protocols.unique().tolist())
    return sorted({level for level in found.tolist() if level == level}) or [USUAL_CONFIDENCE]


def describe_levels(cases: pd.DataFrame) -> str:
    """The levels as words before "interval": "95 %", or "90 % or 99 % (set in each case's protocol)"."""
    return format_levels(confidence_levels(cases))


def format_levels(found: list[float]) -> str:
    """`describe_levels` of levels that are known."""
    words = " or ".join(units.confidence_text(level) for level in found)
    return f"{words} (set in each case's protocol)" if len(found) > 1 else words


def has_level_other_than_95(cases: pd.DataFrame) -> bool:
    """Whether a level is another than 95 %, so that each row of a table has to say its own."""
    return confidence_levels(cases) != [USUAL_CONFIDENCE]
