"""`dlbench.plots`: the figures of the report for a notebook, each a function that gives a matplotlib Figure.

Each takes sources, as `dlbench.metrics` does, or a frame that `dlbench.metrics` gave, or a part of it. Where results of
several systems are given, `system` names the one to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from dlbench.errors import BadInput, UnknownName
from dlbench.report.analysis.frames import metrics
from dlbench.report.document import Plot
from dlbench.report.figures import figure_style, plots_batch, plots_rates, plots_samples, plots_time

Data = str | Path | Sequence[str | Path] | pd.DataFrame


def throughput(data: Data = "results", system: str | None = None) -> Figure:
    """Images per second of each network, with intervals."""
    return _figure(plots_rates.throughput, data, system)


def batch_curves(data: Data = "results", system: str | None = None) -> Figure:
    """Throughput over the batch size."""
    return _figure(plots_batch.batch_curves, data, system)


def precisions(data: Data = "results", system: str | None = None) -> Figure:
    """Throughput by precision."""
    return _figure(plots_rates.precisions, data, system)


def energy(data: Data = "results", system: str | None = None) -> Figure:
    """Energy per image."""
    return _figure(plots_rates.energy, data, system)


def step_time(data: Data = "results", system: str | None = None) -> Figure:
    """Where the time of a step goes: forward, backward, optimizer, the rest."""
    return _figure(plots_time.step_breakdown, data, system)


def memory(data: Data = "results", system: str | None = None) -> Figure:
    """Memory by kind, and its peaks."""
    return _figure(plots_time.memory, data, system)


def flop_time(data: Data = "results", system: str | None = None) -> Figure:
    """Time against floating-point operations, with the bound."""
    return _figure(plots_time.flop_time, data, system)


def distribution(data: Data = "results", system: str | None = None) -> Figure:
    """How step times scatter."""
    return _figure(plots_samples.distribution, data, system)


def time_series(data: Data = "results", system: str | None = None) -> Figure:
    """Step times in the order of the steps."""
    return _figure(plots_samples.time_series, data, system)


def power(data: Data = "results", system: str | None = None) -> Figure:
    """The power trace over the window."""
    return _figure(plots_samples.power, data, system)


def _figure(draw: Callable[[pd.DataFrame], Plot], data: Data, system: str | None) -> Figure:
    """The figure that `draw` makes of one system's cases.

    Raises:
        StoreError: a source does not exist.
        UnknownName: no system is called so.
        BadInput: there is nothing to draw, or there are several systems and none was named.
    """
    cases = data if isinstance(data, pd.DataFrame) else metrics(data)
    cases = _of_system(cases[cases["steps"] > 0], system)
    if cases.empty:
        raise BadInput("no measured case to draw: the sources or the frame hold none")
    with figure_style.style():
        plot = draw(cases)
    if plot.figure is None:
        raise BadInput(plot.caption)
    return plot.figure


def _of_system(cases: pd.DataFrame, system: str | None) -> pd.DataFrame:
    names = list(dict.fromkeys(cases["system"]))
    if system is None and len(names) > 1:
        listed = ", ".join(map(str, names))
        raise BadInput(f"results of {len(names)} systems ({listed}): name one, as in system={names[0]!r}")
    if system is None:
        return cases
    if system not in names:
        raise UnknownName("system", system, map(str, names))
    return cases[cases["system"] == system]
