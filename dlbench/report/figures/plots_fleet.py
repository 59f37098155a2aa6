"""A map of a fleet: each node a row of devices, coloured by how much slower each is than the median unit."""

import math

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

from dlbench.node_list import natural_sort_key
from dlbench.report.document import Plot
from dlbench.report.figures import figure_style as look

#: Nodes in one column of the map, and columns at most: a map of more nodes shows those with the slowest units.
_PER_COLUMN, _MAX_COLUMNS = 64, 8
#: Colours end at this slowdown at least, so that a quiet fleet looks quiet.
_MIN_COLOUR_RANGE = 0.05
_COLOURS = LinearSegmentedColormap.from_list("fleet", [look.BLUE, "#f2f4f7", look.VERMILION])


def fleet_map(slowdowns: pd.DataFrame) -> Plot:
    """The map of node by device; `slowdowns` as `dlbench.report.analysis.fleet.FleetComparison` holds them."""
    name = "fleet-map"
    if slowdowns.empty:
        return Plot(name, "No unit was measured.")
    whole = slowdowns.assign(slot=slowdowns["slot"].replace("", "node"))
    table = whole.pivot_table(index="host", columns="slot", values="slower", aggfunc="median")
    slow = whole[whole["is_outlier"]]
    marked = {(host, device) for host, device in zip(slow["host"], slow["slot"], strict=True)}
    table = table.loc[sorted(table.index, key=natural_sort_key), sorted(table.columns, key=natural_sort_key)]
    num_nodes = len(table)
    room = _PER_COLUMN * _MAX_COLUMNS
    if num_nodes > room:
        worst = table.max(axis=1).sort_values(ascending=False, kind="stable").index[:room]
        table = table.loc[table.index.isin(worst)]
    columns = math.ceil(len(table) / _PER_COLUMN)
    per_column = math.ceil(len(table) / columns)
    figure = look.new_figure(1.1 + 0.16 * per_column)
    panels = figure.subplots(1, columns, squeeze=False)[0]
    top = max(_MIN_COLOUR_RANGE, float(np.nanmax(np.abs(table.to_numpy()))))
    image = None
    for place, axes in enumerate(panels):
        part = table.iloc[place * per_column : (place + 1) * per_column]
        values = 100 * part.to_numpy()
        scale = TwoSlopeNorm(0, -100 * top, 100 * top)
        image = axes.imshow(values, aspect="auto", cmap=_COLOURS, norm=scale, interpolation="none")
        axes.set_xticks(range(len(part.columns)), [look.fit_text_for_figure(str(c), 8) for c in part.columns])
        axes.set_yticks(range(len(part)), [look.fit_text_for_figure(str(h), 20) for h in part.index], fontsize=7)
        axes.grid(visible=False)
        axes.set_xlabel("Device")
        for y, host in enumerate(part.index):
            for x, device in enumerate(part.columns):
                if (host, device) in marked:
                    axes.text(x, y, "×", ha="center", va="center", fontsize=8, color=look.INK)
    if image is not None:
        figure.colorbar(image, ax=list(panels), label="Step time compared with the median [%]", shrink=0.8)
    more = f" Shown: the {len(table)} of {num_nodes} nodes with the slowest devices." if num_nodes > len(table) else ""
    words = (
        "Slowdown of each device (on CPUs: of each node) compared with the median device; if several cases were "
        f"measured, the median over the cases. × marks an outlier.{more}"
    )
    return Plot(name, words, figure)
