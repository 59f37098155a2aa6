"""Throughput and energy per image over the power limit or the clock of the device."""

from collections.abc import Sequence

from dlbench import units
from dlbench.report.analysis.labels import case_axis_title, network_title, setting_label
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.power_sweep import SWEEP_AXES, PowerLimitSweep
from dlbench.report.document import Plot
from dlbench.report.figures import figure_style as look

_MAX_COLUMNS = 3
_METRIC_COLOURS = {"throughput": look.BLUE, "energy_per_image": look.VERMILION}


def power_limit_plot(sweeps: Sequence[PowerLimitSweep]) -> Plot:
    """One column per sweep: throughput above, energy below; rings mark the best points."""
    drawn = [one for one in sweeps if one.points["limit"].nunique() > 1][:_MAX_COLUMNS]
    if not drawn:
        return Plot("power", "The power limits or clocks of these cases are unknown, so they are not plotted.")
    figure = look.new_figure(4.4)
    panels = figure.subplots(2, len(drawn), squeeze=False, sharex="col")
    for column, one in enumerate(drawn):
        points = one.points[one.points["limit"].notna()]
        for axes, (metric, colour) in zip(panels[:, column], _METRIC_COLOURS.items(), strict=True):
            axes.plot(points["limit"], points[metric], color=colour, marker="o", markersize=4, ls="none")
            best = points[[metric.partition("_")[0] in names for names in points["best"]]]
            axes.plot(best["limit"], best[metric], color=colour, marker="o", markersize=10, mfc="none", ls="none")
            axes.set_ylim(bottom=0)
            if column == 0:
                axes.set_ylabel(METRICS[metric].heading)
        case = points.iloc[0].to_dict()
        for axes in panels[:, column]:
            work = setting_label(case, ["mode", "precision"])
            axes.set_title(look.fit_text_for_figure(f"{network_title(case['model'])}, {work}", 34))
        panels[1, column].set_xlabel(f"{case_axis_title(one.axis)} [{SWEEP_AXES[one.axis]}]")
    left = len(sweeps) - len(drawn)
    more = f" Not drawn: {units.count_text(left, 'sweep')}; see the table." if left else ""
    words = f"Throughput and energy against the power limit or clock. A ring marks the best point of each curve.{more}"
    return Plot("power", words, figure)
