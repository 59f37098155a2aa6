"""Figures of raw samples: how step times scatter, how they run through the window, and the power beside them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullLocator

from dlbench import units
from dlbench.report.analysis.case_selection import attempt_ids_of_rows, fastest_cases
from dlbench.report.analysis.derived_metrics import MIN_STEPS
from dlbench.report.analysis.labels import network_title
from dlbench.report.document import Plot
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.figure_parts import (
    case_label,
    choose_time_unit,
    figure_with_panel_per_mode,
    label_outer_axes,
    panel_grid,
)

#: Panels of a figure that has one per case.
MAX_PANELS = 12
#: Power that stays within this share of its median is steady, and a table tells as much as a figure.
STEADY_POWER = 0.05
#: A time series with more steps than this is drawn as the median and range of so many bins: no outlier is lost.
_MAX_POINTS = 100
_TITLE_AXES = ("mode", "precision", "batch_size")


def step_time_box_plot(cases: pd.DataFrame) -> Plot:
    """Step times of each case around their median: box, whiskers to the 5th and 95th percentile, the rest as points."""
    enough = cases["steps"] >= MIN_STEPS
    shown = fastest_cases(cases[enough], ["model", "mode"])
    if shown.empty:
        return Plot("distribution", f"No case has {MIN_STEPS} timed steps.")
    deviations = {name: 100 * (s / np.median(s) - 1) for name, s in shown["samples"].items()}
    figure, panels = figure_with_panel_per_mode(shown)
    ordinary = [float(np.percentile(np.abs(d), 95)) for d in deviations.values()]
    # Nothing is below -100 %. Above, the axis holds 95 % of the steps of 95 % of the cases; the rest is counted.
    reach = max(1.0, 2 * float(np.percentile(ordinary, 95)))
    wide = reach > 100
    low = -min(100.0, reach)
    # Right of the frame there is room for the count.
    beyond = any(np.max(d) > reach for d in deviations.values())
    high = reach * (2 * (reach / 10) ** 0.3 if wide else 2.4 if beyond else 1.18)
    for axes, own in panels:
        _draw_step_time_boxes(axes, [deviations[name] for name in own.index], reach, wide)
        axes.set_xlabel("Deviation of the step time from its median [%]")
    panels[0][0].set_xlim(low, high)
    words = (
        "Each box contains the middle half of the steps. The whiskers reach to the 5th and 95th percentile; points are "
        "steps beyond the whiskers. Text at the right edge: number of steps outside the axis, and their largest "
        "deviation. If a case ran in several processes, the process with the median step time is shown."
    )
    if wide:
        words += " The axis of the deviation is linear up to 10 %, then logarithmic."
    if len(few := cases[~enough]):
        names = [
            f"{network_title(str(c['model']))} {c['mode']} ({c['steps']:.0f})"
            for c in few.sort_values("steps").to_dict("records")
        ]
        words += f" Too few steps to be drawn (fewer than {MIN_STEPS}): {units.list_text(names, 8)}."
    return Plot("distribution", words, figure, attempt_ids_of_rows(shown))


def _draw_step_time_boxes(axes: Axes, deviations: list[Any], reach: float, wide: bool) -> None:
    """A box per case; a `wide` axis is logarithmic beyond 10 %."""
    if wide:
        axes.set_xscale("symlog", linthresh=10, linscale=0.6)
        decades = [10.0**p for p in range(1, math.floor(math.log10(2 * reach)) + 1)]
        axes.set_xticks([-100, -10, 0, *decades])
        axes.xaxis.set_major_formatter(lambda value, _: units.number_text(value, 1))
        axes.xaxis.set_minor_locator(NullLocator())
    boxes = axes.boxplot(
        deviations, orientation="horizontal", whis=(5, 95), showfliers=False, patch_artist=True, widths=0.5,
        positions=range(len(deviations)), manage_ticks=False,
    )  # fmt: skip
    for box in boxes["boxes"]:
        box.set(facecolor=look.SKY, edgecolor=look.BLUE, lw=0.8)
    for line in (*boxes["whiskers"], *boxes["caps"], *boxes["medians"]):
        line.set(color=look.BLUE, lw=1)
    for y, values in enumerate(deviations):
        _draw_outliers(axes, values, y, reach)
    axes.axvline(0, color=look.GREY, lw=0.8)


def step_times_plot(cases: pd.DataFrame) -> Plot:
    """Step times in the order in which they were measured, one panel per case."""
    shown = fastest_cases(cases[cases["steps"].gt(1)], ["model", "mode"], limit=MAX_PANELS)
    if shown.empty:
        return Plot("time_series", "No case has more than one timed step.")
    figure, panels = panel_grid(len(shown), height=1.6)
    factor, unit = choose_time_unit(shown["samples"].map(np.median))
    for axes, case in zip(panels, shown.to_dict("records"), strict=True):
        _draw_step_times(axes, case["samples"] / factor)
        axes.set_title(case_label(case, _TITLE_AXES, 30), fontsize=9)
        axes.margins(x=0.02, y=0.15)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    label_outer_axes(panels, "Step", f"Step time [{unit}]")
    words = (
        "Step times during the window. An average would hide a trend or a regular pattern. If a case ran in several "
        "processes, the process with the median step time is shown."
    )
    words += _panels_not_drawn_sentence(cases, shown, "because of too few steps or too little space")
    return Plot("time_series", words, figure, attempt_ids_of_rows(shown))


def has_varying_power(cases: pd.DataFrame) -> pd.Series[bool]:
    """Whether the power of each case varies by more than `STEADY_POWER` through its window, its first fifth aside."""

    def is_power_trace_varying(trace: Any) -> bool:
        late = np.asarray(trace, dtype=float)[len(trace) // 5 :]
        low, high = np.percentile(late, (10, 90)) if late.size else (0.0, 0.0)
        return bool(high - low > STEADY_POWER * np.median(late)) if late.size else False

    return cases["power_w"].map(is_power_trace_varying).astype(bool)


def power_trace_plot(cases: pd.DataFrame) -> Plot:
    """Sampled power through the window, one panel per case, with idle power and the limit as lines.

    Args:
        cases: with `power_time_s`, `power_w` and `power_limit_w` of the first rank beside the metrics.
    """
    points = cases["power_w"].map(_num_samples)
    # A trace whose times are not as many as its readings cannot be drawn.
    drawable = points.gt(1) & points.eq(cases["power_time_s"].map(_num_samples))
    shown = fastest_cases(cases[drawable], ["model", "mode"], limit=MAX_PANELS)
    if shown.empty:
        return Plot("power", "No case has samples of its power.")
    figure, panels = panel_grid(len(shown), height=1.6, sharey=True)
    for axes, case in zip(panels, shown.to_dict("records"), strict=True):
        axes.plot(case["power_time_s"], case["power_w"], color=look.VERMILION, lw=0.9)
        for level, name in ((case["idle_power"], "idle"), (case["power_limit_w"], "limit")):
            if level > 0:
                axes.axhline(level, color=look.MUTED, lw=0.8, ls=(0, (4, 3)))
                axes.annotate(name, (1, level), (-2, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
                              ha="right", fontsize=7.5, color=look.MUTED)  # fmt: skip
        axes.set_title(case_label(case, _TITLE_AXES, 30), fontsize=9)
    panels[0].set_ylim(bottom=0)
    label_outer_axes(panels, "Time in the measurement window [s]", "Power [W]")
    words = "Sampled power of the first rank's device. Energies are gross: idle power is included."
    words += _panels_not_drawn_sentence(cases, shown, "because of too few readings or too little space")
    return Plot("power", words, figure, attempt_ids_of_rows(shown))


def _panels_not_drawn_sentence(cases: pd.DataFrame, shown: pd.DataFrame, why: str) -> str:
    """Every network and mode that has no panel, as a sentence."""
    drawn = set(zip(shown["model"], shown["mode"], strict=True))
    pairs = dict.fromkeys(zip(cases["model"], cases["mode"], strict=True))
    left = [f"{network_title(model)} {mode}" for model, mode in pairs if (model, mode) not in drawn]
    return f" Not drawn, {why}: {', '.join(left)}." if left else ""


def _draw_outliers(axes: Axes, values: np.ndarray[tuple[int], np.dtype[np.float64]], y: int, reach: float) -> None:
    low, high = np.percentile(values, (5, 95))
    points = values[((values < low) | (values > high)) & (np.abs(values) <= reach)]
    axes.plot(points, np.full(points.size, y), "o", color=look.BLUE, markersize=2.2, alpha=0.5, markeredgewidth=0)
    outside = values[values > reach]
    if outside.size:
        text = f"▸ {units.count_text(outside.size, 'step')}, up to +{units.number_text(outside.max())} %"
        place: Any = ("axes fraction", "data")
        look_of: Any = {"fontsize": 7.5, "color": look.VERMILION, "ha": "right", "va": "center"}
        behind = {"facecolor": look.PAPER, "edgecolor": "none", "pad": 1.0}
        axes.annotate(text, (0.995, y), xycoords=place, bbox=behind, **look_of)


def _draw_step_times(axes: Axes, steps: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    if steps.size <= _MAX_POINTS:
        axes.plot(np.arange(1, steps.size + 1), steps, color=look.BLUE, lw=0.8, marker="o", markersize=1.5)
        return
    edges = np.linspace(0, steps.size, _MAX_POINTS + 1).astype(int)
    bins = [steps[a:b] for a, b in pairwise(edges)]
    x = (edges[:-1] + edges[1:] + 1) / 2
    axes.fill_between(x, [b.min() for b in bins], [b.max() for b in bins], color=look.SKY, alpha=0.5, lw=0)
    axes.plot(x, [np.median(b) for b in bins], color=look.BLUE, lw=0.8)


def _num_samples(values: object) -> int:
    return len(values) if hasattr(values, "__len__") else 0
