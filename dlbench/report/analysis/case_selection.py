"""Which cases a figure or a table shows: the fastest of each group, and the values that an axis must hold."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from dlbench.report.analysis.labels import sort_networks, varying_axes
from dlbench.suites.case import MODES, PRECISIONS

#: A figure with one row per case shows at most so many.
MAX_ROWS = 24


def fastest_cases(cases: pd.DataFrame, by: Sequence[str], limit: int | None = MAX_ROWS) -> pd.DataFrame:
    """The case of each group with the highest throughput (the first, where none has one), in the order of networks."""
    order = {name: i for i, name in enumerate([*sort_networks(cases["model"]), *MODES, *PRECISIONS])}
    best = cases.sort_values("throughput", ascending=False, kind="stable").drop_duplicates(list(by))
    sorted_ = best.sort_values(list(by), key=lambda c: c.map(lambda v: order.get(v, v)), kind="stable")
    return sorted_.head(limit) if limit else sorted_


def representative_network(shown: pd.DataFrame) -> str:
    """The network that stands for all of a report: ResNet-50, or the one with the most work per image."""
    names = list(shown["model"])
    return "resnet50" if "resnet50" in names else str(names[shown["flop_per_image"].fillna(0).argmax()])


def attempt_ids_of_rows(shown: pd.DataFrame) -> tuple[str, ...]:
    """The attempts behind the rows that are drawn, by their column `records`; none where they have no such column."""
    return tuple(record for records in shown.get("records", ()) for record in records)


def values_and_interval_ends(cases: pd.DataFrame, metric: str) -> pd.Series[float]:
    """The values of a metric and the ends of their intervals, where these are above zero: what an axis has to hold."""
    names = [name for name in (metric, f"{metric}_low", f"{metric}_high") if name in cases]
    values = pd.concat([cases[name].astype(float) for name in names])
    return values[values > 0]


def describe_shown_cases(cases: pd.DataFrame, shown: pd.DataFrame) -> str:
    """Which of the cases a figure shows, as a sentence, and the precision if all have the same."""
    same = f"All in {cases['precision'].iloc[0]}." if cases["precision"].nunique() == 1 else ""
    if len(shown) >= len(cases):
        return same
    axes = [a for a in ("precision", "batch_size", *varying_axes(cases)) if cases[a].nunique() > 1]
    words = ", ".join(a.replace("_", " ") for a in axes)
    fastest = f"If the cases of a row differ in {words}, only the fastest is shown."
    return f"{fastest} The table contains all {len(cases)} cases. {same}".strip()
