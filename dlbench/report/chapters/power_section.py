"""The chapter of power limits and clocks: what a lower one costs in throughput, and saves in energy."""

from collections.abc import Mapping, Sequence

from dlbench import units
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import MAIN_AXES, network_title
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.power_sweep import SWEEP_AXES, PowerLimitSweep, find_power_limit_sweeps
from dlbench.report.chapters.tables import case_name_cells, case_name_columns
from dlbench.report.document import Block, Section
from dlbench.report.figures.plots_power import power_limit_plot
from dlbench.table import Cell, Column, Table

_INTRODUCTION = (
    "These cases differ only in the power limit or the clock of the device. The product is energy per image times time "
    "per image; if energy and time count equally, its lowest value is the best point."
)
_METRICS = ("throughput", "average_power", "energy_per_image")


def power_section(content: Content) -> Section:
    """Throughput and energy over the limit; without blocks where no case was measured at several limits."""
    found = find_power_limit_sweeps(content.shown)
    if not found:
        return Section("power", "Power limits and clocks")
    table = power_table(found, content.system_names)
    finding = _best_power_limit_sentence(found[0])
    blocks = [Block(words=_INTRODUCTION), Block(plot=power_limit_plot(found)), Block(table=table)]
    return Section("power", "Power limits and clocks", blocks, finding)


def power_table(found: Sequence[PowerLimitSweep], names: Mapping[str, str]) -> Table:
    """One row per limit of every sweep."""
    columns = [*case_name_columns(MAIN_AXES, names), Column("limit", "Limit")]
    columns += [Column(name, METRICS[name].heading, "right") for name in _METRICS]
    columns += [Column("product", "Product [J·s]", "right"), Column("best", "Best for")]
    rows: list[list[Cell]] = []
    for one in found:
        for point in one.points.to_dict("records"):
            cells = case_name_cells(point, MAIN_AXES, names)
            cells.append(_format_power_limit(point[one.axis], point["limit"], SWEEP_AXES[one.axis]))
            values = [point[name] for name in (*_METRICS, "product")]
            cells += [units.number_text(value, 4) if value == value else None for value in values]
            rows.append([*cells, ", ".join(point["best"])])
    return Table(columns, rows)


def _format_power_limit(value: int, limit: float, unit: str) -> str:
    if value:
        return f"{value} {unit}"
    return f"as found ({limit:.0f} {unit})" if limit == limit else "as found"


def _best_power_limit_sentence(sweep: PowerLimitSweep) -> str:
    """The gain of the limit that takes the least energy against the one that is fastest."""
    points = sweep.points[sweep.points["energy_per_image"].gt(0)]
    if points.empty:
        return "No energy was measured at these power limits."
    rows = points.to_dict("records")
    saving, fastest = min(rows, key=lambda p: p["energy_per_image"]), max(rows, key=lambda p: p["throughput"])
    if saving is fastest:
        return f"{network_title(saving['model'])} is fastest and uses the least energy at the same limit."
    unit = SWEEP_AXES[sweep.axis]
    less = 1 - saving["energy_per_image"] / fastest["energy_per_image"]
    slower = 1 - saving["throughput"] / fastest["throughput"]
    return (
        f"{network_title(saving['model'])} {_format_at_power_limit(saving[sweep.axis], saving['limit'], unit)} takes "
        f"{units.percent_text(less)} less energy per image than "
        f"{_format_at_power_limit(fastest[sweep.axis], fastest['limit'], unit)}, "
        f"at {units.percent_text(slower)} less throughput."
    )


def _format_at_power_limit(value: int, limit: float, unit: str) -> str:
    return ("at " if value else "") + _format_power_limit(value, limit, unit)
