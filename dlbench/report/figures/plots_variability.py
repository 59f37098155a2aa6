"""How far processes of one case differ from host to host, or from device to device."""

from collections.abc import Mapping, Sequence

import pandas as pd

from dlbench.report.analysis.case_selection import MAX_ROWS
from dlbench.report.analysis.variability import HardwareDeviation
from dlbench.report.document import Plot
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.figure_parts import SMALL_TEXT_STYLE, figure_height, panel_title, set_row_labels

_COLUMN_OF_KIND = {"host": "host", "device": "device_uuid"}


def hardware_deviations_plot(
    found: Sequence[HardwareDeviation], cases: pd.DataFrame, names: Mapping[str, str], kind: str
) -> Plot:
    """One row per host (or device) of all systems, one point per process, the most deviating hosts first.

    Args:
        found: as `variability.hardware_deviations` gives them.
        cases: as `variability.processes` gives them.
        kind: "host" or "device".
    """
    name = f"{kind}s"
    shown = [unit for unit in found if unit.kind == kind][:MAX_ROWS]
    if not shown:
        return Plot(name, f"No case ran on several {kind}s, so they cannot be compared.")
    figure = look.new_figure(figure_height(len(shown)))
    axes = figure.subplots()
    labels = []
    for y, unit in enumerate(shown):
        own = cases[(cases["system_id"] == unit.system) & (cases[_COLUMN_OF_KIND[kind]] == unit.name)]
        colour = look.VERMILION if unit.off else look.BLUE
        values = 100 * own["deviation"]
        axes.plot(values, [y] * len(values), "o", color=colour, markersize=3.5, alpha=0.55, markeredgewidth=0)
        axes.plot([values.median()], [y], "|", color=colour, markersize=13, markeredgewidth=2)
        if unit.off:
            word = "slow" if unit.deviation > 0 else "fast"
            text = f"{word}: {100 * unit.deviation:+.1f} %"
            axes.annotate(text, (values.max(), y), (8, 0), textcoords="offset points", **SMALL_TEXT_STYLE)
        system = look.fit_text_for_figure(names.get(unit.system, "unknown"), 24)
        several = len({u.system for u in shown}) > 1
        labels.append(look.fit_text_for_figure(unit.name, 30) + (f" · {system}" if several else ""))
    axes.axvline(0, color=look.GREY, lw=0.8)
    set_row_labels(axes, labels)
    axes.margins(x=0.15)
    axes.set_xlabel("Deviation of the step time from the median of all processes of the case [%]")
    axes.set_title(panel_title(cases))
    count = sum(unit.kind == kind for unit in found)
    more = f" Shown: the {MAX_ROWS} of {count} {kind}s that deviate most." if count > MAX_ROWS else ""
    words = f"Each point is one process; the bar is the {kind}'s median.{more}"
    return Plot(name, words, figure)
