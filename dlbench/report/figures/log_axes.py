"""Logarithmic axes: round ticks, all in one unit, which the label of the axis names."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from dlbench import units


@dataclass(frozen=True)
class AxisUnit:
    """The one unit of an axis: how much of the quantity's own unit it is, and its name with the prefix."""

    factor: float = 1.0
    name: str = ""

    def format_tick(self, value: float) -> str:
        """The number at a tick, without zeros that mean nothing: "0.1", "20", "50 000"."""
        number = units.number_text(value / self.factor, 3)
        return number.rstrip("0").rstrip(".") if "." in number else number

    def format_value(self, value: float) -> str:
        """The words beside a point: "133 mJ/img"."""
        return f"{units.number_text(value / self.factor)} {self.name}"

    def axis_label(self, title: str) -> str:
        """The label of the axis: "Energy per image [mJ/img]"."""
        return f"{title} [{self.name}]" if self.name else title


def choose_axis_unit(values: Iterable[float], unit: str) -> AxisUnit:
    """The unit for an axis that holds `values`: the prefix is that of the middle of the axis.

    Args:
        values: in `unit`; those that are not above zero have no place on the axis.
        unit: without prefix, such as "s", "J/img" or "FLOP".
    """
    known = [value for value in values if 0 < value < math.inf]
    middle = math.sqrt(min(known)) * math.sqrt(max(known)) if known else 1.0
    factor, prefix = units.si_prefix(middle, unit)
    return AxisUnit(factor, f"{prefix}{unit}")


class _RoundTickLocator(LogLocator):
    """Powers of ten; where fewer than two of them are in view, round numbers between them as well."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        found = super().tick_values(vmin, vmax)
        for steps in ((2.0, 5.0), (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)):
            if sum(vmin <= tick <= vmax for tick in found) >= 2:
                break
            powers = [10.0 ** math.floor(math.log10(vmin)), 10.0 ** math.floor(math.log10(vmax))]
            found = sorted({step * power for power in powers for step in (1.0, *steps)})
        return found


def make_log_axis(axes: Axes, which: str, unit: AxisUnit | None = None) -> None:
    """Make the axis "x" or "y" logarithmic, with plain numbers at powers of ten, or at rounds between."""
    axis: Any = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(_RoundTickLocator(base=10, numticks=8))
    show = (unit or AxisUnit()).format_tick
    axis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
