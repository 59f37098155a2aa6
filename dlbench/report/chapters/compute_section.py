"""The chapter of compute to train: published figures, what is counted, and what each would take on these systems."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dlbench import units
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import network_title
from dlbench.report.analysis.projection import JOULES_PER_KWH, Prices
from dlbench.report.document import Block, Section
from dlbench.suites.catalog import CATALOG
from dlbench.table import Cell, Column, Table

#: He et al. 2016, CVPR, section 3.4: 60 x 10^4 iterations with mini-batches of 256.
RESNET_IMAGES = 600_000 * 256


@dataclass(frozen=True)
class PublishedTraining:
    """One row of the published table; the figures are those of a lecture slide, rounded as there."""

    name: str
    year: int
    parameters: int
    flop: float
    counted_parameters: int | None = None
    counted_flop: float | None = None
    reason: str = "not counted, because the network is not in the catalogue"


def published_trainings() -> tuple[PublishedTraining, ...]:
    """The published rows, with what is counted and why it differs."""
    resnet = CATALOG["resnet152"]
    half = 2 * resnet.forward_flop * RESNET_IMAGES
    return (
        PublishedTraining(
            *("ResNet-152", 2015, 60_000_000, 7e18),
            resnet.parameters,
            float(resnet.training_flop * RESNET_IMAGES),
            f"The published figure equals the FLOP of two forward passes over {RESNET_IMAGES / 1e6:.1f} million images "
            f"(600,000 iterations of 256): {half / 1e18:.1f} exaFLOP. A backward pass alone costs about two forward "
            f"passes",
        ),
        PublishedTraining("Deep Speech 2", 2016, 300_000_000, 20e18),
        PublishedTraining("Google NMT", 2017, 8_700_000_000, 100e18),
    )


def compute_section(content: Content) -> Section:
    """The chapter; without blocks where no training was measured with its FLOP."""
    cases = content.shown
    cases = cases[(cases["mode"] == "training") & cases["flop_rate"].gt(0)]
    if cases.empty:
        return Section("compute", "Compute to train")
    words = (
        "Published compute to train three networks of different years, with the time, energy and cost on each system. "
        "The time assumes that the training reaches the highest FLOP/s of all trainings measured on the system."
    )
    blocks = [
        Block(words=words),
        Block(table=published_counts_table()),
        Block(table=training_times_table(content, cases)),
    ]
    return Section("compute", "Compute to train", blocks)


def published_counts_table() -> Table:
    """The published figures beside the counted ones."""
    columns = [
        *(Column("name", "Network"), Column("year", "Year", "right", str)),
        *(Column("parameters", "Parameters", "right"), Column("counted_parameters", "Counted", "right")),
        *(Column("flop", "Compute", "right"), Column("counted_flop", "Counted", "right")),
        Column("reason", "Reason of the difference", "left"),
    ]
    rows: list[list[Cell]] = [
        [n.name, n.year, n.parameters, n.counted_parameters, _flop_text(n.flop), _flop_text(n.counted_flop), n.reason]
        for n in published_trainings()
    ]
    return Table(columns, rows, notes=["The published values are rounded; their source is a lecture slide."])


def training_times_table(content: Content, cases: pd.DataFrame) -> Table:
    """What each network would take on each system, at its highest measured rate."""
    columns = [
        *(Column("system", "System"), Column("rate", "Rate of", "left"), Column("flop_rate", "FLOP/s", "right")),
        *(Column("network", "Network"), Column("time_s", "Time", "right")),
        *(Column("energy", "Energy [MWh]", "right"), Column("cost", "Cost", "right")),
    ]
    best = cases.sort_values("flop_rate", ascending=False).drop_duplicates("system_id")
    rows: list[list[Cell]] = []
    for case in best.to_dict("records"):
        name = content.system_names.get(case["system_id"], "unknown")
        prices = content.prices.prices_of_system(name) if content.prices else None
        first = [name, network_title(case["model"]), units.rate_text(case["flop_rate"], "FLOP/s")]
        rows += [[*first, n.name, *_training_projection_cells(case, n, prices)] for n in published_trainings()]
    notes = [
        "Time, energy and cost follow from the counted FLOP, or from the published FLOP without a count. Energy is "
        "that of the metered devices, with idle power."
    ]
    return Table(columns, rows, notes=notes)


def _training_projection_cells(
    case: Mapping[Hashable, Any], wanted: PublishedTraining, prices: Prices | None
) -> list[Cell]:
    flop = wanted.counted_flop or wanted.flop
    time_s = flop / case["flop_rate"]
    energy_j = case["energy_per_gflop"] * flop / 1e9 if case["energy_per_gflop"] > 0 else None
    energy = None if energy_j is None else energy_j / JOULES_PER_KWH / 1000
    cost: Cell = None
    if prices is not None:
        money = prices.cost(time_s / 3600 * case["nodes"] * case["devices_per_node"], energy_j)
        cost = None if money is None else f"{units.number_text(money)} {prices.currency}"
    return [units.seconds_text(time_s), energy, cost]


def _flop_text(value: float | None) -> str:
    return units.MISSING if value is None else units.quantity_text(value, "FLOP")
