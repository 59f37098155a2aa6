"""Figures of rates: throughput and energy per network, and what lower precision gains.

A figure shows what it can show readably: of many cases it takes the fastest per network, mode and precision, says so,
and leaves the rest to the table. What is missing gives no figure but a sentence that says why.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from dlbench.report.analysis import confidence_levels
from dlbench.report.analysis.case_selection import MAX_ROWS, attempt_ids_of_rows, describe_shown_cases, fastest_cases
from dlbench.report.analysis.labels import MAIN_AXES, network_title, sort_networks, varying_axes
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.document import Plot
from dlbench.report.figures import figure_parts
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.plots_dots import ColourColumn, dot_plot


def throughput_plot(cases: pd.DataFrame) -> Plot:
    """Images per second per network, mode and precision."""
    return _metric_dot_plot(cases, "throughput", "throughput", "No case has a throughput.")


def energy_plot(cases: pd.DataFrame) -> Plot:
    """Joules per image per network, mode and precision; says why where no meter was read."""
    return _metric_dot_plot(cases, "energy", "energy_per_image", no_meter_reason(cases))


def precisions_plot(cases: pd.DataFrame) -> Plot:
    """Throughput of each precision over that of fp32, at the same batch and everything else equal."""
    pairs = _pair_with_fp32_cases(cases)
    if pairs.empty:
        return Plot("precisions", "No case was measured both in fp32 and in another precision.")
    shown = pairs.sort_values("batch_size").drop_duplicates(["model", "mode", "precision"], keep="last")
    names = sort_networks(shown["model"])[:MAX_ROWS]
    figure = look.new_figure(figure_parts.figure_height(len(names), 0.42))
    panels = figure_parts.add_panel_per_mode(figure, shown, sharex=True)
    for axes, of_mode in panels:
        here = of_mode[of_mode["model"].isin(names)]
        y = [names.index(name) for name in here["model"]]
        errors = np.abs(here[["ratio_low", "ratio_high"]].to_numpy().T - here["ratio"].to_numpy())
        colours: Any = [look.PRECISION_COLOURS[p] for p in here["precision"]]
        axes.errorbar(here["ratio"], y, xerr=errors, fmt="none", ecolor=colours, elinewidth=1.2)
        axes.scatter(here["ratio"], y, c=colours, s=30, zorder=3)
        axes.axvline(1, color=look.INK, lw=1)
        base = here.drop_duplicates("model").set_index("model").reindex(names)
        rows = zip(base.index, base["base"], base["batch_size"], strict=True)
        axes.set_yticks(range(len(names)), [_fp32_reference_label(*row) for row in rows])
        axes.invert_yaxis()
        axes.set_title(f"{figure_parts.panel_title(here)} relative to fp32")
        axes.set_xlabel("Throughput relative to fp32, same batch")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} ×")
        look.hide_left_axis(axes)
    panels[0][0].set_xlim(0, 1.08 * np.nanmax(shown["ratio_high"].fillna(shown["ratio"])))
    figure_parts.precision_legend(figure, shown)
    words = (
        f"Gain from lower precision at the largest batch that was also measured in fp32. The fp32 value is printed "
        f"next to each ratio. Error bars: the lowest and the highest ratio that the intervals of the two "
        f"throughputs allow, at a confidence of {confidence_levels.describe_levels(cases)}."
    )
    return Plot("precisions", words + figure_parts.not_drawn_sentence(shown, MAX_ROWS), figure)


def no_meter_reason(cases: pd.DataFrame) -> str:
    """Why no case has an energy: "No energy meter on this system: ..."."""
    notes = cases["energy_note"].dropna().unique()
    return f"No energy meter on this system: {notes[0]}." if len(notes) else "No energy meter on this system."


def _metric_dot_plot(cases: pd.DataFrame, name: str, metric: str, nothing: str) -> Plot:
    """A metric over orders of magnitude as labelled points: rows are networks, panels modes, colours precisions."""
    known = cases[cases[metric].gt(0)]
    shown = fastest_cases(known, ["model", "mode", "precision"], limit=None)
    if shown.empty:
        return Plot(name, nothing)
    hue = ColourColumn("precision", figure_parts.precision_markers(shown))
    figure, tooltips = dot_plot(shown, metric, hue, with_batch=known["batch_size"].nunique() > 1)
    figure_parts.precision_legend(figure, shown)
    has_bars = f"{metric}_low" in shown and bool(shown[f"{metric}_low"].notna().any())
    bars = f" {figure_parts.interval_caption(confidence_levels.describe_levels(shown))}" if has_bars else ""
    words = f"{METRICS[metric].description}{bars} {describe_shown_cases(known, shown)}"
    words += figure_parts.not_drawn_sentence(shown, MAX_ROWS)
    return Plot(name, words, figure, attempt_ids_of_rows(shown), marks=tooltips)


def _pair_with_fp32_cases(cases: pd.DataFrame) -> pd.DataFrame:
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


def _fp32_reference_label(name: str, base: float, batch: float) -> str:
    title = look.fit_text_for_figure(network_title(name), 22)
    return title if math.isnan(base) else f"{title}\n{METRICS['throughput'].format(base)}, batch {batch:.0f}"
