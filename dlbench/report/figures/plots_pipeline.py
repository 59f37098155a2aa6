"""The figure of the input pipeline: three throughputs over the processes of the loader."""

from typing import Any

import pandas as pd

from dlbench.report.analysis.labels import network_title, sort_networks
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.document import Plot
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.figure_parts import label_outer_axes, panel_grid, panel_title
from dlbench.report.figures.log_axes import make_log_axis
from dlbench.suites.case import MODES, PRECISIONS

_MAX_PANELS = 6
#: Rates that differ by more are shown on a logarithmic scale: on a linear one the smaller ones lie on the axis.
_MIN_LOG_RATIO = 20
_LINE_STYLES: dict[str, dict[str, Any]] = {
    "loader_throughput": {"color": look.ORANGE, "marker": "s", "ls": "none"},
    "device_throughput": {"color": look.MUTED, "marker": "_", "ls": "none"},
    "throughput": {"color": look.BLUE, "marker": "o", "ls": "none"},
}


def pipeline_plot(cases: pd.DataFrame) -> Plot:
    """One panel per network, mode and precision: loader alone, device alone, both together."""
    by = ["model", "mode", "precision"]
    place = {name: i for i, name in enumerate([*sort_networks(cases["model"]), *MODES, *PRECISIONS])}
    keys = sorted(
        cases[by].drop_duplicates().itertuples(index=False, name=None), key=lambda key: [place[part] for part in key]
    )[:_MAX_PANELS]
    values = cases[list(_LINE_STYLES)]
    is_wide = values.max().max() > _MIN_LOG_RATIO * values.min().min() > 0  # one kind of axis for all panels
    figure, panels = panel_grid(len(keys), height=2.3)
    for key, axes in zip(keys, panels, strict=True):
        own = cases[(cases[by] == list(key)).all(axis=1)].sort_values("loader_workers")
        for metric, mark in _LINE_STYLES.items():
            axes.plot(own["loader_workers"], own[metric], markersize=6, **mark)
        axes.set_title(f"{look.fit_text_for_figure(network_title(key[0]), 26)}\n{panel_title(own)}")
        if is_wide:
            make_log_axis(axes, "y")
        else:
            axes.set_ylim(bottom=0)
        axes.set_xticks(sorted(own["loader_workers"].unique()))
    label_outer_axes(panels, "Loader workers", METRICS["throughput"].heading)
    look.add_legend(figure, {METRICS[metric].title: mark for metric, mark in _LINE_STYLES.items()})
    words = (
        "Loader and device together reach at most the lower of their throughputs. Where squares are below the dashed "
        "line, the loader is the limit."
    )
    return Plot("pipeline", words, figure, records=tuple(cases["attempt_id"]))
