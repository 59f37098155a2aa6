"""The chapter of tuned networks: the default setting beside the best one, and what each lever gave."""

import dataclasses
from collections.abc import Sequence

from dlbench import units
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import network_title
from dlbench.report.analysis.tuning import TuningResult, find_tuning_searches, search_title, tuning_goal_heading
from dlbench.report.document import Block, Section
from dlbench.report.figures.plots_tuning import tuning_waterfall_plot
from dlbench.suites.levers import LeverChange
from dlbench.table import Cell, Column, Table

_INTRODUCTION = (
    "`dlbench tune` searched for the fastest setting with correct results, in short measurements. It started from "
    "the default setting. Each row adds one change to the rows above it; its ratio is the gain of this "
    "change. `dlbench ab` compares two settings with an interval."
)


def tuning_section(content: Content) -> Section:
    """Default and tuned settings; without blocks where nothing was tuned."""
    found = list(find_tuning_searches(content.shown))
    if not found:
        return Section("tuning", "Default and tuned settings")
    blocks = [Block(words=_INTRODUCTION)]
    for number, one in enumerate(found, 1):
        name = search_title(one.first)
        plot = tuning_waterfall_plot(one.changes, one.shipped, name, one.goal, one.unit, one.records)
        plot = dataclasses.replace(plot, name=f"{plot.name}-{number}")
        heading = f"{name}: {content.system_names.get(one.system_id, 'unknown')}, {one.num_settings} settings"
        blocks.append(Block(heading=heading, plot=plot))
        blocks.append(Block(table=tuning_table(one.changes, one.shipped, one.goal, one.unit)))
    return Section("tuning", "Default and tuned settings", blocks, " ".join(map(_tuning_result_sentence, found)))


def tuning_table(changes: Sequence[LeverChange], shipped: float, goal: str, unit: str, title: str = "") -> Table:
    """One row per change, from the default setting to the best one, with the figure after it.

    Args:
        shipped: figure of the default setting.
        unit: of a sample, such as img.
    """
    columns = [
        Column("change", "Setting"),
        Column("figure", tuning_goal_heading(goal, unit), "right"),
        Column(
            "ratio", "Gives", "right", lambda cell: "" if cell is None else f"x {units.number_text(float(cell), 3)}"
        ),
        Column("total", "In total", "right", lambda cell: f"x {units.number_text(float(cell or 0.0), 3)}"),
    ]
    rows: list[list[Cell]] = [["default setting", shipped, None, 1.0]]
    rows += [[f"+ {change.text}", change.after, change.ratio, change.after / shipped] for change in changes]
    notes = [] if changes else ["No other setting was better than the default setting."]
    return Table(columns, rows, title, notes)


def _tuning_result_sentence(one: TuningResult) -> str:
    name = f"{network_title(one.first.model)} in {one.first.mode}"
    if not one.changes:
        return f"{name}: no other setting was better than the default setting."
    ratio = units.number_text(one.changes[-1].after / one.shipped, 3)
    return f"{name} with the tuned setting reaches {ratio} times the {one.goal} of the default setting."
