"""Figures of bounds: the roofline with every layer as a point, where the time of a step goes, and all-reduces.

All take plain frames, so that a report can draw them from what `dlbench profile` keeps.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from dlbench import units
from dlbench.report.analysis.bounds import (
    DIRECTIONS,
    DeviceRoofline,
    bounds_of_profiled_layers,
    median_usable_time,
    time_bound_of_network,
)
from dlbench.report.analysis.labels import network_title
from dlbench.report.document import Plot
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.figure_parts import choose_time_unit, draw_stacked_bars, panel_title, set_row_labels
from dlbench.report.figures.label_placement import label_points, new_label_placer
from dlbench.report.figures.log_axes import choose_axis_unit, make_log_axis
from dlbench.results.bounds_records import ProfileRun
from dlbench.suites.case import MODES

_DIRECTION_MARKERS: dict[str, dict[str, Any]] = {
    "forward": {"marker": "o", "color": look.BLUE, "markersize": 5.0, "alpha": 0.85, "markeredgewidth": 0},
    "backward": {"marker": "^", "color": look.VERMILION, "markersize": 5.0, "alpha": 0.85, "markeredgewidth": 0},
}
_TIME_PARTS = {
    "flop_s": ("FLOP bound", look.BLUE),
    "memory_s": ("Memory bound", look.SKY),
    "optimizer_s": ("Optimizer's bytes", look.ORANGE),
    "overhead_s": ("Overhead", look.GREY),
}
_LINE_COLOURS = (look.BLUE, look.VERMILION, look.GREEN, look.ORANGE, look.PINK, look.SKY)
_MARKER_SHAPES = "os^Dv<"
#: In the note of a layer some of whose operations are not counted.
_PARTIAL = "not counted"
#: At most so many layers are named in the roofline: those that lose most.
_MAX_LABELS = 6
#: At most so many networks stand in one figure.
_MAX_ROWS = 24


def roofline(layers: pd.DataFrame, roof: DeviceRoofline, title: str) -> Plot:
    """FLOP/s over arithmetic intensity of every layer that multiplies and adds, under the device's ceilings.

    Layers without counted FLOP (normalisation, activation, pooling) have no intensity: beside them stand the bytes per
    second that they reach.

    Args:
        layers: as `bounds.layer_bounds` gives them.
        title: mode and precision, as `mode_and_precision` names them.
    """
    points = pd.concat([_layers_with_usable_time(layers, way) for way in DIRECTIONS], ignore_index=True)
    counted = points[points["flop"] > 0]
    if counted.empty:
        return Plot("roofline", "No layer has both a time and counted floating-point operations.")
    partial = layers.loc[layers["note"].str.contains(_PARTIAL), "layer"]
    # A layer of which nothing is counted may multiply all the same.
    moving = points[(points["flop"] == 0) & (points["bytes"] > 0) & ~points["layer"].isin(partial)]
    figure = look.new_figure(4.6)
    left, right = figure.subplots(1, 2, width_ratios=(3.6, 1))
    _draw_roofline(left, counted, roof)
    for way, mark in _DIRECTION_MARKERS.items():
        here = counted[counted["way"] == way]
        left.plot(here["intensity"], here["flop_rate"], ls="none", zorder=3, **mark)
    left.set_xlabel("Arithmetic intensity [FLOP/B]")
    left.set_title(f"Convolutions and matrix products\n{title}")
    _draw_layer_bandwidths(right, moving, roof)
    right.set_title(f"No counted FLOP\n{title}")
    look.compute_layout(figure)
    _label_slowest_layers(left, counted)
    ways = {way: mark for way, mark in _DIRECTION_MARKERS.items() if (points["way"] == way).any()}
    look.add_legend(figure, {way.capitalize(): mark for way, mark in ways.items()})
    words = (
        f"Every layer, with separate points for forward and backward. {roof.describe()} The distance of a point to the "
        f"line above it is the performance that the layer does not use. At points above the slanted line, operands "
        f"came from a cache."
    )
    if len(partial):
        words += f" The count is partial for {units.list_text(partial.tolist(), _MAX_LABELS)}."
    return Plot("roofline", words, figure)


def overhead_breakdown(networks: pd.DataFrame) -> Plot:
    """The step of each network, from what its FLOP need at the peak, over what its bytes add, to overhead.

    Args:
        networks: one row each: `label`, `mode`, `precision`, and in seconds `flop_s`, `memory_s`, `optimizer_s` and
            `step_s`.
    """
    parts = ["flop_s", "memory_s", "optimizer_s"]
    usable = networks.dropna(subset=[*parts, "step_s"])
    usable = usable[usable["step_s"] > 0]
    known = usable.head(_MAX_ROWS)
    if known.empty:
        words = "No network has both a measured step and a bound; run `dlbench ceilings` to get a bound."
        return Plot("where_time_goes", words)
    known = known.assign(overhead_s=(known["step_s"] - known[parts].sum(axis=1)).clip(lower=0))
    panels = [own for mode in MODES if len(own := known[known["mode"] == mode])]
    figure = look.new_figure(0.8 + 0.4 * len(panels) + 0.34 * len(known))
    factor, unit = choose_time_unit(known["step_s"])
    heights = [len(own) + 0.6 for own in panels]
    rows = figure.subplots(len(panels), 2, sharex="col", sharey="row", squeeze=False, height_ratios=heights)
    for (left, right), own in zip(rows, panels, strict=True):
        _draw_overhead_rows_of_mode(left, right, own, factor)
    left, right = rows[-1]
    left.set_xlim(0, 1.6 * float(known[list(_TIME_PARTS)].sum(axis=1).max()) / factor)
    left.set_xlabel(f"Step time [{unit}]")
    right.set_xlim(0, 100)
    right.set_xlabel("Share [%]")
    look.add_legend(figure, look.bar_legend_markers(dict(_TIME_PARTS.values())))
    words = (
        "Parts of a step's time: the time of its counted FLOP at the peak rate, the additional time to move the bytes "
        "of its layers, the time to move the optimizer's bytes, and the rest (overhead). If caches make "
        "a step faster than its bound, no overhead is shown."
    )
    if len(usable) > len(known):
        words += f" Not drawn: {len(usable) - len(known)} more networks."
    return Plot("where_time_goes", words, figure)


def _draw_overhead_rows_of_mode(left: Axes, right: Axes, own: pd.DataFrame, factor: float) -> None:
    """The rows of one mode: on the left in units of `factor` seconds, on the right as shares."""
    values = own[list(_TIME_PARTS)]
    colours = {part: colour for part, (_, colour) in _TIME_PARTS.items()}
    draw_stacked_bars(left, values / factor, colours)
    draw_stacked_bars(right, 100 * values.div(values.sum(axis=1), axis=0), colours)
    bounds = own[["flop_s", "memory_s", "optimizer_s"]].sum(axis=1)
    for y, (step, bound) in enumerate(zip(own["step_s"], bounds, strict=True)):
        text = units.seconds_text(step) + (f", {units.number_text(step / bound)} × bound" if bound > 0 else "")
        end = max(step, bound) / factor
        left.annotate(text, (end, y), (4, 0), textcoords="offset points", va="center", fontsize=8, color=look.MUTED)
    set_row_labels(left, [look.fit_text_for_figure(str(label)) for label in own["label"]])
    for axes in (left, right):
        axes.set_title(panel_title(own))
        look.hide_left_axis(axes)


def network_bounds_frame(runs: Sequence[tuple[ProfileRun, DeviceRoofline]]) -> pd.DataFrame:
    """One row per profile, as `overhead_breakdown` takes them."""
    rows = []
    for run, roof in runs:
        found = time_bound_of_network(bounds_of_profiled_layers(run, roof), roof, run.step_s, run.optimizer_bytes)
        case = run.case
        label = f"{network_title(case['model'])} · {case['precision']} {case['batch_size']}"
        if any(_PARTIAL in (layer.note or "") for layer in run.layers):
            label += " (partial FLOP)"
        times = {name: getattr(found, name) for name in ("flop_s", "memory_s", "optimizer_s")}
        rows.append({"label": label, **case, **times, "step_s": median_usable_time(run.step_s)})
    frame = pd.DataFrame(rows, columns=["label", "mode", "precision", "flop_s", "memory_s", "optimizer_s", "step_s"])
    return frame.astype(dict.fromkeys(frame.columns[3:], float))


def mode_and_precision(run: ProfileRun) -> str:
    """Mode and precision of a profile: "Training · fp32"."""
    return panel_title(pd.DataFrame([run.case]))


def layers_of_profiles(runs: Sequence[tuple[ProfileRun, DeviceRoofline]]) -> pd.DataFrame:
    """The layers of several profiles under one roof, as `roofline` takes them, named by their networks as well."""
    frames = []
    several = len(runs) > 1
    for run, roof in runs:
        frame = bounds_of_profiled_layers(run, roof)
        frames.append(frame.assign(layer=network_title(run.case["model"]) + " " + frame["layer"]) if several else frame)
    return pd.concat(frames, ignore_index=True)


def write_profile_figures(folder: Path, run: ProfileRun, roof: DeviceRoofline) -> list[Plot]:
    """Draw both figures of one profile into `folder`; gives them, those too that could not be drawn and say why."""
    with look.plot_style():
        plots = [
            roofline(bounds_of_profiled_layers(run, roof), roof, mode_and_precision(run)),
            overhead_breakdown(network_bounds_frame([(run, roof)])),
        ]
        for plot in plots:
            if plot.figure is not None:
                look.save_figure(plot.figure, folder, plot.name)
    return plots


def all_reduce_plot(rows: pd.DataFrame) -> Plot:
    """Bus bandwidth over message size, one line for each number of ranks and way.

    Args:
        rows: as `bounds_store.StoredBounds` has them, of one system; of several runs the latest counts.
    """
    known = rows[rows["bus_bytes_per_s"].gt(0) & rows["ranks"].gt(1)]
    by = ["nodes", "ranks", "backend"]
    known = known.sort_values("started_at", kind="stable").drop_duplicates([*by, "size_bytes"], keep="last")
    if known.empty:
        return Plot("all_reduce", "No all-reduce over several ranks has a usable time.")
    figure = look.new_figure(3.6)
    axes = figure.subplots()
    size, speed = choose_axis_unit(known["size_bytes"], "B"), choose_axis_unit(known["bus_bytes_per_s"], "B/s")
    make_log_axis(axes, "x", size)
    make_log_axis(axes, "y", speed)
    entries: dict[str, dict[str, Any]] = {}
    groups: list[tuple[Any, pd.DataFrame]] = list(known.groupby(by))
    for number, ((nodes, ranks, backend), line) in enumerate(groups[: len(_LINE_COLOURS)]):
        line = line.sort_values("size_bytes")
        mark: dict[str, Any] = {"color": _LINE_COLOURS[number], "marker": _MARKER_SHAPES[number], "markersize": 4.5}
        axes.plot(line["size_bytes"], line["bus_bytes_per_s"], lw=1.2, **mark)
        entries[f"{ranks} ranks on {units.count_text(nodes, 'node')}, {backend}"] = mark
    axes.set_xlabel(size.axis_label("Message"))
    axes.set_ylabel(speed.axis_label("Bus bandwidth"))
    axes.set_title("All-reduce · fp32")
    look.add_legend(figure, entries)
    words = (
        "All-reduces that add fp32 values. Bus bandwidth = 2(n-1)/n x message size / median time of the slowest "
        "rank; compare it with the bandwidth of a link. Small messages are limited by latency, large ones by "
        "bandwidth."
    )
    left = len(groups) - len(entries)
    return Plot("all_reduce", words + (f" Not drawn: {units.count_text(left, 'more line')}." if left else ""), figure)


def _layers_with_usable_time(layers: pd.DataFrame, way: str) -> pd.DataFrame:
    """One row per layer with a usable time of this way."""
    columns = {"time_s": f"{way}_s", "flop": f"{way}_flop", "bytes": f"{way}_bytes", "bound_s": f"{way}_bound_s"}
    times = {name: layers[column].astype(float) for name, column in columns.items()}
    frame = pd.DataFrame({"layer": layers["layer"], "way": way, **times})
    frame = frame[(frame["time_s"] > 0) & (frame["bytes"] > 0)]
    return frame.assign(
        intensity=frame["flop"] / frame["bytes"],
        flop_rate=frame["flop"] / frame["time_s"],
        byte_rate=frame["bytes"] / frame["time_s"],
        lost_s=frame["time_s"] - frame["bound_s"],
    )


def _draw_roofline(axes: Axes, points: pd.DataFrame, roof: DeviceRoofline) -> None:
    rate = choose_axis_unit(points["flop_rate"], "FLOP/s")
    make_log_axis(axes, "x")
    make_log_axis(axes, "y", rate)
    axes.set_ylabel(rate.axis_label("Rate reached"))
    low, high = points["intensity"].min() / 4, points["intensity"].max() * 4
    top = points["flop_rate"].max()
    if roof.flop_per_s and roof.bytes_per_s:
        high = max(high, 4 * roof.flop_per_s / roof.bytes_per_s)
    x = np.geomspace(low, high, 200)
    if roof.bytes_per_s:
        slope = np.minimum(x * roof.bytes_per_s, roof.flop_per_s or np.inf)
        axes.plot(x, slope, color=look.INK, lw=1.2)
        text = f"{units.quantity_text(roof.bytes_per_s, 'B/s')} {roof.bytes_source}"
        below: dict[str, Any] = {"va": "top", "fontsize": 8, "color": look.MUTED}
        axes.annotate(text, (x[0], slope[0]), (14, -2), textcoords="offset points", **below)
    if roof.flop_per_s:
        dashes: Any = (0, (4, 3)) if roof.bytes_per_s else "-"
        axes.axhline(roof.flop_per_s, color=look.INK, lw=1.2, ls=dashes, alpha=0.7)
        text = f"{units.quantity_text(roof.flop_per_s, 'FLOP/s')} {roof.flop_source}, {roof.precision}"
        style: dict[str, Any] = {"ha": "right", "fontsize": 8, "color": look.MUTED}
        axes.annotate(text, (high, roof.flop_per_s), (-4, 4), textcoords="offset points", **style)
        top = max(top, roof.flop_per_s)
    axes.set_xlim(low, high)
    axes.set_ylim(points["flop_rate"].min() / 4, top * 4)


def _draw_layer_bandwidths(axes: Axes, points: pd.DataFrame, roof: DeviceRoofline) -> None:
    """Bytes per second of layers without counted FLOP, one column each way."""
    axes.set_xticks(range(len(DIRECTIONS)), [way.capitalize() for way in DIRECTIONS])
    axes.set_xlim(-0.6, len(DIRECTIONS) - 0.4)
    if points.empty:
        axes.set_yticks([])
        return
    speed = choose_axis_unit(points["byte_rate"], "B/s")
    make_log_axis(axes, "y", speed)
    for column, way in enumerate(DIRECTIONS):
        here = points[points["way"] == way]
        # Side by side by their order, so that equal ones do not hide each other; the same on every run.
        offset = np.linspace(-0.25, 0.25, len(here)) if len(here) > 1 else np.zeros(len(here))
        axes.plot(column + offset, here["byte_rate"], ls="none", zorder=3, **_DIRECTION_MARKERS[way])
    rates = [points["byte_rate"].min() / 4, points["byte_rate"].max() * 4]
    if roof.bytes_per_s:
        axes.axhline(roof.bytes_per_s, color=look.INK, lw=1.2)
        rates[1] = max(rates[1], 4 * roof.bytes_per_s)
    axes.set_ylim(*rates)
    axes.set_ylabel(speed.axis_label("Bandwidth reached"))
    axes.grid(visible=False, axis="x")


def _label_slowest_layers(axes: Axes, points: pd.DataFrame) -> None:
    """Names at the points that lose most, where they cover nothing."""
    by = "lost_s" if points["lost_s"].notna().any() else "time_s"
    worst = points.sort_values(by, ascending=False, kind="stable").drop_duplicates("layer")
    names = [look.fit_text_for_figure(str(layer), 22) for layer in worst["layer"]]
    found = zip(worst["intensity"], worst["flop_rate"], names, strict=True)
    label_points(new_label_placer(axes, points[["intensity", "flop_rate"]]), found, _MAX_LABELS)
