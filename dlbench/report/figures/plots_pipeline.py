"""The figure of the input pipeline: three throughputs over the processes of the loader."""

from __future__ import annotations

from typing import Any

import pandas as pd

from dlbench.report.analysis.labels import network, network_order
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.document import Plot
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.figure_parts import grid, label_outer
from dlbench.report.figures.log_axes import log_axis

_MAX_PANELS = 6
#: Rates that differ by more are shown on a logarithmic scale: on a linear one the smaller ones lie on the axis.
_LOG_RATIO = 20
_LINES: dict[str, dict[str, Any]] = {
    "loader_throughput": {"color": look.ORANGE, "marker": "s", "ls": "none"},
    "device_throughput": {"color": look.MUTED, "marker": "_", "ls": "none"},
    "throughput": {"color": look.BLUE, "marker": "o", "ls": "none"},
}


def pipeline_plot(cases: pd.DataFrame) -> Plot:
    """One panel per network: loader alone, device alone, both together."""
    names = network_order(cases["model"])[:_MAX_PANELS]
    figure, panels = grid(len(names), height=2.3)
    for name, axes in zip(names, panels, strict=True):
        own = cases[cases["model"] == name].sort_values("loader_workers")
        for metric, mark in _LINES.items():
            axes.plot(own["loader_workers"], own[metric], markersize=6, **mark)
        axes.set_title(look.plain(network(name), 26))
        values = own[list(_LINES)].to_numpy(float)
        if values.max() > _LOG_RATIO * values.min() > 0:
            log_axis(axes, "y")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xticks(sorted(own["loader_workers"].unique()))
    label_outer(panels, "Processes of the loader", METRICS["throughput"].heading)
    look.legend(figure, {METRICS[metric].title: mark for metric, mark in _LINES.items()})
    words = "Both together reach at most the smaller of the two; where squares lie below the dashes, loading limits."
    return Plot("pipeline", words, figure, records=tuple(cases["attempt_id"]))
