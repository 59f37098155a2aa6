"""The chapter of scaling: figures, a table of every measured and predicted size, and what each model says."""

import dataclasses
import shlex

from dlbench import units
from dlbench.report.analysis.case_selection import representative_network
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.scaling_curves import (
    MAX_FIT_ERROR,
    ScalingCurve,
    ScalingPoint,
    ThroughputPrediction,
    curves_confidence_text,
    find_scaling_curves,
)
from dlbench.report.chapters.tables_systems import UNKNOWN_SPREAD
from dlbench.report.document import Block, Section
from dlbench.suites.case import USUAL_CONFIDENCE
from dlbench.table import Cell, Column, Table, half_width_cell, half_width_text, quantity_format

#: So many curves are named in a sentence.
_MAX_NAMED = 4


def _percent_text(value: Cell) -> str:
    return "–" if value is None else f"{float(value):.1%}".replace("%", " %")


def scaling_table(found: list[ScalingCurve]) -> Table:
    """Every measured size, and behind each curve what the model predicts; the absolute figures stand in each row."""
    rows: list[list[Cell]] = []
    for curve in found:
        single = curve.points[0].throughput if curve.points[0].devices == 1 else None
        for p in curve.points:
            speed = None if p.speedup is None else round(p.speedup, 3)
            ends = p.communication_share_limits
            shares = None if ends is None else " to ".join(f"{100 * s:.1f}" for s in ends) + " %"
            limits = (
                None
                if p.speedup_low is None
                else f"{units.ratio_text(p.speedup_low)} to {units.ratio_text(p.speedup_high)}"
            )
            size: list[Cell] = [curve.kind, curve.name, "measured", p.devices, p.nodes, p.batch_size]
            figures: list[Cell] = [p.throughput, _half_width_cell(p), None, single, speed, limits, p.efficiency]
            rows.append([*size, *figures, p.exposed_s, p.communication_share, shares, p.energy_j])
        rows += [_prediction_row(curve, p, single) for p in curve.predictions()]
    columns = [
        Column("scaling"),
        Column("curve"),
        Column("origin"),
        Column("devices"),
        Column("nodes"),
        Column("batch_size", "batch per device"),
        Column("throughput_img_per_s", "throughput", "right", quantity_format(METRICS["throughput"].unit)),
        Column("half_width", "±", "right", half_width_text),
        Column("predicted_limits", "limits of throughput", "right"),
        Column("single_device_img_per_s", "single device", "right", quantity_format(METRICS["throughput"].unit)),
        Column("speedup"),
        Column("speedup_interval", "interval of speedup", "right"),
        Column("efficiency", "", "right", _percent_text),
        Column("exposed_s", "exposed communication", "right", quantity_format("s")),
        Column("communication_share", "share of step", "right", _percent_text),
        Column("share_interval", "interval of share", "right"),
        Column("energy_per_image_j", "energy per image", "right", quantity_format("J")),
    ]
    unknown = any(p.speedup is not None and p.speedup_low is None for curve in found for p in curve.points)
    usual = all(curve.confidence == (USUAL_CONFIDENCE,) for curve in found)
    notes = [] if usual else [f"Confidence level of ± and of the intervals: {curves_confidence_text(found)}."]
    return Table(columns, rows, notes=[*notes, *([UNKNOWN_SPREAD] if unknown else [])])


def _half_width_cell(point: ScalingPoint) -> Cell:
    if point.half_width is None or point.throughput_low is None or point.throughput_high is None:
        return None
    return half_width_cell(point.half_width, point.throughput, point.throughput_low, point.throughput_high)


def superlinear_sentence(found: list[ScalingCurve]) -> str:
    """A caution where sizes are more than 100 % efficient by more than their intervals; "" where none is."""
    largest = [
        (curve.name, max(sizes, key=lambda p: p.efficiency or 0.0))
        for curve in found
        if (sizes := [p for p in curve.points if p.is_superlinear])
    ]
    if not largest:
        return ""
    shown = largest[:_MAX_NAMED]
    named = "; ".join(f"{name}: {_percent_text(p.efficiency)} on {p.devices} devices" for name, p in shown)
    more = f"; {len(largest) - _MAX_NAMED} more curves" if len(largest) > _MAX_NAMED else ""
    return (
        f"Efficiency above 100 % ({named}{more}) rarely comes from scaling: usually the "
        f"single-device case was slowed by other work, the work of one device fits into its caches, or its clocks "
        f"were higher (turbo)."
    )


