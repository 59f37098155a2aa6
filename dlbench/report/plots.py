"""The figures of a report: each a function from the cases of one system to a `Plot`, listed in `FIGURES`.

A figure shows what it can show readably: of many cases it takes the fastest per network, mode and precision, says so,
and leaves the rest to the table. What is missing gives no figure but a sentence that says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dlbench import units
from dlbench.report import figure_style as look
from dlbench.report.labels import MAIN_AXES, network, network_order, setting, varying_axes
from dlbench.report.metrics import METRICS
from dlbench.spec.case import MODES, PRECISIONS

#: A figure with one row per case shows at most so many.
MAX_ROWS = 24


@dataclass(frozen=True)
class Plot:
    """One figure with its words; without a figure the caption says why there is none."""

    name: str
    caption: str
    figure: Figure | None = None


def throughput(cases: pd.DataFrame) -> Plot:
    """Images per second per network, mode and precision."""
    return _dots(cases, "throughput", "throughput", "No case has a throughput.")


def energy(cases: pd.DataFrame) -> Plot:
    """Joules per image per network, mode and precision; says why where no meter was read."""
    return _dots(cases, "energy", "energy_per_image", no_meter(cases))


def step_breakdown(cases: pd.DataFrame) -> Plot:
    """Training steps split into forward, backward, optimizer and rest: as times, and as shares of the step."""
    training = cases[(cases["mode"] == "training") & cases["forward_time"].notna()]
    shown = fastest(training, ["model", "precision"])
    if shown.empty:
        return Plot("step_breakdown", "No training case has the times of its phases.")
    parts = {
        "forward_time": look.SKY,
        "backward_time": look.BLUE,
        "optimizer_time": look.ORANGE,
        "rest_time": look.GREY,
    }
    figure = look.new_figure(_height(len(shown)))
    left, right = figure.subplots(1, 2, sharey=True)
    values = shown[list(parts)].fillna(0.0)
    factor, unit = time_scale(shown["step_time"])
    _stack(left, values / factor, parts)
    _stack(right, 100 * values.div(values.sum(axis=1), axis=0), parts)
    for y, step in enumerate(shown["step_time"]):
        left.annotate(units.seconds(step), (step / factor, y), (4, 0), textcoords="offset points", **_SMALL)
    _rows(left, shown, ["model", "precision", "batch_size"])
    left.set_xlim(0, 1.2 * shown["step_time"].max() / factor)
    left.set_xlabel(f"{METRICS['step_time'].title} [{unit}]")
    right.set_xlim(0, 100)
    right.set_xlabel("Share of the step [%]")
    look.legend(figure, look.squares({METRICS[name].title: colour for name, colour in parts.items()}))
    return Plot("step_breakdown", f"Where the time of a training step goes. {_choice(training, shown)}", figure)


def memory(cases: pd.DataFrame) -> Plot:
    """What a case keeps in memory by kind, stacked, and the measured peaks as marks."""
    known = cases[cases[[*_MEMORY_PARTS, *_MEMORY_MARKS]].notna().any(axis=1)]
    shown = fastest(known, ["model", "mode"])
    if shown.empty:
        return Plot("memory", "No case has a reading of memory.")
    # Host memory says something about the network only where there is no memory of a device.
    marks = [n for n in ("memory_allocated", "memory_device") if shown[n].notna().any()] or ["memory_rss"]
    figure = look.new_figure(_height(len(shown)))
    axes = figure.subplots()
    top = shown[[*_MEMORY_PARTS, *marks]].max().max()
    factor, unit = (2**30, "GiB") if top >= 2**30 else (2**20, "MiB")
    _stack(axes, shown[list(_MEMORY_PARTS)].fillna(0.0) / factor, _MEMORY_PARTS)
    entries = look.squares({METRICS[n].title: c for n, c in _MEMORY_PARTS.items() if shown[n].notna().any()})
    for name in marks:
        axes.plot(shown[name] / factor, range(len(shown)), ls="none", **_MEMORY_MARKS[name])
        entries[METRICS[name].title] = _MEMORY_MARKS[name]
    _rows(axes, shown, ["model", "mode", *_more(shown)])
    axes.set_xlim(0, 1.05 * top / factor)
    axes.set_xlabel(f"Memory per device [{unit}]")
    look.legend(figure, entries)
    return Plot("memory", f"Memory by kind, and the measured peaks. {_choice(known, shown)}", figure)


def flop_time(cases: pd.DataFrame) -> Plot:
    """Step time against counted FLOP, with the datasheet peak as the line below which nothing can lie."""
    known = cases[cases["flop_per_step"].gt(0) & cases["step_time"].notna()]
    if known.empty:
        return Plot("flop_time", "No case has both a step time and a count of its FLOP.")
    modes = [m for m in MODES if (known["mode"] == m).any()]
    figure = look.new_figure(4.6)
    panels = figure.subplots(1, len(modes), sharex=True, sharey=True, squeeze=False)[0]
    lines = _bound_lines(known)
    x = np.array([known["flop_per_step"].min() / 4, known["flop_per_step"].max() * 10])
    y = (known["step_time"].min() / 8, known["step_time"].max() * 4)
    for axes, mode in zip(panels, modes, strict=True):
        look.log_axis(axes, "x", look.prefixed)
        look.log_axis(axes, "y", lambda value: look.prefixed(value, "s"))
        axes.set_xlim(*x)
        axes.set_ylim(*y)
        _draw_bounds(axes, x, lines)
        _draw_cases(axes, known[known["mode"] == mode])
        axes.set_title(mode.capitalize())
        axes.set_xlabel("FLOP per step and device")
    panels[0].set_ylabel("Step time")
    figure.draw_without_rendering()
    for axes, mode in zip(panels, modes, strict=True):
        _name_networks(axes, known[known["mode"] == mode])
    _precision_legend(figure, known)
    if "highest rate reached here" in lines:
        bound = "No datasheet peak is known for this device: the dashed line is the highest rate that any case reached."
    else:
        bound = "The line is the dense datasheet peak of one device: nothing can lie in the shaded region below it."
    return Plot("flop_time", f"Step time against the counted work. {bound}", figure)


def batch_curves(cases: pd.DataFrame) -> Plot:
    """Throughput over the batch per device, one panel per network."""
    known = cases[cases["throughput"].notna()]
    several = known.groupby("model")["batch_size"].nunique()
    names = network_order(several[several > 1].index)[:12]
    if not names:
        return Plot("batch_curves", "Every network ran with one batch size only.")
    shown = fastest(known[known["model"].isin(names)], ["model", "mode", "precision", "batch_size"], limit=None)
    figure, panels = _grid(len(names), height=2.1, sharex=True)
    for axes, name in zip(panels, names, strict=True):
        axes.set_xscale("log", base=2)
        look.log_axis(axes, "y", look.prefixed)
        for (mode, precision), line in shown[shown["model"] == name].groupby(["mode", "precision"]):
            line = line.sort_values("batch_size")
            colour = look.PRECISION_COLOURS[str(precision)]
            axes.plot(line["batch_size"], line["throughput"], color=colour, lw=1.3, **_MODE_LINES[str(mode)])
        axes.set_title(look.plain(network(name), 26))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _outer_labels(panels, "Batch per device [img]", METRICS["throughput"].heading)
    look.legend(figure, _precision_marks(shown) | {mode: {"color": look.MUTED, **_MODE_LINES[mode]} for mode in MODES})
    words = f"Throughput over the batch per device. {_choice(known, shown)}"
    return Plot("batch_curves", words, figure)


def precisions(cases: pd.DataFrame) -> Plot:
    """Throughput of each precision over that of fp32, at the same batch and everything else equal."""
    pairs = _precision_pairs(cases)
    if pairs.empty:
        return Plot("precisions", "There is no case in fp32 together with the same case in another precision.")
    shown = pairs.sort_values("batch_size").drop_duplicates(["model", "mode", "precision"], keep="last")
    modes = [m for m in MODES if (shown["mode"] == m).any()]
    names = network_order(shown["model"])[:MAX_ROWS]
    figure = look.new_figure(_height(len(names), 0.42))
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
    _precision_legend(figure, shown)
    words = (
        "Gain from lower precision at the largest batch that fp32 also ran; the base of each ratio stands beside it."
    )
    return Plot("precisions", words, figure)


def fastest(cases: pd.DataFrame, by: Sequence[str], limit: int | None = MAX_ROWS) -> pd.DataFrame:
    """Of each group the case with the highest throughput (the first, where none has one), in the order of networks."""
    order = {name: i for i, name in enumerate([*network_order(cases["model"]), *MODES, *PRECISIONS])}
    best = cases.sort_values("throughput", ascending=False, kind="stable").drop_duplicates(list(by))
    sorted_ = best.sort_values(list(by), key=lambda c: c.map(lambda v: order.get(v, v)), kind="stable")
    return sorted_.head(limit) if limit else sorted_


def no_meter(cases: pd.DataFrame) -> str:
    """Why no case has an energy: "No energy meter on this system: ..."."""
    notes = cases["energy_note"].dropna().unique()
    return f"No energy meter on this system: {notes[0]}." if len(notes) else "No energy meter on this system."


def time_scale(values: pd.Series[float]) -> tuple[float, str]:
    """The unit in which the largest of these times [s] reads well: its length in seconds and its name."""
    top = values.max()
    return (1.0, "s") if top >= 2 else (1e-3, "ms") if top >= 2e-3 else (1e-6, "µs")


_SMALL: dict[str, Any] = {"va": "center", "fontsize": 8, "color": look.MUTED}
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
    figure = look.new_figure(_height(len(names), 0.22 + 0.16 * len(used)))
    panels = figure.subplots(1, len(modes), sharex=True, sharey=True, squeeze=False)[0]
    for axes, mode in zip(panels, modes, strict=True):
        look.log_axis(axes, "x", look.prefixed if metric == "throughput" else lambda value: look.prefixed(value, "J"))
        for case in shown[(shown["mode"] == mode) & shown["model"].isin(names)].to_dict("records"):
            offset = 0.72 / len(used) * (used.index(case["precision"]) - (len(used) - 1) / 2)
            _dot(axes, case, metric, names.index(case["model"]) + offset, known["batch_size"].nunique() > 1)
        for y in range(len(names) - 1):
            axes.axhline(y + 0.5, color=look.GRID, lw=0.6)
        axes.set_title(mode.capitalize())
        axes.set_xlabel(METRICS[metric].heading)
        look.clear_frame(axes)
    panels[0].set_yticks(range(len(names)), [look.plain(network(n)) for n in names])
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    low, high = shown[metric].min(), shown[metric].max()
    # Room for the labels on the right: they take about as much of a panel as the points.
    span = max(0.7, math.log10(high / low))
    panels[0].set_xlim(low / 10 ** (0.1 * span), high * 10 ** ((0.95 if len(modes) > 1 else 0.4) * span))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [10.0**p for p in powers[:: 1 + len(powers) // 6] if 10.0**p >= panels[0].get_xlim()[0]]
    for axes in panels:
        axes.set_xticks(ticks)
        axes.spines["bottom"].set_bounds(axes.get_xlim()[0], max(high, ticks[-1]))
    _precision_legend(figure, shown)
    return Plot(name, f"{METRICS[metric].description} {_choice(known, shown)}", figure)


def _dot(axes: Axes, case: dict[Any, Any], metric: str, y: float, with_batch: bool) -> None:
    value, colour = case[metric], look.PRECISION_COLOURS[case["precision"]]
    low, high = case.get(f"{metric}_low", math.nan), case.get(f"{metric}_high", math.nan)
    if low > 0:
        axes.plot([low, high], [y, y], color=colour, lw=4, alpha=0.45, solid_capstyle="butt")
    axes.plot([value], [y], "o", color=colour, markersize=5.5)
    text = METRICS[metric].show(value) + (f" · batch {case['batch_size']}" if with_batch else "")
    end = max(value, high) if high > 0 else value
    axes.annotate(text, (end, y), (7, 0), textcoords="offset points", **_SMALL).set_in_layout(False)


def _stack(axes: Axes, values: pd.DataFrame, colours: dict[str, str]) -> None:
    start = np.zeros(len(values))
    for name, colour in colours.items():
        width = values[name].to_numpy()
        axes.barh(range(len(values)), width, left=start, height=0.62, color=colour, edgecolor=look.PAPER, lw=0.4)
        start = start + width


def _rows(axes: Axes, shown: pd.DataFrame, by: Sequence[str]) -> None:
    """Name the rows of a figure that has one row per case."""
    labels = []
    for case in shown.to_dict("records"):
        rest = setting(case, [a for a in by if a != "model" and shown[a].nunique() > 1])
        name = look.plain(network(str(case["model"])), 26)
        labels.append(f"{name} · {rest}" if rest else name)
    axes.set_yticks(range(len(shown)), labels)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    look.clear_frame(axes)


def _more(shown: pd.DataFrame) -> list[str]:
    return [axis for axis in ("precision", "batch_size") if shown[axis].nunique() > 1]


def _height(num_rows: int, per_row: float = 0.27) -> float:
    return 1.25 + per_row * num_rows


def _choice(cases: pd.DataFrame, shown: pd.DataFrame) -> str:
    """Which of the cases a figure shows, as a sentence, and the precision if all have the same."""
    same = f"All in {cases['precision'].iloc[0]}." if cases["precision"].nunique() == 1 else ""
    if len(shown) >= len(cases):
        return same
    axes = [a for a in ("precision", "batch_size", *varying_axes(cases)) if cases[a].nunique() > 1]
    words = ", ".join(a.replace("_", " ") for a in axes)
    return f"Shown is the fastest of each row over {words}; the table holds all {len(cases)} cases. {same}".strip()


def _precision_marks(cases: pd.DataFrame) -> dict[str, dict[str, Any]]:
    return {p: {"color": look.PRECISION_COLOURS[p]} for p in PRECISIONS if (cases["precision"] == p).any()}


def _precision_legend(figure: Figure, cases: pd.DataFrame) -> None:
    """The colours of the precisions, where there is more than one."""
    marks = _precision_marks(cases)
    if len(marks) > 1:
        look.legend(figure, marks)


def _bound_lines(known: pd.DataFrame) -> dict[str, float]:
    """Rates [FLOP/s] to draw as lines, by name: the datasheet peak per precision, else the best that was reached."""
    peaks = known.dropna(subset="device_peak").drop_duplicates("precision")
    if len(peaks):
        by_rate: dict[float, list[str]] = {}
        for precision, rate in zip(peaks["precision"], peaks["device_peak"], strict=True):
            by_rate.setdefault(rate, []).append(precision)
        return {f"peak {', '.join(names)}": rate for rate, names in by_rate.items()}
    return {"highest rate reached here": float((known["flop_per_step"] / known["step_time"]).max())}


def _draw_bounds(axes: Axes, x: Any, lines: dict[str, float]) -> None:
    datasheet = "highest rate reached here" not in lines
    if datasheet:
        axes.fill_between(x, x / max(lines.values()), axes.get_ylim()[0], color=look.GRID, lw=0, zorder=0)
    for name, rate in lines.items():
        colour = look.PRECISION_COLOURS.get(name.removeprefix("peak ").split(",")[0], look.MUTED)
        axes.plot(x, x / rate, color=colour, lw=1.2, ls="-" if datasheet else (0, (4, 3)), zorder=1)
    if datasheet:
        axes.text(0.98, 0.07, "faster than\nthe peak", transform=axes.transAxes, ha="right", **_SMALL)


def _draw_cases(axes: Axes, cases: pd.DataFrame) -> None:
    colours = [look.PRECISION_COLOURS[p] for p in cases["precision"]]
    alpha = 0.9 if len(cases) <= 12 else 0.5
    axes.scatter(cases["flop_per_step"], cases["step_time"], c=colours, s=22, alpha=alpha, lw=0, zorder=3)


def _name_networks(axes: Axes, cases: pd.DataFrame) -> None:
    """Each network's name beside its slowest case, above which there is room for it."""
    shown = cases.sort_values(["step_time", "flop_per_step"]).drop_duplicates("model", keep="last")
    placed: list[tuple[float, float]] = []
    for name, x, y in zip(shown["model"], shown["flop_per_step"], shown["step_time"], strict=True):
        px, py = axes.transData.transform((x, y)) * 72 / _dpi(axes)
        left = px - axes.bbox.x0 * 72 / _dpi(axes) > 75
        target = py + 4
        while any(abs(px - ox) < 75 and abs(target - oy) < 11 for ox, oy in placed):
            target += 1
        placed.append((px, target))
        words: Any = {"ha": "right" if left else "left", "va": "center", "fontsize": 8.5}
        offset = (-7 if left else 7, target - py)
        axes.annotate(look.plain(network(name), 20), (x, y), offset, textcoords="offset points", **words)


def _dpi(axes: Axes) -> float:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure.dpi


def _grid(count: int, height: float, **sharing: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, three to a row."""
    columns = min(3, count)
    num_rows = math.ceil(count / columns)
    figure = look.new_figure(0.6 + height * num_rows)
    grid = figure.subplots(num_rows, columns, squeeze=False, **sharing)
    for spare in grid.flat[count:]:
        spare.set_visible(False)
    return figure, list(grid.flat[:count])


def _outer_labels(panels: Sequence[Axes], x: str, y: str) -> None:
    """Label the axes on the left and at the bottom only."""
    columns = min(3, len(panels))
    for i, axes in enumerate(panels):
        if i % columns == 0:
            axes.set_ylabel(y)
        if i + columns >= len(panels):
            axes.set_xlabel(x)
            axes.tick_params(labelbottom=True)


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


#: Every figure by name, in the order of the report; `dlbench.report.plots_samples` adds those of the raw samples.
FIGURES: dict[str, Callable[[pd.DataFrame], Plot]] = {
    "throughput": throughput,
    "batch_curves": batch_curves,
    "precisions": precisions,
    "step_breakdown": step_breakdown,
    "memory": memory,
    "energy": energy,
    "flop_time": flop_time,
}
