"""Throughput over the baseline, per network and mode, with intervals: one panel per precision, systems as points."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from dlbench import units
from dlbench.report.analysis.labels import network_title, sort_networks
from dlbench.report.analysis.verdicts import SystemComparison, SystemRatio, sort_precisions
from dlbench.report.document import Plot
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.figure_parts import Tooltips, system_legend, system_markers
from dlbench.suites.case import MODES

#: A panel has room for so many networks.
MAX_NETWORKS = 12
#: Beyond this an interval or a ratio is drawn at the edge.
_MAX_RATIO = 64.0


def ratio_plot(brief: SystemComparison) -> Plot:
    """How many times as fast as the baseline each system is."""
    cases, base, names, groups, attempts = brief.cases, brief.base, brief.names, brief.groups, brief.attempts
    used = sort_precisions(group.precision for group in groups)
    modes = [m for m in MODES if any(group.mode == m for group in groups)]
    numbers = {(group.precision, group.mode): set(group.numbers) for group in groups}
    models = sort_networks(cases.loc[cases["number"].isin(set().union(*numbers.values())), "model"])
    others = brief.other_systems()
    rows = [(model, mode) for mode in modes for model in models[:MAX_NETWORKS]]
    gap = 0.8  # between modes, in rows
    places = {row: i + gap * modes.index(row[1]) for i, row in enumerate(rows)}
    figure = look.new_figure(1.15 + 0.21 * len(rows) + 0.05 * len(rows) * (len(others) - 1))
    panels = figure.subplots(1, len(used), sharex=True, sharey=True, squeeze=False)[0]
    marks = system_markers(names)
    tooltips = Tooltips()
    reached = [1.0]
    by_case = cases.drop_duplicates("number")
    for axes, precision in zip(panels, used, strict=True):
        axes.axvline(1.0, color=look.GREY, lw=1.1, zorder=1)
        for (model, mode), place in places.items():
            here = by_case[(by_case["model"] == model) & by_case["number"].isin(numbers.get((precision, mode), ()))]
            for i, system in enumerate(others):
                found = brief.ratio("time", base, system, (int(n) for n in here["number"]))
                if found is None:
                    continue
                y = place + 0.62 * ((i + 0.5) / len(others) - 0.5)
                work = f"{network_title(model)}, {precision} {mode}"
                text = _ratio_tooltip_text(found.swap_sides(), names[system], names[base], work)
                gid = tooltips.add(text, names[system], attempts[int(here["number"].iloc[0]), system][0])
                _draw_ratio(axes, found.swap_sides(), y, dict(marks[system]), gid)
                reached += [r for r in (found.swap_sides().value, *(found.swap_sides().interval or ())) if r > 0]
        axes.set_title(precision)
        axes.set_xlabel(f"Throughput relative to {look.fit_text_for_figure(names[base], 24)} [×], logarithmic")
        look.hide_left_axis(axes)
    _label_ratio_rows(panels[0], places, modes)
    _set_ratio_axis(panels, min(reached), max(reached))
    system_legend(figure, {system: names[system] for system in others}, marks)
    left = f" Not drawn: {len(models) - MAX_NETWORKS} networks; see the tables." if len(models) > MAX_NETWORKS else ""
    wide = min(reached) < 1 / _MAX_RATIO or max(reached) > _MAX_RATIO
    beyond = " An arrow marks a value or an interval that continues beyond the axis." if wide else ""
    same = "in the same work" if brief.paired else "at equal settings"
    words = (
        f"Throughput relative to {names[base]} {same}; right is faster. A point is the geometric mean over "
        "the batch sizes that all systems share. Its bar is the 95 % interval; a narrow one is hidden by the point. "
        f"Hollow points come from fewer than three processes.{beyond}{left}"
    )
    shown = set().union(*numbers.values())
    records = tuple(attempt for (number, _), of_case in attempts.items() if number in shown for attempt in of_case)
    return Plot("ratios", words, figure, records=records, marks=tooltips.found)


def _draw_ratio(axes: Axes, found: SystemRatio, y: float, mark: dict[str, object], gid: str) -> None:
    colour = str(mark["color"])
    value = _clip_ratio_to_axis(found.value)
    if found.interval:
        ends = [_clip_ratio_to_axis(end) for end in found.interval]
        axes.plot(ends, [y, y], color=colour, lw=2.4, alpha=0.5, solid_capstyle="butt", gid=f"{gid}-bar")
        for shape, end, true_end in zip("<>", ends, found.interval, strict=True):
            if end not in (true_end, value):
                arrow: dict[str, Any] = {"marker": shape, "markersize": 5.2, "markeredgewidth": 0, "alpha": 0.5}
                axes.plot([end], [y], ls="none", color=colour, clip_on=False, gid=f"{gid}-end", **arrow)
    # Hollow: too few runs for an interval.
    edge = {"markeredgewidth": 0} if found.interval else {"markeredgewidth": 1.3, "markerfacecolor": look.PAPER}
    axes.plot([value], [y], ls="none", markersize=5.2, gid=gid, zorder=3, clip_on=False, **edge, **mark)  # type: ignore[arg-type]
    if value != found.value:
        text = units.ratio_text(found.value)
        text, side, shift = (f"← {text}", "left", 5) if found.value < 1 else (f"{text} →", "right", -5)
        axes.annotate(
            text, (value, y), (shift, 0), textcoords="offset points", ha=side, va="center_baseline", fontsize=7,
            color=colour, gid=f"{gid}-value", bbox={"facecolor": look.PAPER, "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip


def _clip_ratio_to_axis(ratio: float) -> float:
    return min(_MAX_RATIO, max(1 / _MAX_RATIO, ratio))


def _ratio_tooltip_text(found: SystemRatio, name: str, base: str, work: str) -> str:
    reach = ", no interval (too few processes)"
    if found.interval:
        reach = f", 95 % interval {units.ratio_text(found.interval[0])} to {units.ratio_text(found.interval[1])}"
    cases = f"{found.num_cases} cases" if found.num_cases > 1 else "1 case"
    return f"{name}: {units.ratio_text(found.value)} times {base}{reach}; {work}, {cases}"


def _label_ratio_rows(axes: Axes, places: Mapping[tuple[str, str], float], modes: Sequence[str]) -> None:
    axes.set_yticks(list(places.values()), [look.fit_text_for_figure(network_title(model), 24) for model, _ in places])
    axes.set_ylim(max(places.values()) + 0.6, -1.15)
    for mode in modes:
        first = min(place for (_, of), place in places.items() if of == mode)
        axes.text(
            0, first - 0.62, mode.capitalize(), transform=axes.get_yaxis_transform(), ha="right", va="center",
            fontsize=8.5, fontweight="bold", color=look.MUTED,
        )  # fmt: skip


def _set_ratio_axis(panels: Sequence[Axes], low: float, high: float) -> None:
    """One logarithmic axis for all panels, with round ratios on it."""
    low, high = max(low / 1.08, 1 / _MAX_RATIO), min(high * 1.08, _MAX_RATIO)
    for choice in (
        (0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.6, 1.8, 2),
        (0.25, 0.5, 0.7, 1, 1.4, 2, 3, 4),
        tuple(2.0**power for power in range(-6, 7)),
        tuple(4.0**power for power in range(-3, 4)),
    ):
        ticks = [float(tick) for tick in choice if low <= tick <= high]
        if 1 < len(ticks) <= 8 and choice[0] <= low * 1.3 and choice[-1] >= high / 1.3:
            break
    for axes in panels:
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}" if math.isfinite(value) else ""))
