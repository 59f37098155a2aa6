"""Figures of rates: throughput and energy per network, throughput over the batch, and what lower precision gains.

A figure shows what it can show readably: of many cases it takes the fastest per network, mode and precision, says so,
and leaves the rest to the table. What is missing gives no figure but a sentence that says why.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dlbench.report import figure_style as look
from dlbench.report.figure_parts import (
    MAX_ROWS,
    SMALL,
    Plot,
    choice,
    fastest,
    grid,
    height_of,
    label_outer,
    precision_legend,
    precision_marks,
)
from dlbench.report.labels import MAIN_AXES, network, network_order, varying_axes
from dlbench.report.metrics import METRICS
from dlbench.spec.case import MODES, PRECISIONS


def throughput(cases: pd.DataFrame) -> Plot:
    """Images per second per network, mode and precision."""
    return _dots(cases, "throughput", "throughput", "No case has a throughput.")


def energy(cases: pd.DataFrame) -> Plot:
    """Joules per image per network, mode and precision; says why where no meter was read."""
    return _dots(cases, "energy", "energy_per_image", no_meter(cases))


def batch_curves(cases: pd.DataFrame) -> Plot:
    """Throughput over the batch per device, one panel per network."""
    known = cases[cases["throughput"].notna()]
    several = known.groupby("model")["batch_size"].nunique()
    names = network_order(several[several > 1].index)[:12]
    if not names:
        return Plot("batch_curves", "Every network ran with one batch size only.")
    shown = fastest(known[known["model"].isin(names)], ["model", "mode", "precision", "batch_size"], limit=None)
    figure, panels = grid(len(names), height=2.1, sharex=True)
    for axes, name in zip(panels, names, strict=True):
        axes.set_xscale("log", base=2)
        look.log_axis(axes, "y", look.prefixed)
        for (mode, precision), line in shown[shown["model"] == name].groupby(["mode", "precision"]):
            line = line.sort_values("batch_size")
            colour = look.PRECISION_COLOURS[str(precision)]
            axes.plot(line["batch_size"], line["throughput"], color=colour, lw=1.3, **_MODE_LINES[str(mode)])
        axes.set_title(look.plain(network(name), 26))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    label_outer(panels, "Batch per device [img]", METRICS["throughput"].heading)
    look.legend(figure, precision_marks(shown) | {mode: {"color": look.MUTED, **_MODE_LINES[mode]} for mode in MODES})
    words = f"Throughput over the batch per device. {choice(known, shown)}"
    return Plot("batch_curves", words, figure)


def precisions(cases: pd.DataFrame) -> Plot:
    """Throughput of each precision over that of fp32, at the same batch and everything else equal."""
    pairs = _precision_pairs(cases)
    if pairs.empty:
        return Plot("precisions", "There is no case in fp32 together with the same case in another precision.")
    shown = pairs.sort_values("batch_size").drop_duplicates(["model", "mode", "precision"], keep="last")
    modes = [m for m in MODES if (shown["mode"] == m).any()]
    names = network_order(shown["model"])[:MAX_ROWS]
    figure = look.new_figure(height_of(len(names), 0.42))
    panels = figure.subplots(1, len(modes), sharex=True, squeeze=False)[0]
    for axes, mode in zip(panels, modes, strict=True):
        here = shown[(shown["mode"] == mode) & shown["model"].isin(names)]
        y = [names.index(name) for name in here["model"]]
        errors = np.abs(here[["ratio_low", "ratio_high"]].to_numpy().T - here["ratio"].to_numpy())
        colours = [look.PRECISION_COLOURS[p] for p in here["precision"]]
        axes.errorbar(here["ratio"], y, xerr=errors, fmt="none", ecolor=colours, elinewidth=1.2)
        axes.scatter(here["ratio"], y, c=colours, s=30, zorder=3)
        axes.axvline(1, color=look.INK, lw=1)
        base = here.drop_duplicates("model").set_index("model").reindex(names)
        rows = zip(base.index, base["base"], base["batch_size"], strict=True)
        axes.set_yticks(range(len(names)), [_base_label(*row) for row in rows])
        axes.invert_yaxis()
        axes.set_title(mode.capitalize())
        axes.set_xlabel("Throughput over that of fp32, same batch")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} ×")
        look.clear_frame(axes)
    panels[0].set_xlim(0, 1.08 * np.nanmax(shown["ratio_high"].fillna(shown["ratio"])))
    precision_legend(figure, shown)
    words = (
        "Gain from lower precision at the largest batch that fp32 also ran; the base of each ratio stands beside it."
    )
    return Plot("precisions", words, figure)


def no_meter(cases: pd.DataFrame) -> str:
    """Why no case has an energy: "No energy meter on this system: ..."."""
    notes = cases["energy_note"].dropna().unique()
    return f"No energy meter on this system: {notes[0]}." if len(notes) else "No energy meter on this system."


_MODE_LINES: dict[str, dict[str, Any]] = {
    "training": {"ls": "-", "marker": "o", "markersize": 3.5},
    "inference": {"ls": (0, (4, 2)), "marker": "s", "markersize": 3.5, "markerfacecolor": look.PAPER},
}


def _dots(cases: pd.DataFrame, name: str, metric: str, nothing: str) -> Plot:
    """A metric over orders of magnitude as labelled points: rows are networks, panels modes, colours precisions."""
    known = cases[cases[metric].gt(0)]
    shown = fastest(known, ["model", "mode", "precision"], limit=None)
    if shown.empty:
        return Plot(name, nothing)
    names = network_order(shown["model"])[:MAX_ROWS]
    used = [p for p in PRECISIONS if (shown["precision"] == p).any()]
    modes = [m for m in MODES if (shown["mode"] == m).any()]
    figure = look.new_figure(height_of(len(names), 0.22 + 0.16 * len(used)))
    panels = figure.subplots(1, len(modes), sharex=True, sharey=True, squeeze=False)[0]
    for axes, mode in zip(panels, modes, strict=True):
        look.log_axis(axes, "x", look.prefixed if metric == "throughput" else lambda value: look.prefixed(value, "J"))
        for case in shown[(shown["mode"] == mode) & shown["model"].isin(names)].to_dict("records"):
            offset = 0.72 / len(used) * (used.index(case["precision"]) - (len(used) - 1) / 2)
            # The label stands where there is room: left of the points in the right half.
            left = bool(case[metric] > math.sqrt(shown[metric].min() * shown[metric].max()))
            _dot(axes, case, metric, names.index(case["model"]) + offset, known["batch_size"].nunique() > 1, left)
        for y in range(len(names) - 1):
            axes.axhline(y + 0.5, color=look.GRID, lw=0.6)
        axes.set_title(mode.capitalize())
        axes.set_xlabel(METRICS[metric].heading)
        look.clear_frame(axes)
    panels[0].set_yticks(range(len(names)), [look.plain(network(n)) for n in names])
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    low, high = shown[metric].min(), shown[metric].max()
    margin = 10 ** (0.1 * max(0.7, math.log10(high / low)))
    panels[0].set_xlim(low / margin, high * margin)
    ticks = _ticks(low / margin, high * margin)
    for axes in panels:
        axes.set_xticks(ticks)
    precision_legend(figure, shown)
    return Plot(name, f"{METRICS[metric].description} {choice(known, shown)}", figure)


def _dot(axes: Axes, case: dict[Any, Any], metric: str, y: float, with_batch: bool, left: bool) -> None:
    value, colour = case[metric], look.PRECISION_COLOURS[case["precision"]]
    low, high = case.get(f"{metric}_low", math.nan), case.get(f"{metric}_high", math.nan)
    if low > 0:
        axes.plot([low, high], [y, y], color=colour, lw=4, alpha=0.45, solid_capstyle="butt")
    axes.plot([value], [y], "o", color=colour, markersize=5.5)
    text = METRICS[metric].show(value) + (f" · batch {case['batch_size']}" if with_batch else "")
    if left:
        end, place, side = (min(value, low) if low > 0 else value), (-7, 0), "right"
    else:
        end, place, side = (max(value, high) if high > 0 else value), (7, 0), "left"
    axes.annotate(text, (end, y), place, textcoords="offset points", ha=side, **SMALL).set_in_layout(False)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers over the whole of a logarithmic axis: powers of ten, finer ones where they are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        found = [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high]
        if len(found) >= 3:
            break
    return found[:: 1 + len(found) // 7]


def _precision_pairs(cases: pd.DataFrame) -> pd.DataFrame:
    """Each case that is not fp32 beside its fp32 twin: the ratio of throughputs with a cautious interval."""
    keys = [a for a in (*MAIN_AXES, *varying_axes(cases)) if a != "precision"]
    columns = ["throughput", "throughput_low", "throughput_high"]
    known = cases[cases["throughput"].notna()]
    base = known.loc[known["precision"] == "fp32", [*keys, *columns]]
    other = known.loc[known["precision"] != "fp32", [*keys, "precision", *columns]]
    pairs = other.merge(base, on=keys, suffixes=("", "_base"))
    return pairs.assign(
        base=pairs["throughput_base"],
        ratio=pairs["throughput"] / pairs["throughput_base"],
        ratio_low=pairs["throughput_low"] / pairs["throughput_high_base"],
        ratio_high=pairs["throughput_high"] / pairs["throughput_low_base"],
    )


def _base_label(name: str, base: float, batch: float) -> str:
    title = look.plain(network(name), 22)
    return title if math.isnan(base) else f"{title}\n{METRICS['throughput'].show(base)}, batch {batch:.0f}"
