"""What figures are put together from: which cases they show, named rows, stacked bars, grids of panels, captions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dlbench import units
from dlbench.report.analysis.labels import case_name, network_title, setting_label, sort_networks
from dlbench.report.document import Tooltip
from dlbench.report.figures import figure_style as look
from dlbench.suites.case import MODES, PRECISIONS

#: What bars are, wherever cases are drawn with theirs.
INTERVAL_CAPTION = (
    "Error bars: for one process of a case, the interval of its median step; for two, the range covered by their "
    "intervals; for more, the interval of their mean."
)
#: So many of what is not drawn are named.
_MAX_NAMED = 8
#: Words beside a point or a bar.
SMALL_TEXT_STYLE: dict[str, Any] = {"va": "center", "fontsize": 8, "color": look.MUTED}


class Tooltips:
    """The marks of one figure while it is drawn; `found` goes into its `Plot`."""

    def __init__(self) -> None:
        self.found: dict[str, Tooltip] = {}

    def add(self, text: str, series: str = "", record: str = "") -> str:
        """The `gid` of the part that `text` belongs to; parts with the same series are shown and hidden together."""
        gid = f"mark-{len(self.found)}"
        self.found[gid] = Tooltip(text, series, record)
        return gid

    def add_case_tooltip(self, case: Mapping[Any, Any], text: str, series: str = "") -> str:
        """`add` for a row of cases, which the text then names, and whose first record it leads to."""
        records = case.get("records")
        first = records[0] if isinstance(records, tuple) and records else ""
        return self.add(f"{text}; {case_name(case)}", series, first)


def not_drawn_sentence(cases: pd.DataFrame, limit: int) -> str:
    """The networks for which a figure of so many has no room, as a sentence; "" where all are drawn."""
    left = [network_title(name) for name in sort_networks(cases["model"])[limit:]]
    return f" Not drawn: {units.list_text(left, _MAX_NAMED)}; see the tables." if left else ""


def interval_caption(level: str) -> str:
    """What bars are, and at what confidence: `level`, as `dlbench.report.analysis.confidence_levels` names it."""
    return f"{INTERVAL_CAPTION} Confidence: {level}."


def choose_time_unit(values: pd.Series[float]) -> tuple[float, str]:
    """The unit in which the largest of these times [s] reads well: its length in seconds and its name."""
    top = values.max()
    return (1.0, "s") if top >= 2 else (1e-3, "ms") if top >= 2e-3 else (1e-6, "µs")


def label_rows_by_case(axes: Axes, shown: pd.DataFrame, by: Sequence[str]) -> None:
    """Name the rows of a figure that has one row per case."""
    varying = [a for a in by if a != "model" and shown[a].nunique() > 1]
    set_row_labels(axes, [case_label(case, varying, 26, " · ") for case in shown.to_dict("records")])


def set_row_labels(axes: Axes, labels: Sequence[str]) -> None:
    """One row for each label, the first at the top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    look.hide_left_axis(axes)


def case_label(case: Mapping[Hashable, Any], axes: Iterable[str], limit: int, between: str = "\n") -> str:
    """The network of a case, cut to `limit` characters, and the values of these axes."""
    name = look.fit_text_for_figure(network_title(str(case["model"])), limit)
    return between.join(filter(None, (name, setting_label(case, axes))))


def figure_height(num_rows: int, per_row: float = 0.27) -> float:
    return 1.25 + per_row * num_rows


def figure_with_panel_per_mode(shown: pd.DataFrame) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A figure with a panel per mode, a row per network and mode of the cases; gives each panel with them."""
    figure = look.new_figure(figure_height(int(shown["mode"].value_counts().max()), 0.42))
    panels = add_panel_per_mode(figure, shown, sharex=True)
    for axes, own in panels:
        axes.set_title(panel_title(own))
        set_row_labels(axes, [case_label(case, ("precision", "batch_size"), 26) for case in own.to_dict("records")])
    return figure, panels


def add_panel_per_mode(figure: Figure, cases: pd.DataFrame, **sharing: Any) -> list[tuple[Axes, pd.DataFrame]]:
    """A panel for each mode of the cases, side by side, with its cases."""
    parts = [own for mode in MODES if len(own := cases[cases["mode"] == mode])]
    return list(zip(figure.subplots(1, len(parts), squeeze=False, **sharing)[0], parts, strict=True))


def panel_title(cases: pd.DataFrame) -> str:
    """The title of a panel: "Training · fp32, amp_bf16"."""
    modes = " and ".join(mode for mode in MODES if (cases["mode"] == mode).any())
    precisions = ", ".join(p for p in PRECISIONS if (cases["precision"] == p).any())
    return f"{modes[:1].upper()}{modes[1:]} · {precisions}"


def draw_stacked_bars(
    axes: Axes, values: pd.DataFrame, colours: dict[str, str], ids: Sequence[Sequence[str]] = ()
) -> None:
    """Stacked bars, a row each; `ids` holds the `gid` of each part, row by row."""
    start = np.zeros(len(values))
    for number, (name, colour) in enumerate(colours.items()):
        width = values[name].to_numpy(dtype=float)
        bars = axes.barh(range(len(values)), width, left=start, height=0.62, color=colour, edgecolor=look.PAPER, lw=0.4)
        for bar, row in zip(bars, ids, strict=False):
            bar.set_gid(row[number])
        start = start + width


def panel_grid(count: int, height: float, per_row: int = 3, **sharing: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, `per_row` to a row."""
    columns = min(per_row, count)
    num_rows = math.ceil(count / columns)
    figure = look.new_figure(0.6 + height * num_rows)
    grid = figure.subplots(num_rows, columns, squeeze=False, **sharing)
    for spare in grid.flat[count:]:
        spare.set_visible(False)
    return figure, list(grid.flat[:count])


def label_outer_axes(panels: Sequence[Axes], x: str, y: str, per_row: int = 3) -> None:
    """Label the axes on the left and at the bottom only."""
    columns = min(per_row, len(panels))
    for i, axes in enumerate(panels):
        if i % columns == 0:
            axes.set_ylabel(y)
        if i + columns >= len(panels):
            axes.set_xlabel(x)
            axes.tick_params(labelbottom=True)


def precision_markers(cases: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {p: {"color": look.PRECISION_COLOURS[p]} for p in PRECISIONS if (cases["precision"] == p).any()}


def system_markers(names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Colour and shape of each system by `system_id`; the shape tells more systems apart than there are colours."""
    colours, shapes = itertools.cycle(_SYSTEM_COLOURS), itertools.cycle(_MARKER_SHAPES)
    return {s: {"color": colour, "marker": shape} for s, colour, shape in zip(names, colours, shapes, strict=False)}


_SYSTEM_COLOURS = (look.BLUE, look.VERMILION, look.GREEN, look.PINK, look.ORANGE, look.SKY, look.INK)
_MARKER_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "p")


def system_legend(figure: Figure, names: Mapping[str, str], marks: Mapping[str, dict[str, Any]]) -> None:
    """The marks of the systems under their names."""
    titles: dict[str, dict[str, Any]] = {}
    for system, name in names.items():
        title = look.fit_text_for_figure(name)
        # Long names may be the same once they are cut.
        while title in titles:
            title += "\u200a·"
        titles[title] = marks[system]
    look.add_legend(figure, titles)


def precision_legend(figure: Figure, cases: pd.DataFrame) -> None:
    """The colours of the precisions, where there is more than one."""
    marks = precision_markers(cases)
    if len(marks) > 1:
        look.add_legend(figure, marks)
