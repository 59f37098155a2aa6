"""What a whole training would take on each system: time, energy and cost, projected from what was measured."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from dlbench import units
from dlbench.report.analysis import confidence_levels
from dlbench.report.analysis.case_warnings import add_warnings_column, describe_status_and_warnings
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import network_title, setting_label, sort_networks, varying_axes
from dlbench.report.analysis.projection import (
    COST_SENTENCE_STARTS,
    JOULES_PER_KWH,
    Prices,
    Projection,
    project_training,
    unused_price_notes,
)
from dlbench.report.analysis.side_by_side import add_case_numbers, summarize_processes
from dlbench.report.document import Block, Section
from dlbench.report.loading.intervals import confidence_of_each_protocol
from dlbench.stats import Interval
from dlbench.table import Cell, Column, Table, seconds_text, three_digits_text, with_shared_unit

#: The training that everything is projected to: ImageNet-1k as in He et al. 2016 (CVPR), section 3.4: about 90 epochs.
NUM_IMAGES = 1_281_167
NUM_EPOCHS = 90.0
#: What an interval is where a case has several processes.
OVER_PROCESSES_TEXT = (
    "for two processes of a case, the range covered by their intervals; for more, the interval of the mean"
)
_OPTIONAL_COLUMNS = ("choice", "time_low_s", "time_high_s", "energy_kwh", "cost", "warnings")
_LIMITS_NOTE = f"From, To: shortest and longest time, from the {{}} interval of the throughput ({OVER_PROCESSES_TEXT})."


def projection_section(content: Content) -> Section:
    """Time, energy and cost to train each network on each system at its fastest measured setting."""
    trainings = content.shown[(content.shown["mode"] == "training") & content.shown["throughput"].gt(0)]
    # Epochs of ImageNet mean nothing to a network on sequences.
    trainings = trainings[trainings["sample_unit"] != "seq"]
    if trainings.empty:
        words = "No training was measured, so no projection is possible."
        return Section("projection", "Cost to train", [Block(words=words)])
    table, assumptions = projected_trainings_table(trainings, content.system_names, content.prices)
    words = (
        f"A projection to {NUM_EPOCHS:g} epochs of ImageNet-1k ({units.number_text(NUM_IMAGES, 7)} images) for each "
        f"network, at its fastest and its cheapest measured setting. Input sizes may differ. No training was run to "
        f"its end. `dlbench project` projects to other numbers of images and epochs."
    )
    if content.prices is None:
        words += " Add `--prices FILE` to see the cost."
    blocks = [Block(words=words), Block(table=table, lead=True), Block(words=" ".join(assumptions))]
    return Section("projection", "Cost to train", blocks, _projection_finding(table))


def _projection_finding(table: Table) -> str:
    """The shortest training, and the cheapest where prices are known."""
    rows = table.records()
    fast = min(rows, key=lambda row: float(row["time_s"] or math.inf))
    time = units.seconds_text(_number_or_none(fast["time_s"]))
    words = f"The shortest of these trainings takes {time} ({_model_system_setting_text(fast)})"
    priced = [row for row in rows if isinstance(row.get("cost"), float)]
    if not priced:
        return f"{words}."
    cheap = min(priced, key=lambda row: float(row["cost"] or math.inf))
    title = next(column.title_and_unit()[1] for column in table.columns if column.key == "cost")
    return (
        f"{words}; the cheapest costs {three_digits_text(cheap['cost'])} {title} ({_model_system_setting_text(cheap)})."
    )


def _model_system_setting_text(row: Mapping[str, Cell]) -> str:
    return ", ".join(str(row[key]) for key in ("model", "system", "setting") if row.get(key))


def projected_trainings_table(
    trainings: pd.DataFrame, names: Mapping[str, str], prices: Prices | None
) -> tuple[Table, list[str]]:
    """The fastest setting of each network and system, and the cheapest if it is another one; and the assumptions."""
    several = len(names) > 1
    # Several processes of a case together: the fastest of them would be luck.
    processes = add_case_numbers(trainings)
    cases = add_warnings_column(summarize_processes(processes), processes)
    place = {system: i for i, system in enumerate(names)}
    models = {name: i for i, name in enumerate(sort_networks(cases["model"]))}
    axes = ["precision", "batch_size", *(a for a in varying_axes(trainings) if a not in ("device", "repeat"))]
    columns = _projection_columns(several, prices)
    assumptions: dict[str, None] = {}
    rows: list[list[Cell]] = []
    keys = sorted(
        cases[["model", "system_id"]].drop_duplicates().itertuples(index=False, name=None),
        key=lambda key: (models[key[0]], place.get(key[1], len(place))),
    )
    groups = {key: group.to_dict("records") for key, group in cases.groupby(["model", "system_id"])}
    for key in keys:
        name = names.get(key[1], "unknown")
        own = prices.prices_of_system(name) if prices else None
        settings = [(case, project_case(case, NUM_IMAGES, NUM_EPOCHS, own)) for case in groups[key]]
        for choice, case, found in _fastest_and_cheapest(settings):
            # The number of devices is a column here.
            assumptions |= dict.fromkeys(prefix_assumptions_with_system(found.assumptions[1:], name, prices))
            row: dict[str, Cell] = {"model": network_title(case["model"]), "system": name, "choice": choice}
            row |= {"setting": setting_label(case, axes), "warnings": describe_status_and_warnings(case) or None}
            row |= projection_cells(case, found)
            rows.append([row[column.key] for column in columns])
    assumptions |= dict.fromkeys(unused_price_notes(prices, names.values()))
    table = with_shared_unit(Table(columns, rows), "time_s", "time_low_s", "time_high_s")
    limited = any(row["time_low_s"] is not None for row in table.records())
    notes = [_LIMITS_NOTE.format(confidence_levels.describe_levels(cases))] if limited else []
    return replace(table, notes=notes).without_empty_columns(_OPTIONAL_COLUMNS), list(assumptions)


def project_case(case: Mapping[Hashable, Any], num_images: int, num_epochs: float, prices: Prices | None) -> Projection:
    """`project_training` from a case's throughput, power and meter.

    Raises BadInput if images or epochs are not above zero.
    """
    num_devices = int(case["nodes"] * case["devices_per_node"])
    scope = case["energy_scope"] if isinstance(case["energy_scope"], str) else None
    throughput, power_w = _throughput_interval(case)[0], _mean_power_w(case)
    return project_training(num_images, num_epochs, throughput, num_devices, power_w, prices, scope)


#: A case, and the training that it is projected to.
_CaseProjection = tuple[dict[Hashable, Any], Projection]


def _fastest_and_cheapest(
    settings: Sequence[_CaseProjection],
) -> list[tuple[str | None, dict[Hashable, Any], Projection]]:
    """The fastest setting and the cheapest, named by what they are; one row where both are the same."""
    fast = min(settings, key=lambda one: one[1].time_s.value)
    priced = all(found.cost is not None for _, found in settings)

    def cost_then_time(one: _CaseProjection) -> tuple[float, float]:
        cost = one[1].cost if priced and one[1].cost else one[1].device_hours
        return cost.value, one[1].time_s.value

    cheap = min(settings, key=cost_then_time)
    if cheap[0] is fast[0]:
        return [("fastest and cheapest" if len(settings) > 1 else None, *fast)]
    gain = cheap[1].time_s.value / fast[1].time_s.value - 1
    more = fast[1].device_hours.value / fast[1].time_s.value - cheap[1].device_hours.value / cheap[1].time_s.value
    devices = units.count_text(round(more * 3600), "more device")
    few = f", by {units.percent_text(gain)} with {devices}" if more > 1e-9 else ""
    return [(f"fastest{few}", *fast), ("cheapest" if priced else "fewest device-hours", *cheap)]


def prefix_assumptions_with_system(assumptions: Sequence[str], name: str, prices: Prices | None) -> list[str]:
    """`assumptions`, those on money with the system before them where systems cost differently."""
    if prices is None or not prices.systems:
        return list(assumptions)
    return [f"{name}: {words}" if words.startswith(COST_SENTENCE_STARTS) else words for words in assumptions]


def _throughput_interval(case: Mapping[Hashable, Any]) -> tuple[Interval, bool]:
    """A case's throughput with its interval; without one the plain value, and False."""
    value, low, high = (_number_or_none(case[name]) for name in ("throughput", "throughput_low", "throughput_high"))
    assert value is not None
    confidence = float(confidence_of_each_protocol([case["protocol"]])[0])
    if low is None or high is None:
        return Interval(value, value, value, confidence), False
    return Interval(value, low, high, confidence), True


