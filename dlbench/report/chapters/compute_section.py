"""The chapter of compute to train: published figures, what is counted, and what each would take on these systems."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from dlbench import units
from dlbench.report.analysis.compute_to_train import TrainedNetwork, trained_networks
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import network_title
from dlbench.report.analysis.projection import JOULES_PER_KWH, Prices
from dlbench.report.document import Block, Section
from dlbench.table import Cell, Column, Table


def compute_section(content: Content) -> Section:
    """The chapter; without blocks where no training was measured with its FLOP."""
    cases = content.shown
    cases = cases[(cases["mode"] == "training") & cases["flop_rate"].gt(0)]
    if cases.empty:
        return Section("compute", "Compute to train")
    words = (
        "Published compute to train three networks of different years, with the time, energy and cost on each system. "
        "Each system's highest rate in a training is used, on the assumption that the network reaches it."
    )
    blocks = [Block(words=words), Block(table=published_table()), Block(table=systems_table(content, cases))]
    return Section("compute", "Compute to train", blocks)


def published_table() -> Table:
    """The published figures beside the counted ones."""
    columns = [
        *(Column("name", "Network"), Column("year", "Year", "right", str)),
        *(Column("parameters", "Parameters", "right"), Column("counted_parameters", "Counted", "right")),
        *(Column("flop", "Compute", "right"), Column("counted_flop", "Counted", "right")),
        Column("reason", "Reason of the difference", "left"),
    ]
    rows: list[list[Cell]] = [
        [n.name, n.year, n.parameters, n.counted_parameters, _flop_text(n.flop), _flop_text(n.counted_flop), n.reason]
        for n in trained_networks()
    ]
    return Table(columns, rows, notes=["Published: rounded figures of a lecture slide."])


def systems_table(content: Content, cases: pd.DataFrame) -> Table:
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
        prices = content.prices.for_system(name) if content.prices else None
        first = [name, network_title(case["model"]), units.rate(case["flop_rate"], "FLOP/s")]
        rows += [[*first, n.name, *_training_cells(case, n, prices)] for n in trained_networks()]
    notes = [
        "The counted compute is used if it exists, otherwise the published one. Energy is the gross energy of the "
        "metered devices."
    ]
    return Table(columns, rows, notes=notes)


def _training_cells(case: Mapping[Hashable, Any], wanted: TrainedNetwork, prices: Prices | None) -> list[Cell]:
    flop = wanted.counted_flop or wanted.flop
    time_s = flop / case["flop_rate"]
    energy_j = case["energy_per_gflop"] * flop / 1e9 if case["energy_per_gflop"] > 0 else None
    energy = None if energy_j is None else energy_j / JOULES_PER_KWH / 1000
    cost: Cell = None
    if prices is not None:
        money = prices.cost(time_s / 3600 * case["nodes"] * case["devices_per_node"], energy_j)
        cost = None if money is None else f"{units.digits(money)} {prices.currency}"
    return [units.seconds(time_s), energy, cost]


def _flop_text(value: float | None) -> str:
    return units.MISSING if value is None else units.quantity(value, "FLOP")
