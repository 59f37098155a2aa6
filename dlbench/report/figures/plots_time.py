"""Figures of what a step takes: its time by phase, its memory by kind, and its time against the counted work."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from dlbench import units
from dlbench.report.analysis import confidence_levels
from dlbench.report.analysis.case_selection import (
    attempt_ids_of_rows,
    describe_shown_cases,
    fastest_cases,
    values_and_interval_ends,
)
from dlbench.report.analysis.derived_metrics import MIN_STEPS
from dlbench.report.analysis.labels import network_title
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.document import Plot
from dlbench.report.figures import figure_parts
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.label_placement import label_points, new_label_placer
from dlbench.report.figures.log_axes import choose_axis_unit, make_log_axis
from dlbench.report.figures.plots_dots import value_with_interval_text


def step_breakdown(cases: pd.DataFrame) -> Plot:
    """Training steps split into forward, backward, optimizer and rest: as times, and as shares of the step."""
    phases = cases[["forward_time", "backward_time", "optimizer_time"]].notna().all(axis=1)
    split = cases[(cases["mode"] == "training") & phases]
    # The medians of a few steps' phases need not add up to the median step.
    training = split[split["steps"] >= MIN_STEPS]
    shown = fastest_cases(training, ["model", "precision"])
    if shown.empty:
        few = f" in {MIN_STEPS} steps" if len(split) else ""
        return Plot("step_breakdown", f"No training case has measured phase times{few}.")
    parts = {
        "forward_time": look.SKY,
        "backward_time": look.BLUE,
        "optimizer_time": look.ORANGE,
        "rest_time": look.GREY,
    }
    figure = look.new_figure(figure_parts.figure_height(len(shown)))
    left, right = figure.subplots(1, 2, sharey=True)
    values = shown[list(parts)].fillna(0.0)
    factor, unit = figure_parts.choose_time_unit(shown["step_time"])
    shares = values.div(values.sum(axis=1), axis=0)
    tooltips = figure_parts.Tooltips()
    ids = [
        [tooltips.add_case_tooltip(case, _phase_tooltip(case, str(part), share)) for part, share in row.items()]
        for case, row in zip(shown.to_dict("records"), shares.to_dict("records"), strict=True)
    ]
    figure_parts.draw_stacked_bars(left, values / factor, parts, ids)
    figure_parts.draw_stacked_bars(right, 100 * shares, parts)
    left.set_title(figure_parts.panel_title(shown))
    right.set_title(figure_parts.panel_title(shown))
    ends = values.sum(axis=1).combine(shown["step_time"], max)
    for y, (end, step) in enumerate(zip(ends, shown["step_time"], strict=True)):
        left.annotate(
            units.seconds_text(step),
            (end / factor, y),
            (4, 0),
            textcoords="offset points",
            **figure_parts.SMALL_TEXT_STYLE,
        )
    figure_parts.label_rows_by_case(left, shown, ["model", "precision", "batch_size"])
    left.set_xlim(0, 1.2 * ends.max() / factor)
    left.set_xlabel(f"{METRICS['step_time'].title} [{unit}]")
    right.set_xlim(0, 100)
    right.set_xlabel("Share of the step [%]")
    look.add_legend(figure, look.bar_legend_markers({METRICS[name].title: colour for name, colour in parts.items()}))
    words = f"Time of a training step by phase. {describe_shown_cases(training, shown)}"
    left_out = sorted(set(map(network_title, split["model"])) - set(map(network_title, training["model"])))
    if left_out:
        words += f" Not drawn because of fewer than {MIN_STEPS} steps: {', '.join(left_out)}."
    return Plot("step_breakdown", words.strip(), figure, attempt_ids_of_rows(shown), marks=tooltips.found)


def _phase_tooltip(case: dict[Any, Any], part: str, share: float) -> str:
    return f"{METRICS[part].title}: {units.seconds_text(case[part])}, {units.percent_text(share)} of the step"


def memory_plot(cases: pd.DataFrame) -> Plot:
    """What a case keeps in memory by kind, stacked, and the measured peaks as marks."""
    known = cases[cases[[*_MEMORY_PARTS, *_MEMORY_MARKS]].notna().any(axis=1)]
    shown = fastest_cases(known, ["model", "mode"])
    if shown.empty:
        return Plot("memory", "No case has a memory reading.")
    # Host memory says something about the network only where there is no memory of a device.
    marks = [n for n in ("memory_allocated", "memory_device") if shown[n].notna().any()] or ["memory_rss"]
    figure, panels = figure_parts.figure_with_panel_per_mode(shown)
    top = shown[[*_MEMORY_PARTS, *marks]].max().max()
    factor, unit = (2**30, "GiB") if top >= 2**30 else (2**20, "MiB")
    tooltips = figure_parts.Tooltips()
    for axes, own in panels:
        rows = own.to_dict("records")
        parts = [
            [tooltips.add_case_tooltip(case, _memory_tooltip(case, part)) for part in _MEMORY_PARTS] for case in rows
        ]
        figure_parts.draw_stacked_bars(axes, own[list(_MEMORY_PARTS)].fillna(0.0) / factor, _MEMORY_PARTS, parts)
        for y, case in enumerate(rows):
            for name in marks:
                gid = tooltips.add_case_tooltip(case, _memory_tooltip(case, name))
                axes.plot([case[name] / factor], [y], ls="none", gid=gid, **_MEMORY_MARKS[name])
        axes.set_xlabel(f"Memory per device [{unit}]")
    panels[0][0].set_xlim(0, 1.05 * top / factor)
    entries = look.bar_legend_markers({METRICS[n].title: c for n, c in _MEMORY_PARTS.items() if shown[n].notna().any()})
    look.add_legend(figure, entries | {METRICS[name].title: _MEMORY_MARKS[name] for name in marks})
    words = f"Memory by kind, and measured peaks. {describe_shown_cases(known, shown)}"
    beyond = shown[shown[list(_MEMORY_PARTS)].sum(axis=1) > shown["memory_allocated"]]
    if len(beyond):
        names = ", ".join(f"{network_title(c['model'])} {c['mode']}" for c in beyond.to_dict("records"))
        words += (
            f" Kinds of memory are shown at their peaks. These occur at different times: activations are freed while "
            f"gradients appear. The sum of all kinds therefore exceeds the measured peak for {names}."
        )
    return Plot("memory", words, figure, attempt_ids_of_rows(shown), marks=tooltips.found)


def _memory_tooltip(case: dict[Any, Any], part: str) -> str:
    return f"{METRICS[part].title}: {units.bytes_text(case[part])}"


def flop_time_plot(cases: pd.DataFrame) -> Plot:
    """Step time against counted FLOP, with the device's peaks as lines: of the datasheet, and as it was measured."""
    known = cases[cases["flop_per_step"].gt(0) & cases["step_time"].notna()]
    if known.empty:
        return Plot("flop_time", "No case has both a step time and a count of its FLOP.")
    figure = look.new_figure(4.6)
    panels = figure_parts.add_panel_per_mode(figure, known, sharex=True, sharey=True)
    lines = _peak_rate_lines(known)
    flop, time = choose_axis_unit(known["flop_per_step"], "FLOP"), choose_axis_unit(known["step_time"], "s")
    x = np.array([known["flop_per_step"].min() / 4, known["flop_per_step"].max() * 10])
    times = values_and_interval_ends(known, "step_time")
    # Room for the bounds below, and above for their names.
    y = (min(known["step_time"].min() / 8, times.min() / 1.5), max(known["step_time"].max() * 4, times.max() * 2))
    tooltips = figure_parts.Tooltips()
    for axes, own in panels:
        make_log_axis(axes, "x", flop)
        make_log_axis(axes, "y", time)
        axes.set_xlim(*x)
        axes.set_ylim(*y)
        _draw_peak_rate_lines(axes, x, lines)
        _draw_case_points(axes, own, tooltips)
        axes.set_title(figure_parts.panel_title(own))
        axes.set_xlabel(flop.axis_label("FLOP per step and device"))
    panels[0][0].set_ylabel(time.axis_label("Step time"))
    look.compute_layout(figure)
    for axes, own in panels:
        _label_networks(axes, own)
    figure_parts.precision_legend(figure, known)
    sources = {line.source for line in lines}
    bound = ""
    if _DATASHEET in sources:
        bound = " The solid line is the dense datasheet peak of one device: no step can be in the shaded region below."
    if _MEASURED in sources:
        bound += " The dashed line is the peak that matrix products and convolutions reached on one device."
    if _REACHED in sources:
        bound = " No peak of this device is known: the dotted line is the highest rate that any case reached."
    partial = known[known["flop_partial"].notna()]
    if len(partial):
        names = ", ".join(dict.fromkeys(network_title(name) for name in partial["model"]))
        bound += f" The FLOP count is partial for {names}: their true work is larger."
    bars = f" {figure_parts.interval_caption(confidence_levels.describe_levels(known))}"
    words = f"Step time against the counted work.{bars}{bound}"
    return Plot("flop_time", words, figure, attempt_ids_of_rows(known), marks=tooltips.found)


