"""Throughput over the batch, one panel per network and mode, and the knee: the batch beyond which little is gained."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from dlbench import units
from dlbench.report.analysis import confidence_levels
from dlbench.report.analysis.case_selection import attempt_ids_of_rows, fastest_cases
from dlbench.report.analysis.labels import network_title, setting_label, sort_networks, varying_axes
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.document import Plot
from dlbench.report.figures import figure_parts
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.log_axes import make_log_axis
from dlbench.report.figures.plots_dots import ColourColumn, value_with_interval_text
from dlbench.suites.case import MODES, PRECISIONS
from dlbench.table import Cell, Column, Table

#: The knee of a curve is its smallest batch with at least this share of its best throughput.
KNEE_SHARE = 0.95
KNEE_CAPTION = (
    f"A ring marks the knee: the smallest batch that reaches {KNEE_SHARE:.0%} of the best throughput".replace("%", " %")
)
_MAX_PANELS = 16


def batch_curves(cases: pd.DataFrame) -> Plot:
    """Throughput over the batch per device of one system, one panel per network and mode, one line per precision."""
    known = cases[cases["throughput"].notna()]
    shown = _select_setting_per_curve(known)
    if shown.empty:
        return Plot("batch_curves", "No network ran with several batch sizes at the same setting.")
    marks = {name: mark | {"marker": "o"} for name, mark in figure_parts.precision_markers(shown).items()}
    plot = _draw_batch_panels(shown, ColourColumn("precision", marks))
    assert plot.figure
    look.add_legend(plot.figure, marks)
    bars = figure_parts.interval_caption(confidence_levels.describe_levels(shown))
    words = f"Throughput against the batch size per device. {bars} {KNEE_CAPTION} of the line."
    if len(shown) < len(known):
        words += " A line shows the fastest of the settings that ran with several batch sizes."
    return replace(plot, caption=words + _not_drawn_sentence(shown), records=attempt_ids_of_rows(shown))


def _select_setting_per_curve(known: pd.DataFrame) -> pd.DataFrame:
    """The fastest setting with the most batch sizes, for each network, mode and precision that has several."""
    line = ["model", "mode", "precision"]
    settings = [*line, *varying_axes(known)]
    groups = known.groupby(settings, sort=False, dropna=False)
    reach = groups.agg(batches=("batch_size", "nunique"), best=("throughput", "max")).reset_index()
    reach = reach[reach["batches"] > 1].sort_values(["batches", "best"], ascending=False, kind="stable")
    chosen = reach.drop_duplicates(line)[settings]
    return fastest_cases(known.merge(chosen, on=settings), [*line, "batch_size"], limit=None)


def batch_curves_of_systems(cases: pd.DataFrame, names: Mapping[str, str]) -> Plot:
    """Throughput over the batch of several systems, one panel per network and mode, one line per system.

    Args:
        cases: as `side_by_side.cases_by_batch_size` gives them: one setting per network and mode.
    """
    if cases.empty:
        return Plot("batch_curves", "No network ran with several batch sizes on these systems.")
    marks = figure_parts.system_markers(names)
    there = {system: name for system, name in names.items() if (cases["system_id"] == system).any()}
    plot = _draw_batch_panels(cases, ColourColumn("system_id", marks, names))
    assert plot.figure
    figure_parts.system_legend(plot.figure, there, marks)
    bars = figure_parts.interval_caption(confidence_levels.describe_levels(cases))
    words = (
        "Throughput against the batch size per device. Each network and mode is shown at the setting that most "
        f"systems share. {bars} {KNEE_CAPTION} of the line. A line without a ring still rises at its largest batch."
    )
    return replace(plot, caption=words + _not_drawn_sentence(cases), records=attempt_ids_of_rows(cases))


def knees_table(cases: pd.DataFrame, names: Mapping[str, str]) -> Table:
    """The knee of every curve with its throughput, beside the best one."""
    shown = METRICS["throughput"].format
    axes = [a for a in ("precision", *varying_axes(cases)) if a != "device" and cases[a].nunique() > 1]
    columns = [Column("model", "Network"), Column("mode", "Mode"), Column("system", "System")]
    columns += [Column("setting", "Setting")] if axes else []
    columns += [Column("knee", "Knee at batch", "right", _format_knee), Column("at_knee", "Throughput there", "right")]
    columns += [Column("best", "Best", "right"), Column("best_batch", "at batch", "right")]
    rows: list[list[Cell]] = []
    for (model, mode, system), curve in _iterate_curves(cases, "system_id"):
        best, place = curve.iloc[int(curve["throughput"].argmax())], find_knee(curve)
        at_knee = units.MISSING if place is None else shown(place["throughput"])
        row: list[Cell] = [network_title(model), mode, names.get(system, "unknown")]
        row += [setting_label(best.to_dict(), axes)] if axes else []
        row += [None if place is None else int(place["batch_size"]), at_knee]
        rows.append([*row, shown(best["throughput"]), int(best["batch_size"])])
    still = ["Without a knee, the largest batch has the best throughput; larger batches may be faster still."]
    return Table(columns, rows, notes=still if any(row[-4] is None for row in rows) else ())


def find_knee(curve: pd.DataFrame) -> pd.Series | None:
    """The row of the knee; None where the largest batch alone comes near the best, so that none is seen."""
    enough = curve[curve["throughput"] >= KNEE_SHARE * curve["throughput"].max()]
    first = enough.loc[enough["batch_size"].idxmin()]
    return None if first["batch_size"] == curve["batch_size"].max() else first


def _draw_batch_panels(shown: pd.DataFrame, hue: ColourColumn) -> Plot:
    names = _network_and_mode_per_panel(shown)[:_MAX_PANELS]
    per_row = 4 if shown["mode"].nunique() > 1 else 3
    figure, panels = figure_parts.panel_grid(len(names), height=1.9, per_row=per_row, sharex=True, sharey=True)
    panel = dict(zip(names, panels, strict=True))
    tooltips = figure_parts.Tooltips()
    for (model, mode, value), curve in _iterate_curves(shown, hue.column):
        if (model, mode) in panel:
            _draw_batch_curve(panel[model, mode], curve, dict(hue.marks[value]), hue.name(value), tooltips)
    for (model, mode), axes in panel.items():
        axes.set_xscale("log", base=2)
        make_log_axis(axes, "y")
        own = shown[(shown["model"] == model) & (shown["mode"] == mode)]
        axes.set_title(
            f"{look.fit_text_for_figure(network_title(model), 22)}\n{figure_parts.panel_title(own)}", fontsize=9
        )
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    batch = f"Batch per device [{METRICS['throughput'].unit.removesuffix('/s')}]"
    figure_parts.label_outer_axes(panels, batch, METRICS["throughput"].heading, per_row)
    return Plot("batch_curves", "", figure, marks=tooltips.found)


def _draw_batch_curve(
    axes: Axes, curve: pd.DataFrame, mark: dict[str, Any], name: str, tooltips: figure_parts.Tooltips
) -> None:
    """One line with its points, their intervals, and the ring at its knee."""
    first = ""
    for case in curve.to_dict("records"):
        gid = tooltips.add_case_tooltip(case, f"{name}: {value_with_interval_text(case, 'throughput')}", name)
        first = first or gid
        axes.plot([case["batch_size"]], [case["throughput"]], markersize=3.5, ls="none", gid=gid, zorder=3, **mark)
    axes.plot(curve["batch_size"], curve["throughput"], color=mark["color"], lw=1.3, gid=f"{first}-line")
    low, high = (curve[f"throughput_{end}"].fillna(curve["throughput"]) for end in ("low", "high"))
    axes.vlines(curve["batch_size"], low, high, color=mark["color"], lw=1.1, gid=f"{first}-bars")
    place = find_knee(curve)
    if place is not None:
        ring: dict[str, Any] = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.1}
        gid = f"{first}-ring"
        axes.plot([place["batch_size"]], [place["throughput"]], color=mark["color"], ls="none", gid=gid, **ring)


def _network_and_mode_per_panel(cases: pd.DataFrame) -> list[tuple[str, str]]:
    there = set(zip(cases["model"], cases["mode"], strict=True))
    return [(model, mode) for model in sort_networks(cases["model"]) for mode in MODES if (model, mode) in there]


def _not_drawn_sentence(cases: pd.DataFrame) -> str:
    left = [f"{network_title(model)} {mode}" for model, mode in _network_and_mode_per_panel(cases)[_MAX_PANELS:]]
    return f" Not drawn: {', '.join(left)}; see the tables." if left else ""


def _iterate_curves(cases: pd.DataFrame, column: str) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    """Each line with at least two batches: its network, mode and value of `column`."""
    place = {name: i for i, name in enumerate([*sort_networks(cases["model"]), *MODES, *PRECISIONS])}
    groups = dict(iter(cases.groupby(["model", "mode", column], sort=False)))
    for key in sorted(groups, key=lambda k: (place[str(k[0])], place[str(k[1])])):
        curve = groups[key].sort_values("batch_size", kind="stable")
        if curve["batch_size"].nunique() > 1:
            yield (str(key[0]), str(key[1]), str(key[2])), curve


def _format_knee(cell: Cell) -> str:
    return str(cell) if isinstance(cell, int) else "still rising"
