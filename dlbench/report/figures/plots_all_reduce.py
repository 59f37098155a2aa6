"""The figure of all-reduces: what the ranks of a system carry between them, over message sizes."""

from __future__ import annotations

from typing import Any

import pandas as pd

from dlbench import units
from dlbench.report.document import Plot
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.log_axes import axis_unit, make_log_axis

_COLOURS = (look.BLUE, look.VERMILION, look.GREEN, look.ORANGE, look.PINK, look.SKY)
_MARKER_SHAPES = "os^Dv<"


def all_reduce(rows: pd.DataFrame) -> Plot:
    """Bus bandwidth over message size, one line for each number of ranks and way.

    Args:
        rows: as `bounds_store.StoredBounds` has them, of one system; of several runs the latest counts.
    """
    known = rows[rows["bus_bytes_per_s"].gt(0) & rows["ranks"].gt(1)]
    by = ["nodes", "ranks", "backend"]
    known = known.sort_values("started_at", kind="stable").drop_duplicates([*by, "size_bytes"], keep="last")
    if known.empty:
        return Plot("all_reduce", "No all-reduce over several ranks has a usable time.")
    figure = look.new_figure(3.6)
    axes = figure.subplots()
    size, speed = axis_unit(known["size_bytes"], "B"), axis_unit(known["bus_bytes_per_s"], "B/s")
    make_log_axis(axes, "x", size)
    make_log_axis(axes, "y", speed)
    entries: dict[str, dict[str, Any]] = {}
    groups: list[tuple[Any, pd.DataFrame]] = list(known.groupby(by))
    for number, ((nodes, ranks, backend), line) in enumerate(groups[: len(_COLOURS)]):
        line = line.sort_values("size_bytes")
        mark: dict[str, Any] = {"color": _COLOURS[number], "marker": _MARKER_SHAPES[number], "markersize": 4.5}
        axes.plot(line["size_bytes"], line["bus_bytes_per_s"], lw=1.2, **mark)
        entries[f"{ranks} ranks on {units.count_text(nodes, 'node')}, {backend}"] = mark
    axes.set_xlabel(size.label("Message"))
    axes.set_ylabel(speed.label("Bus bandwidth"))
    axes.set_title("All-reduce · fp32")
    look.add_legend(figure, entries)
    words = (
        "All-reduces of fp32 sums. Bus bandwidth = 2(n-1)/n x message size / median time of the slowest rank; compare "
        "it with the bandwidth of a link. Small messages are limited by latency, large ones by bandwidth."
    )
    left = len(groups) - len(entries)
    return Plot("all_reduce", words + (f" Not drawn: {left} more numbers of ranks." if left else ""), figure)