_MEMORY_PARTS = {
    "memory_parameters": look.BLUE,
    "memory_gradients": look.SKY,
    "memory_optimizer": look.ORANGE,
    "memory_activations": look.GREEN,
    "memory_workspace": look.GRID,
}
_MEMORY_MARKS: dict[str, dict[str, Any]] = {
    "memory_allocated": {"marker": "|", "markersize": 11, "markeredgewidth": 2.2, "color": look.INK},
    "memory_device": {"marker": "D", "markersize": 4.5, "markerfacecolor": look.PAPER, "color": look.INK},
    "memory_rss": {"marker": "o", "markersize": 4.5, "markerfacecolor": look.PAPER, "color": look.VERMILION},
}

_DATASHEET, _MEASURED, _REACHED = "datasheet", "measured", "reached here"
_LINE_STYLES: dict[str, Any] = {_DATASHEET: "-", _MEASURED: (0, (5, 3)), _REACHED: (0, (1, 2))}


@dataclass(frozen=True)
class _PeakRateLine:
    """A rate [FLOP/s] that bounds the time from below, by who says so."""

    source: str  # of `_LINE_STYLES`
    rate: float
    precisions: tuple[str, ...]

    def name(self) -> str:
        of = f" {', '.join(self.precisions)}" if self.precisions else ""
        return f"{self.source}{of}: {units.rate_text(self.rate, 'FLOP/s')}"


