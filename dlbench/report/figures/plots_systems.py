"""Figures of several systems: what each reaches at the same setting, and what energy its throughput costs."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from dlbench.report.analysis import confidence_levels
from dlbench.report.analysis.case_selection import MAX_ROWS, attempt_ids_of_rows
from dlbench.report.analysis.labels import network_title, setting_label, sort_networks, varying_axes
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.ranking import keep_common_energy_scope
from dlbench.report.analysis.side_by_side import axes_equal_across_systems
from dlbench.report.document import Plot
from dlbench.report.figures import figure_parts
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.log_axes import choose_axis_unit, make_log_axis
from dlbench.report.figures.plots_dots import ColourColumn, dot_plot, value_with_interval_text

_MAX_PANELS = 12


def metric_over_systems_plot(cases: pd.DataFrame, names: Mapping[str, str], metric: str, name: str) -> Plot:
    """A metric per network, mode and system, at the setting that the systems share.

    Args:
        cases: as `side_by_side.select_representative_cases` gives them, one row per case and system.
    """
    known = cases[cases[metric].gt(0)]
    if known.empty:
        return Plot(name, f"No shared case has a value for: {METRICS[metric].title.lower()}.")
    axes = ["precision", "batch_size", *(a for a in varying_axes(known) if a not in ("device", "repeat"))]
    axes = axes_equal_across_systems(known, axes)
    shown = known.assign(setting=[setting_label(case, axes) for case in known.to_dict("records")])
    marks = figure_parts.system_markers(names)
    figure, tooltips = dot_plot(
        shown, metric, ColourColumn("system_id", marks, names), with_batch=False, with_setting=True
    )
    figure_parts.system_legend(figure, {s: n for s, n in names.items() if (shown["system_id"] == s).any()}, marks)
    spread = f" {figure_parts.interval_caption(confidence_levels.describe_levels(shown))}"
    words = (
        f"{METRICS[metric].description} Each network and mode is shown at the setting that most systems share, printed "
        f"under its name. If several settings were measured on equally many systems, the one with the highest "
        f"throughput is shown.{spread}"
    )
    return Plot(
        name,
        words + figure_parts.not_drawn_sentence(shown, MAX_ROWS),
        figure,
        attempt_ids_of_rows(shown),
        marks=tooltips,
    )


def energy_over_throughput_plot(cases: pd.DataFrame, names: Mapping[str, str]) -> Plot:
    """Energy per image over throughput, with the Pareto front: a panel per network; one row per case and system."""
    known = _cases_with_energy(cases)
    metered = keep_common_energy_scope(known)
    if metered.empty:
        return Plot("trade_off", "No energy was measured, so there is no trade-off between energy and throughput.")
    panels_of = sort_networks(metered["model"])[:_MAX_PANELS]
    figure, panels = figure_parts.panel_grid(len(panels_of), height=2.4, sharex=True, sharey=True)
    marks = figure_parts.system_markers(names)
    tooltips = figure_parts.Tooltips()
    joules = choose_axis_unit(metered["energy_per_image"], METRICS["energy_per_image"].unit)
    for axes, name in zip(panels, panels_of, strict=True):
        here = metered[metered["model"] == name]
        make_log_axis(axes, "x")
        make_log_axis(axes, "y", joules)
        for case in here.to_dict("records"):
            mark: dict[str, Any] = {"ls": "none", "markersize": 4.2, "alpha": 0.75, "markeredgewidth": 0}
            title = names.get(case["system_id"], "unknown")
            energy = METRICS["energy_per_image"].format(case["energy_per_image"])
            gid = tooltips.add_case_tooltip(
                case, f"{title}: {energy}, {value_with_interval_text(case, 'throughput')}", title
            )
            axes.plot([case["throughput"]], [case["energy_per_image"]], gid=gid, **mark, **marks[case["system_id"]])
        _draw_pareto_front(axes, pareto_front(here))
        axes.set_title(f"{look.fit_text_for_figure(network_title(name), 24)}\n{figure_parts.panel_title(here)}")
        axes.margins(0.12)
        axes.xaxis.set_minor_formatter(NullFormatter())
    figure_parts.label_outer_axes(
        panels, METRICS["throughput"].heading, joules.axis_label(METRICS["energy_per_image"].title)
    )
    figure_parts.system_legend(figure, {s: n for s, n in names.items() if (metered["system_id"] == s).any()}, marks)
    words = (
        "Each point is a measured setting (precision, batch, devices) of a system; right and low is better. The line "
        "is the Pareto front over all systems. For every point above the line, a point on the line is better in both "
        "energy and throughput. The table lists the points of the front. Settings differ in arithmetic: fp32 and mixed "
        "precision do not do the same work."
    )
    left = sorted({names.get(s, "unknown") for s in set(known["system_id"]) - set(metered["system_id"])})
    if left:
        words += f" Systems left out because their meters do not measure single devices: {', '.join(left)}."
    words += figure_parts.not_drawn_sentence(metered, _MAX_PANELS)
    return Plot("trade_off", words, figure, attempt_ids_of_rows(metered), marks=tooltips.found)


def pareto_fronts(cases: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    """The points of the Pareto front, for each network and mode in the figure."""
    metered = keep_common_energy_scope(_cases_with_energy(cases))
    for name in sort_networks(metered["model"]):
        here = metered[metered["model"] == name]
        yield (name, str(here["mode"].iloc[0])), pareto_front(here)


def _cases_with_energy(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases with energy and throughput: training where a network has any, for most of its cost is there."""
    known = cases[cases["energy_per_image"].gt(0) & cases["throughput"].gt(0)]
    training = set(known.loc[known["mode"] == "training", "model"])
    return known[(known["mode"] == "training") | ~known["model"].isin(training)]


def pareto_front(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases that no other one beats in both throughput and energy per image, by falling throughput."""
    ordered = cases.sort_values(["throughput", "energy_per_image"], ascending=[False, True], kind="stable")
    best_before = ordered["energy_per_image"].cummin().shift(fill_value=np.inf)
    return ordered[ordered["energy_per_image"] < best_before]


def _draw_pareto_front(axes: Axes, front: pd.DataFrame) -> None:
    """The staircase below and right of which nothing lies, and its points ringed."""
    x, y = front["throughput"].to_numpy(), front["energy_per_image"].to_numpy()
    axes.step(x, y, where="post", color=look.MUTED, lw=1.0, ls=(0, (3, 2)), zorder=1)
    axes.plot(x, y, "o", markersize=9, markerfacecolor="none", markeredgecolor=look.INK, markeredgewidth=0.8)
