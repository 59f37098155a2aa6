"""`dlbench.plots`: the figures of the report for a notebook, each a function that gives a matplotlib Figure.

Each takes sources, as `dlbench.metrics` does, or a frame that `dlbench.metrics` gave, or a part of it. Where results of
several systems are given, `system` names the one to draw; without it `throughput`, `energy` and `memory` draw all.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from dlbench.errors import BadInput, UnknownName
from dlbench.report.analysis.content import metrics
from dlbench.report.analysis.side_by_side import add_case_numbers, select_representative_cases, summarize_processes
from dlbench.report.document import Plot
from dlbench.report.figures import figure_style, plots_batch, plots_rates, plots_samples, plots_systems, plots_time

Data = str | Path | Sequence[str | Path] | pd.DataFrame


def throughput(data: Data = "results", system: str | None = None) -> Figure:
    """Images per second of each network, with intervals."""
    return _draw_figure(plots_rates.throughput_plot, data, system, "throughput")


def batch_curves(data: Data = "results", system: str | None = None) -> Figure:
    """Throughput over the batch size."""
    return _draw_figure(plots_batch.batch_curves, data, system)


def precisions(data: Data = "results", system: str | None = None) -> Figure:
    """Throughput by precision."""
    return _draw_figure(plots_rates.precisions_plot, data, system)


def energy(data: Data = "results", system: str | None = None) -> Figure:
    """Energy per image."""
    return _draw_figure(plots_rates.energy_plot, data, system, "energy_per_image")


def step_time(data: Data = "results", system: str | None = None) -> Figure:
    """Where the time of a step goes: forward, backward, optimizer, the rest."""
    return _draw_figure(plots_time.step_breakdown, data, system)


def memory(data: Data = "results", system: str | None = None) -> Figure:
    """Memory by kind, and its peaks."""
    return _draw_figure(plots_time.memory_plot, data, system, "memory_allocated")


def flop_time(data: Data = "results", system: str | None = None) -> Figure:
    """Time against floating-point operations, with the bound."""
    return _draw_figure(plots_time.flop_time_plot, data, system)


def distribution(data: Data = "results", system: str | None = None) -> Figure:
    """How step times scatter."""
    return _draw_figure(plots_samples.step_time_box_plot, data, system)


def time_series(data: Data = "results", system: str | None = None) -> Figure:
    """Step times in the order of the steps."""
    return _draw_figure(plots_samples.step_times_plot, data, system)


def power(data: Data = "results", system: str | None = None) -> Figure:
    """The power trace over the window."""
    return _draw_figure(plots_samples.power_trace_plot, data, system)


def _draw_figure(draw: Callable[[pd.DataFrame], Plot], data: Data, system: str | None, metric: str = "") -> Figure:
    """The figure that `draw` makes of one system's cases; of several, one of `metric` over all of them.

    Raises StoreError, UnknownName, or BadInput if there is nothing to draw, or no one of several systems was named.
    """
    cases = _load_cases(data)
    cases = cases[cases["steps"] > 0]
    if system is None and metric and cases["system_id"].nunique() > 1:
        # All systems side by side, at the settings that they share.
        names = {str(key): str(name) for key, name in zip(cases["system_id"], cases["system"], strict=True)}
        cases = select_representative_cases(summarize_processes(add_case_numbers(cases)))
        draw = partial(plots_systems.metric_over_systems_plot, names=names, metric=metric, name=metric)
    else:
        cases = _cases_of_system(cases, system)
        if cases.empty:
            raise BadInput("the given results contain no measured case to draw")
    with figure_style.plot_style():
        plot = draw(cases)
    if plot.figure is None:
        raise BadInput(plot.caption)
    return plot.figure


def _load_cases(data: Data) -> pd.DataFrame:
    """The cases behind sources, behind rows that `dlbench.load` gave, or those of `dlbench.metrics` themselves."""
    if not isinstance(data, pd.DataFrame):
        return metrics(data)
    if {"steps", "system_id", "throughput"} <= set(data):
        return data
    if "attempt_id" not in data or "sources" not in data.attrs:
        raise BadInput("plots take a results folder, or a DataFrame that dlbench.metrics or dlbench.load returned")
    cases = metrics(data.attrs["sources"])
    return cases[cases["attempt_id"].isin(data["attempt_id"])]


def _cases_of_system(cases: pd.DataFrame, system: str | None) -> pd.DataFrame:
    names = list(dict.fromkeys(cases["system"]))
    if system is None and len(names) > 1:
        listed = ", ".join(map(str, names))
        raise BadInput(f"these are results of {len(names)} systems ({listed}); choose one, as in system={names[0]!r}")
    if system is None:
        return cases
    if system not in names:
        raise UnknownName("system", system, map(str, names))
    return cases[cases["system"] == system]
