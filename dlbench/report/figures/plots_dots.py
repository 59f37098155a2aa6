"""Labelled points over a logarithmic axis: rows are networks, panels modes, and colour tells settings or systems apart.

Points instead of bars: an axis over orders of magnitude has no zero for bars to start from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dlbench.report.analysis.case_selection import MAX_ROWS, values_and_interval_ends
from dlbench.report.analysis.labels import network_title, sort_networks
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.document import Tooltip
from dlbench.report.figures import figure_parts
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.log_axes import choose_axis_unit, make_log_axis


@dataclass(frozen=True)
class ColourColumn:
    """What tells the points of a row apart: a column, and the mark of each of its values in their order."""

    column: str
    marks: Mapping[str, Mapping[str, Any]]
    names: Mapping[str, str] = field(default_factory=dict)

    def name(self, value: str) -> str:
        """What people call a value."""
        return self.names.get(value, value)


def dot_plot(
    shown: pd.DataFrame, metric: str, hue: ColourColumn, with_batch: bool, with_setting: bool = False
) -> tuple[Figure, dict[str, Tooltip]]:
    """One point per case with its value as words and its interval as a bar; gives the figure and its marks.

    Args:
        shown: at most one case per network, mode and value of the hue; each has the metric.
        with_batch: name the batch beside each point.
        with_setting: `shown` has a column `setting`, one per network and mode, to stand under the network's name.
    """
    names = sort_networks(shown["model"])[:MAX_ROWS]
    used = [value for value in hue.marks if (shown[hue.column] == value).any()]
    figure = look.new_figure(figure_parts.figure_height(len(names), 0.22 + 0.16 * max(len(used), 1 + with_setting)))
    tooltips = figure_parts.Tooltips()
    unit = choose_axis_unit(shown[metric], METRICS[metric].unit)
    panels = figure_parts.add_panel_per_mode(figure, shown, sharex=True, sharey=not with_setting)
    for axes, of_mode in panels:
        make_log_axis(axes, "x", unit)
        here = of_mode[of_mode["model"].isin(names)]
        for case in here.to_dict("records"):
            offset = 0.72 / len(used) * (used.index(case[hue.column]) - (len(used) - 1) / 2)
            # The label stands where there is room: left of the points in the right half.
            left = bool(case[metric] > math.sqrt(shown[metric].min() * shown[metric].max()))
            y, words = names.index(case["model"]) + offset, unit.format_value(case[metric])
            words += f" · batch {case['batch_size']}" if with_batch else ""
            name = hue.name(case[hue.column])
            gid = tooltips.add_case_tooltip(case, f"{name}: {value_with_interval_text(case, metric)}", name)
            _draw_dot(axes, case, metric, y, {**hue.marks[case[hue.column]], "gid": gid}, words, left)
        for y in range(len(names) - 1):
            axes.axhline(y + 0.5, color=look.GRID, lw=0.6)
        axes.set_title(figure_parts.panel_title(here))
        axes.set_xlabel(unit.axis_label(METRICS[metric].title))
        figure_parts.set_row_labels(axes, _row_labels(names, here, with_setting, axes is panels[0][0]))
    _set_common_axis_limits([axes for axes, _ in panels], values_and_interval_ends(shown, metric))
    return figure, tooltips.found


def value_with_interval_text(case: Mapping[Any, Any], metric: str) -> str:
    """The value of a case with its interval."""
    show = METRICS[metric].format
    low, high = case.get(f"{metric}_low", math.nan), case.get(f"{metric}_high", math.nan)
    reach = f", interval {show(low)} to {show(high)}" if low > 0 and high > 0 else ""
    return f"{show(case[metric])}{reach}"


def _row_labels(names: Sequence[str], cases: pd.DataFrame, with_setting: bool, with_name: bool) -> list[str]:
    if not with_setting:
        return [look.fit_text_for_figure(network_title(name)) for name in names]
    settings = cases.drop_duplicates("model").set_index("model")["setting"]
    labels = []
    for name in names:
        parts = [look.fit_text_for_figure(network_title(name), 26)] if with_name else []
        labels.append("\n".join([*parts, look.fit_text_for_figure(settings.get(name, ""), 30)]))
    return labels


def _set_common_axis_limits(panels: Sequence[Axes], values: pd.Series[float]) -> None:
    low, high = values.min(), values.max()
    margin = 10 ** (0.1 * max(0.7, math.log10(high / low)))
    panels[0].set_xlim(low / margin, high * margin)
    ticks = _round_ticks(low / margin, high * margin)
    for axes in panels:
        axes.set_xticks(ticks)


def _draw_dot(
    axes: Axes, case: dict[Any, Any], metric: str, y: float, mark: Mapping[str, Any], words: str, left: bool
) -> None:
    value, colour, gid = case[metric], mark["color"], mark["gid"]
    low, high = case.get(f"{metric}_low", math.nan), case.get(f"{metric}_high", math.nan)
    if low > 0:
        axes.plot([low, high], [y, y], color=colour, lw=4, alpha=0.45, solid_capstyle="butt", gid=f"{gid}-bar")
    point: dict[str, Any] = {"ls": "none", "marker": "o", "markersize": 5.5, **mark}
    axes.plot([value], [y], **point)
    if left:
        end, place, side = (min(value, low) if low > 0 else value), (-7, 0), "right"
    else:
        end, place, side = (max(value, high) if high > 0 else value), (7, 0), "left"
    note = axes.annotate(
        words, (end, y), place, textcoords="offset points", ha=side, gid=f"{gid}-words", **figure_parts.SMALL_TEXT_STYLE
    )
    note.set_in_layout(False)


def _round_ticks(low: float, high: float) -> list[float]:
    """Round numbers over the whole of a logarithmic axis: powers of ten, finer ones where they are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        found = [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high]
        if len(found) >= 3:
            break
    return found[:: 1 + len(found) // 7]
