"""Figures of scaling, weak and strong apart: throughput, speedup, efficiency, communication, energy over devices.

Measured points are filled, with their intervals; what the model predicts beyond them is dashed and hollow, and a band
where it knows limits only.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.scaling_curves import KINDS, ScalingCurve, ScalingPoint, curves_confidence_text
from dlbench.report.document import Plot
from dlbench.report.figures import figure_style as look
from dlbench.report.figures.figure_parts import interval_caption, panel_grid, panel_title
from dlbench.report.figures.log_axes import make_log_axis
from dlbench.suites.case import MODES

#: A figure shows so many curves; the table holds all.
MAX_CURVES = 6
#: So many sizes are each named at the axis; more are named by powers of two.
MAX_TICKS = 5
_COLOURS = (look.BLUE, look.ORANGE, look.GREEN, look.VERMILION, look.PINK, look.SKY)
_PANEL_TITLES = {
    "throughput": "Throughput",
    "speedup": "Speedup over one device",
    "efficiency": "Efficiency [%]",
    "communication_share": "Communication, share of step [%]",
    "energy_j": "Energy per sample [J]",
}
_KIND_DESCRIPTIONS = {"weak": "the batch per device is fixed", "strong": "the batch over all devices is fixed"}


def scaling_plots(found: list[ScalingCurve], ending: str = "") -> list[Plot]:
    """A figure for each kind of scaling and mode there is."""
    keys = [(kind, mode) for kind in KINDS for mode in MODES]
    return [
        _scaling_plot_of_mode(kind, mode, own, ending)
        for kind, mode in keys
        if (own := [c for c in found if (c.kind, c.mode) == (kind, mode)])
    ]


def _scaling_plot_of_mode(kind: str, mode: str, found: list[ScalingCurve], ending: str) -> Plot:
    shown = found[:MAX_CURVES]
    known = [name for name in _PANEL_TITLES if any(getattr(p, name) is not None for c in shown for p in c.points)]
    figure, panels = panel_grid(len(known), height=2.4)
    for axes, name in zip(panels, known, strict=True):
        for curve, colour in zip(shown, _COLOURS, strict=False):
            _draw_scaling_curve(axes, curve, name, colour)
        _set_up_scaling_axes(axes, name, shown)
    marks: dict[str, dict[str, Any]] = {c.name: {"color": k} for c, k in zip(shown, _COLOURS, strict=False)}
    look.add_legend(figure, marks | {"ideal": {"color": look.MUTED, "marker": "", "ls": ":"}})
    base = "; ".join(
        f"{c.name}: {METRICS['throughput'].format(c.points[0].throughput)} on one device"
        for c in shown
        if c.points[0].devices == 1
    )
    bars = interval_caption(curves_confidence_text(shown))
    words = (
        f"{kind.capitalize()} scaling: {_KIND_DESCRIPTIONS[kind]}. {bars} Hollow points and dashed lines "
        f"are predictions."
    )
    if any(not p.known for c in shown for p in c.predictions()):
        words += " Shaded bands: only a lower and an upper limit of the prediction are known."
    more = f" {len(found) - len(shown)} more curves are in the table." if len(found) > len(shown) else ""
    of_mode = "" if mode == "training" else f"_{mode}"
    return Plot(f"scaling_{kind}{of_mode}{ending}", f"{words} {base}.{more}" if base else f"{words}{more}", figure)


def _draw_scaling_curve(axes: Axes, curve: ScalingCurve, name: str, colour: str) -> None:
    points = [p for p in curve.points if getattr(p, name) is not None]
    if not points:
        return
    devices = [p.devices for p in points]
    values = [getattr(p, name) for p in points]
    axes.errorbar(devices, values, yerr=_error_bars(points, name), color=colour, marker="o", ms=4, lw=1.3, capsize=2)
    first = curve.points[0]
    if name == "throughput":
        per_device = first.throughput / first.devices
        all_devices = [p.devices for p in curve.points] + [p.devices for p in curve.predictions()]
        axes.plot(all_devices, [per_device * d for d in all_devices], color=colour, ls=":", lw=1.0)
    scale, beyond = _prediction_to_panel_value(curve, name), curve.predictions()
    if scale is None or not beyond:
        return
    sizes = [p.devices for p in beyond]
    low, high = [scale(p.devices, p.low) for p in beyond], [scale(p.devices, p.high) for p in beyond]
    if beyond[0].known:
        axes.plot([devices[-1], *sizes], [values[-1], *low], color=colour, ls="--", lw=1.0)
        axes.plot(sizes, low, color=colour, ls="none", marker="o", ms=4, mfc="none")
    else:
        ends = [[values[-1], *low], [values[-1], *high]]
        axes.fill_between([devices[-1], *sizes], ends[0], ends[1], color=colour, alpha=0.2, lw=0)
        for line in ends:
            axes.plot([devices[-1], *sizes], line, color=colour, ls="--", lw=0.7)


def _prediction_to_panel_value(curve: ScalingCurve, name: str) -> Any:
    """From devices and predicted throughput to what the panel shows, where it can be predicted."""
    first = curve.points[0]
    if name == "throughput":
        return lambda devices, throughput: throughput
    if first.devices != 1 or name not in ("speedup", "efficiency"):
        return None
    if name == "speedup":
        return lambda devices, throughput: throughput / first.throughput
    return lambda devices, throughput: throughput / first.throughput / devices


def _error_bars(points: list[ScalingPoint], name: str) -> np.ndarray:
    """Lengths of the bars below and above each point; not a number where it has none."""
    values = np.array([getattr(p, name) for p in points])
    low, high = np.array([_scaling_point_interval(p, name) for p in points]).T
    bars: np.ndarray = np.maximum(0.0, [values - low, high - values])
    return bars


def _scaling_point_interval(point: ScalingPoint, name: str) -> tuple[float, float]:
    low, high, by = {
        "throughput": (point.throughput_low, point.throughput_high, 1),
        "speedup": (point.speedup_low, point.speedup_high, 1),
        "efficiency": (point.speedup_low, point.speedup_high, point.devices),
        "communication_share": (*(point.communication_share_limits or (None, None)), 1),
    }.get(name, (None, None, 1))
    return (math.nan, math.nan) if low is None or high is None else (low / by, high / by)


def _set_up_scaling_axes(axes: Axes, name: str, shown: list[ScalingCurve]) -> None:
    unit = f" [{METRICS['throughput'].unit}]" if name == "throughput" else ""
    axes.set_title(f"{_PANEL_TITLES[name]}{unit}\n{panel_title(pd.DataFrame([vars(c) for c in shown]))}")
    axes.set_xlabel("Devices")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    measured = sorted({p.devices for c in shown for p in c.points})
    if len(measured) <= MAX_TICKS and not any(c.predictions() for c in shown):
        axes.set_xticks(measured)
    if name in ("throughput", "speedup"):
        make_log_axis(axes, "y")
    else:
        axes.set_ylim(bottom=0)
    if name in ("efficiency", "communication_share"):
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}")
    most = max([p.devices for c in shown for p in c.points] + [p.devices for c in shown for p in c.predictions()])
    if name == "speedup":
        axes.plot([1, most], [1, most], color=look.MUTED, ls=":", lw=1.0)
    if name == "efficiency":
        axes.axhline(1.0, color=look.MUTED, ls=":", lw=1.0)
