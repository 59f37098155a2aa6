"""The chapter of tuned networks: the setting as shipped beside the best one, and what each lever gave."""

from __future__ import annotations

import dataclasses

from dlbench import units
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import network
from dlbench.report.analysis.tuning import Tuned, searches
from dlbench.report.document import Block, Section
from dlbench.report.figures.plots_tuning import waterfall
from dlbench.report.listings.tuning import tuning_table

_WORDS = (
    "`dlbench tune` looked for the fastest correct setting, in short windows. A lever gives its ratio on top "
    "of the levers above it. `dlbench ab` compares two settings with an interval."
)


def tuning(content: Content) -> Section:
    """As shipped and as tuned; without blocks where nothing was tuned."""
    found = list(searches(content.shown))
    if not found:
        return Section("tuning", "As shipped and as tuned")
    blocks = [Block(words=_WORDS)]
    for number, one in enumerate(found, 1):
        title = f"{one.first.model}, {one.first.mode}"
        plot = waterfall(one.changes, one.shipped, title, one.goal, one.unit, one.records)
        plot = dataclasses.replace(plot, name=f"{plot.name}-{number}")
        heading = f"{title}: {content.system_names.get(one.system_id, 'unknown')}, {one.num_settings} settings"
        blocks.append(Block(heading=heading, plot=plot))
        blocks.append(Block(table=tuning_table(one.changes, one.shipped, one.goal, one.unit)))
    return Section("tuning", "As shipped and as tuned", blocks, " ".join(map(_finding, found)))


def _finding(one: Tuned) -> str:
    name = f"{network(one.first.model)} in {one.first.mode}"
    if not one.changes:
        return f"{name}: no setting gave more than the one as shipped."
    ratio = units.digits(one.changes[-1].after / one.shipped, 3)
    return f"{name} as tuned gives {ratio} times the {one.goal} as shipped."