def _peak_rate_lines(known: pd.DataFrame) -> list[_PeakRateLine]:
    """The lines to draw: datasheet and measured peak per precision; without either, the best that was reached."""
    lines = []
    for source, column in ((_DATASHEET, "device_peak"), (_MEASURED, "measured_peak")):
        by_rate: dict[float, list[str]] = {}
        for precision, rate in known.groupby("precision", sort=False)[column].max().dropna().items():
            by_rate.setdefault(float(rate), []).append(str(precision))
        lines += [_PeakRateLine(source, rate, tuple(names)) for rate, names in by_rate.items()]
    return lines or [_PeakRateLine(_REACHED, float((known["flop_per_step"] / known["step_time"]).max()), ())]


def _draw_peak_rate_lines(axes: Axes, x: Any, lines: list[_PeakRateLine]) -> None:
    datasheet = [line.rate for line in lines if line.source == _DATASHEET]
    if datasheet:
        axes.fill_between(x, x / max(datasheet), axes.get_ylim()[0], color=look.GRID, lw=0, zorder=0)
        axes.text(
            0.98, 0.07, "faster than\nthe peak", transform=axes.transAxes, ha="right", **figure_parts.SMALL_TEXT_STYLE
        )
    for number, line in enumerate(sorted(lines, key=lambda line: line.rate)):
        colour = look.PRECISION_COLOURS.get(line.precisions[0] if line.precisions else "", look.MUTED)
        axes.plot(x, x / line.rate, color=colour, lw=1.2, ls=_LINE_STYLES[line.source], zorder=1)
        # One below the other at the top left, where no case lies: more FLOP take more time.
        place: Any = {"xy": (0.02, 0.98), "xytext": (0, -11 * number), "textcoords": "offset points"}
        axes.annotate(line.name(), xycoords="axes fraction", va="top", fontsize=8, color=colour, **place)


def _draw_case_points(axes: Axes, cases: pd.DataFrame, tooltips: figure_parts.Tooltips) -> None:
    colours = [look.PRECISION_COLOURS[p] for p in cases["precision"]]
    alpha = 0.9 if len(cases) <= 12 else 0.5
    mark: dict[str, Any] = {"marker": "o", "ls": "none", "markersize": 4.7, "markeredgewidth": 0, "zorder": 3}
    for case, colour in zip(cases.to_dict("records"), colours, strict=True):
        reached = units.rate_text(case["flop_per_step"] / case["step_time"], "FLOP/s")
        gid = tooltips.add_case_tooltip(
            case, f"{reached}: {value_with_interval_text(case, 'step_time')}", case["precision"]
        )
        axes.plot([case["flop_per_step"]], [case["step_time"]], color=colour, alpha=alpha, gid=gid, **mark)
    low, high = (cases[f"step_time_{end}"].fillna(cases["step_time"]) for end in ("low", "high"))
    axes.vlines(cases["flop_per_step"], low, high, colors=colours, lw=1.1, zorder=3)


def _label_networks(axes: Axes, cases: pd.DataFrame) -> None:
    """Each network's name beside its slowest case, where there is room for it."""
    shown = cases.sort_values(["step_time", "flop_per_step"]).drop_duplicates("model", keep="last")
    names = [look.fit_text_for_figure(network_title(name), 20) for name in shown["model"]]
    points = zip(shown["flop_per_step"], shown["step_time"], names, strict=True)
    label_points(new_label_placer(axes, cases[["flop_per_step", "step_time"]]), points, len(names))