def _prediction_row(curve: ScalingCurve, found: ThroughputPrediction, single: float | None) -> list[Cell]:
    """A row of the table; only limits where the model knows no more."""
    batch = curve.batch_size_per_device(found.devices)
    value = found.throughput
    speedup = None if value is None or single is None else value / single
    ends, speedups = None, None
    if not found.known:
        ends = " to ".join(units.quantity_text(end, METRICS["throughput"].unit, 3) for end in (found.low, found.high))
        speedups = (
            None if single is None else " to ".join(units.ratio_text(end / single) for end in (found.low, found.high))
        )
    return [
        *(curve.kind, curve.name, "predicted", found.devices, None, batch, value, None, ends, single),
        *(None if speedup is None else round(speedup, 3), speedups),
        *(None if speedup is None else speedup / found.devices, None, None, None, None),
    ]


def scaling_model_sentence(curve: ScalingCurve) -> str:
    """What was fitted, how far it is to be trusted, and for which sizes it is a prediction."""
    model = curve.model
    if model is None:
        return (
            f"{curve.name} ({curve.kind}): no prediction, because a prediction needs results of at least two sizes "
            f"with more than one device."
        )
    if model.fit_error > MAX_FIT_ERROR:
        return (
            f"{curve.name} ({curve.kind}): no prediction. The fitted model deviates by {100 * model.fit_error:.0f} % "
            f"from a measured point: these ranks share a resource that the model does not include, such as cores."
        )
    error = "prediction error unknown (estimating it needs three measured numbers of devices above one)"
    if model.left_out_error is not None:
        error = f"prediction error at points left out of the fit: at most {_percent_text(model.left_out_error)}"
    bound, beyond = "", "larger sizes are predictions"
    if not model.overlap_known:
        bound = "at least "
        beyond += ", given as a range: the lower end with this overlap, the upper end with complete overlap"
    times = (model.compute_s(curve.batch_size_per_device(1)), model.transfer_s, model.latency_s)
    compute, transfer, latency = (units.quantity_text(time_s, "s", 3) for time_s in times)
    return (
        f"{curve.name} ({curve.kind}), fitted model: computation {compute} on one device, transfer {transfer}, "
        f"latency {latency} per hop of the {model.algorithm}; communication overlaps with "
        f"{bound}{100 * model.overlap:.0f} % of the computation; {error}. Fitted to the results on "
        f"{', '.join(map(str, model.fitted))} devices; {beyond}."
    )


def scaling_section(content: Content) -> Section:
    """Scaling over devices: figures, table and predictions per system; words where nothing ran on several sizes."""
    from dlbench.report.figures.plots_scaling import scaling_plots

    blocks: list[Block] = []
    cautions = []
    several = sum(bool(len(content.cases_of_system(s))) for s in content.system_names)
    for number, (system, name) in enumerate(content.system_names.items(), 1):
        found = find_scaling_curves(content.cases_of_system(system))
        if not found:
            continue
        ending = f"-{number}" if several > 1 else ""
        for plot in scaling_plots(found, ending):
            attempts = dict.fromkeys(a for curve in found for point in curve.points for a in point.attempts)
            plot = dataclasses.replace(plot, records=tuple(attempts))
            blocks.append(Block(plot=plot, heading=name if several > 1 else ""))
        blocks.append(Block(table=scaling_table(found), filters=("scaling", "curve", "origin")))
        blocks += [Block(words=scaling_model_sentence(curve)) for curve in found]
        if caution := superlinear_sentence(found):
            cautions.append(f"{name}: {caution}" if several > 1 else caution)
    if not blocks:
        model = "" if content.shown.empty else representative_network(content.shown).partition(" [")[0]
        chosen = f" -P model={shlex.quote(model)}" if model else ""
        words = f"No case was measured on different numbers of devices; run `dlbench run scaling_weak{chosen}`."
        blocks = [Block(words=words)]
    return Section("scaling", "Scaling", blocks, " ".join(cautions))