def _mean_power_w(case: Mapping[Hashable, Any]) -> float | None:
    """Power that gives the measured energy per image at the median step's throughput [W]; None without a meter.

    Where steps are uneven this is more than the average over the window, of which idle moments are a part: the energy
    of so many images must not be less than so many times that of an image.
    """
    energy, throughput = _number_or_none(case["energy_per_image"]), _number_or_none(case["throughput"])
    return energy * throughput if energy and throughput else None


def projection_cells(case: Mapping[Hashable, Any], found: Projection) -> dict[str, Cell]:
    """The figures of a projection by column; limits are None where the throughput has no interval."""
    known = _throughput_interval(case)[1]
    devices = int(case["nodes"] * case["devices_per_node"])
    cells: dict[str, Cell] = {"devices": devices, "device_hours": found.device_hours.value}
    for name, interval, factor in (
        ("time{}_s", found.time_s, 1.0),
        ("energy{}_kwh", found.energy_j, 1 / JOULES_PER_KWH),
        ("cost{}", found.cost, 1.0),
    ):
        cells[name.format("")] = interval.value * factor if interval else None
        cells[name.format("_low")] = interval.low * factor if interval and known else None
        cells[name.format("_high")] = interval.high * factor if interval and known else None
    return cells


def _projection_columns(several: bool, prices: Prices | None) -> list[Column]:
    return [
        Column("model", "Network"),
        *([Column("system", "System")] if several else []),
        Column("choice", "Choice"),
        Column("setting", "Setting"),
        Column("devices", "Devices", "right"),
        Column("time_s", "Time", "right", seconds_text),
        Column("time_low_s", "From", "right", seconds_text),
        Column("time_high_s", "To", "right", seconds_text),
        Column("device_hours", "Device-hours [h]", "right", three_digits_text),
        Column("energy_kwh", "Energy [kWh]", "right", three_digits_text),
        Column("cost", f"Cost [{prices.currency}]" if prices else "Cost", "right", three_digits_text),
        Column("warnings", "Warnings", "left"),
    ]


def _number_or_none(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
