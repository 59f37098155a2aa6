"""Lines over months, with intervals and the days on which they changed."""

from collections.abc import Sequence

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

from dlbench.report.analysis.history import CaseHistory
from dlbench.report.document import Plot
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.figure_parts import label_outer_axes, panel_grid

MAX_LINES = 12
_CHANGE_COLOURS = {
    "regression": look.VERMILION,
    "improvement": look.GREEN,
    "temporary": look.ORANGE,
    "unstable": look.PINK,
    "steadier": look.SKY,
}


def history_plot(found: Sequence[CaseHistory]) -> Plot:
    """One panel per line, those with changes first: step time over that of the first level."""
    name = "history"
    judged = [line for line in found if line.has_enough_days]
    if not judged:
        return Plot(name, "No case was measured on enough days.")
    shown = judged[:MAX_LINES]
    figure, panels = panel_grid(len(shown), 2.0)
    kinds = [kind for kind in _CHANGE_COLOURS if any(change.kind == kind for line in shown for change in line.changes)]
    if kinds:
        marks = {kind: {"color": _CHANGE_COLOURS[kind], "marker": "|", "markersize": 10} for kind in kinds}
        look.add_legend(figure, marks)
    for axes, line in zip(panels, shown, strict=True):
        first = line.changes[0].index if line.changes else len(line.days)
        base = float(sorted(line.step_s[:first])[first // 2])
        deviation = 100 * (line.step_s / base - 1)
        days = date2num(line.days)  # type: ignore[no-untyped-call]
        low, high = (100 * (ends / base - 1) for ends in (line.low_s, line.high_s))
        axes.fill_between(days, low, high, color=look.BLUE, alpha=0.2, lw=0)
        axes.plot(days, deviation, ".", color=look.BLUE, markersize=3)
        for change in line.changes:
            axes.axvline(date2num(change.day), color=_CHANGE_COLOURS[change.kind], lw=1.2)  # type: ignore[no-untyped-call]
        axes.set_title(look.fit_text_for_figure(line.name, 44), fontsize=8)
        locator = AutoDateLocator(maxticks=4)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    label_outer_axes(panels, "", "Step time [%]")
    more = f" Shown: {len(shown)} of {len(judged)} lines." if len(judged) > len(shown) else ""
    words = (
        f"Each panel shows one case on one kind of device (a line of the table): the step time of each day compared "
        f"with the median before the first change. The band is the 95 % interval over the day's processes. Vertical "
        f"lines: changes.{more}"
    )
    return Plot(name, words, figure)
