"""Throughput over the batch, one panel per network, and the knee: the batch beyond which little is gained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from dlbench import units
from dlbench.report.analysis import levels
from dlbench.report.analysis.labels import network, network_order, setting, varying_axes
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.selection import choice, fastest, records_of
from dlbench.report.document import Plot
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.figure_parts import (
    grid,
    interval_words,
    label_outer,
    not_drawn,
    precision_marks,
    system_legend,
    system_marks,
)
from dlbench.report.figures.plots_dots import Hue
from dlbench.suites.case import MODES, PRECISIONS
from dlbench.table import Cell, Column, Table

#: The knee of a curve is its smallest batch with at least this share of its best throughput.
KNEE_SHARE = 0.95
KNEE_WORDS = f"A ring marks the knee: the smallest batch with at least {KNEE_SHARE:.0%} of the best throughput".replace(
    "%", " %"
)
_MAX_PANELS = 12
_LINES: dict[str, dict[str, Any]] = {
    "training": {"ls": "-", "lw": 1.3},
    "inference": {"ls": (0, (4, 2)), "lw": 1.3},
}


def batch_curves(cases: pd.DataFrame) -> Plot:
    """Throughput over the batch per device of one system, one panel per network, one line per mode and precision."""
    known = cases[cases["throughput"].notna()]
    several = known.groupby(["model", "mode", "precision"])["batch_size"].transform("nunique").gt(1)
    if not several.any():
        return Plot("batch_curves", "No network ran with several batch sizes at one setting.")
    shown = fastest(known[several], ["model", "mode", "precision", "batch_size"], limit=None)
    marks = {name: mark | {"marker": "o"} for name, mark in precision_marks(shown).items()}
    plot = _drawn(shown, Hue("precision", marks))
    assert plot.figure
    look.legend(plot.figure, marks | _mode_marks(shown))
    bars = interval_words(levels.named(shown))
    words = f"Throughput over the batch per device. {bars} {KNEE_WORDS} of its line. {choice(known, shown)}"
    words = words.strip() + not_drawn(shown, _MAX_PANELS)
    return Plot("batch_curves", words, plot.figure, records_of(shown))


def batch_curves_of_systems(cases: pd.DataFrame, names: Mapping[str, str]) -> Plot:
    """Throughput over the batch of several systems, one panel per network, one line per mode and system.

    Args:
        cases: as `side_by_side.series` gives them: one setting per network and mode.
    """
    if cases.empty:
        return Plot("batch_curves", "No network ran with several batch sizes on these systems.")
    marks = system_marks(names)
    there = {system: name for system, name in names.items() if (cases["system_id"] == system).any()}
    plot = _drawn(cases, Hue("system_id", marks))
    assert plot.figure
    system_legend(plot.figure, there, marks, _mode_marks(cases))
    words = (
        "Throughput over the batch per device: the same setting on all systems, of each network and mode the one that "
        f"most of them have. {interval_words(levels.named(cases))} {KNEE_WORDS} of its line; a line without one still "
        "rises at its last batch."
    )
    return Plot("batch_curves", words + not_drawn(cases, _MAX_PANELS), plot.figure)


def knees(cases: pd.DataFrame, names: Mapping[str, str]) -> Table:
    """The knee of every curve with its throughput, beside the best one."""
    shown = METRICS["throughput"].show
    axes = [a for a in ("precision", *varying_axes(cases)) if a != "device" and cases[a].nunique() > 1]
    columns = [Column("model", "Network"), Column("mode", "Mode"), Column("system", "System")]
    columns += [Column("setting", "Setting")] if axes else []
    columns += [Column("knee", "Knee at batch", "right", _knee), Column("at_knee", "Throughput there", "right")]
    columns += [Column("best", "Best", "right"), Column("best_batch", "at batch", "right")]
    rows: list[list[Cell]] = []
    for (model, mode, system), curve in _curves(cases, "system_id"):
        best, place = curve.iloc[int(curve["throughput"].argmax())], knee(curve)
        at_knee = units.MISSING if place is None else shown(place["throughput"])
        row: list[Cell] = [network(model), mode, names.get(system, "unknown")]
        row += [setting(best.to_dict(), axes)] if axes else []
        row += [None if place is None else int(place["batch_size"]), at_knee]
        rows.append([*row, shown(best["throughput"]), int(best["batch_size"])])
    still = ["Where no knee is given, the best throughput is that of the largest batch, and it may rise further."]
    return Table(columns, rows, notes=still if any(row[-4] is None for row in rows) else ())


def knee(curve: pd.DataFrame) -> pd.Series | None:
    """The row of the knee; None where the largest batch alone comes near the best, so that none is seen."""
    enough = curve[curve["throughput"] >= KNEE_SHARE * curve["throughput"].max()]
    first = enough.loc[enough["batch_size"].idxmin()]
    return None if first["batch_size"] == curve["batch_size"].max() else first


def _drawn(shown: pd.DataFrame, hue: Hue) -> Plot:
    names = network_order(shown["model"])[:_MAX_PANELS]
    figure, panels = grid(len(names), height=2.1, sharex=True)
    panel = dict(zip(names, panels, strict=True))
    for (model, mode, value), curve in _curves(shown[shown["model"].isin(names)], hue.column):
        axes, mark = panel[model], dict(hue.marks[value])
        axes.plot(curve["batch_size"], curve["throughput"], markersize=3.5, **mark, **_LINES[mode])
        low, high = (curve[f"throughput_{end}"].fillna(curve["throughput"]) for end in ("low", "high"))
        axes.vlines(curve["batch_size"], low, high, color=mark["color"], lw=1.1)
        place = knee(curve)
        if place is not None:
            ring: dict[str, Any] = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.1}
            axes.plot([place["batch_size"]], [place["throughput"]], color=mark["color"], ls="none", **ring)
    for name, axes in panel.items():
        axes.set_xscale("log", base=2)
        look.log_axis(axes, "y", look.prefixed)
        axes.set_title(look.plain(network(name), 26))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    label_outer(
        panels, f"Batch per device [{METRICS['throughput'].unit.removesuffix('/s')}]", METRICS["throughput"].heading
    )
    return Plot("batch_curves", "", figure)


def _curves(cases: pd.DataFrame, column: str) -> Iterator[tuple[tuple[str, str, str], pd.DataFrame]]:
    """Each line with at least two batches: its network, mode and value of `column`."""
    place = {name: i for i, name in enumerate([*network_order(cases["model"]), *MODES, *PRECISIONS])}
    groups = dict(iter(cases.groupby(["model", "mode", column], sort=False)))
    for key in sorted(groups, key=lambda k: (place[str(k[0])], place[str(k[1])])):
        curve = groups[key].sort_values("batch_size", kind="stable")
        if curve["batch_size"].nunique() > 1:
            yield (str(key[0]), str(key[1]), str(key[2])), curve


def _mode_marks(cases: pd.DataFrame) -> dict[str, dict[str, Any]]:
    modes = [mode for mode in MODES if (cases["mode"] == mode).any()]
    return {mode: {"color": look.MUTED, "marker": "", **_LINES[mode]} for mode in modes} if len(modes) > 1 else {}


def _knee(cell: Cell) -> str:
    return str(cell) if isinstance(cell, int) else "still rising"
