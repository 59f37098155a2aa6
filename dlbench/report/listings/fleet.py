"""What was found in a fleet, as tables and as one closing line."""

from dlbench import units
from dlbench.node_list import compress_nodes
from dlbench.report.analysis.fleet import FleetComparison
from dlbench.table import Cell, Column, Table, number_or_none, percent_text


def outliers_table(found: FleetComparison) -> Table:
    """One row per unit that is slower than chance explains, with the likely reason."""
    columns = [
        Column("node", "Node"),
        Column("device", "Device"),
        Column("slower", "Slower", "right", percent_text),
        Column("limit", "Outlier from", "right", percent_text),
        Column("case", "In"),
        Column("slow_cases", "Slow in", "right"),
        Column("tested_cases", "of", "right"),
        Column("processes", "Processes", "right"),
        Column("reason", "Likely reason"),
    ]
    rows: list[list[Cell]] = [
        [
            *(one.host, one.device, one.slower, one.limit, one.what, one.cases, one.tested, one.processes),
            "; ".join(one.reasons) or "no reason found in the records",
        ]
        for one in found.outliers
    ]
    return Table(columns, rows, title="Slow units" if rows else "")


def distributions_table(found: FleetComparison) -> Table:
    """One row per case and reading: how its units differ."""
    columns = [
        Column("kind", "Device"),
        Column("case", "Case or reading"),
        Column("unit", "Unit"),
        Column("units", "Units", "right"),
        *(
            Column(key, key.capitalize(), "right", lambda cell: units.rate_text(number_or_none(cell), "").strip())
            for key in ("lowest", "median", "highest")
        ),
        Column("range", "Range", "right", percent_text),
        Column("outlier_from", "Outlier from", "right", percent_text),
        Column("found_from", "Found in 95 %", "right", percent_text),
    ]
    rows: list[list[Cell]] = [
        [
            one.kind,
            one.what,
            one.unit,
            one.units,
            one.low,
            one.median,
            one.high,
            one.relative_range,
            one.limit,
            one.found_from,
        ]
        for one in found.distributions
    ]
    chance = units.percent_text(found.false_alarms)
    notes = [
        f"Probability of at least one false alarm in this fleet, over {found.tests} tests: {chance}.",
        "Range: (highest - lowest) / median. Outlier from: a unit is an outlier if it is slower than the median unit "
        "by at least this percentage.",
        *_published_range_note(found),
        *found.notes,
    ]
    return Table(columns, rows, title="Distribution over the units", notes=notes)


def _published_range_note(found: FleetComparison) -> list[str]:
    """The ranges of this fleet beside those of Sinha et al. 2022 (SC22, "Not All GPUs Are Created Equal")."""
    ranges = [one.relative_range for one in found.distributions if one.limit is not None]
    if not ranges:
        return []
    own = (
        f"{units.percent_text(sum(ranges) / len(ranges))} on average over the cases, "
        f"{units.percent_text(max(ranges))} at most"
    )
    return [
        f"Fleet ranges: {own}. Published for identical GPUs (Sinha et al., SC22): 8 % on average, 22 % at most, and "
        f"outliers 1.5 times slower than the median."
    ]


def summary_line(found: FleetComparison) -> str:
    """The closing line: how many units are slow, and the nodes to drain."""
    if not found.tests:
        return "cannot decide: no case was measured on enough devices or nodes"
    tested = units.count_text(len(found.slowdowns), "unit")
    if not found.outliers:
        return f"{tested}: no outlier"
    slow = units.count_text(len(found.outliers), "outlier")
    nodes = found.nodes_with_outliers
    return f"{tested}: {slow} on {units.count_text(len(nodes), 'node')}: {compress_nodes(nodes)}"
