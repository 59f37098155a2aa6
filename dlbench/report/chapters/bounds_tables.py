"""The tables of bounds: the ceilings of a device beside its datasheet, and the layers of a profile by time lost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from dlbench import units
from dlbench.facts.peaks import find_device_peaks
from dlbench.report.analysis import bounds
from dlbench.results.bounds_records import BYTE_KINDS, FLOP_KINDS, SUSTAINED_SUFFIX, ProfileRun, is_flop_rate
from dlbench.results.records import BUSY_SHARE
from dlbench.table import Cell, Column, Table, bytes_text, percent_text, seconds_text

#: Below this share of the median step the medians of its layers say that it was interrupted.
INTERRUPTED_SHARE = 0.9

#: A rate may be this share above the datasheet, whose figures are rounded.
DATASHEET_TOLERANCE = 0.01


def profile_table(run: ProfileRun, roof: bounds.DeviceRoofline, limit: int | None = 20) -> Table:
    """The layers by time lost to the bound, and below what the numbers mean; all of them where `limit` is None."""
    frame = bounds.bounds_of_profiled_layers(run, roof)
    case, network = run.case, bounds.time_bound_of_network(frame, roof, run.step_s, run.optimizer_bytes)
    columns = [
        Column("layer", "Layer", "left"),
        Column("kind", "Kind", "left"),
        Column("forward_s", "Forward", "right", seconds_text),
        Column("backward_s", "Backward", "right", seconds_text),
        Column("bound_s", "Bound", "right", seconds_text),
        Column("limited_by", "Limited by", "left"),
        Column("distance", "Time over its bound", "right", _format_factor),
        Column("lost_s", "Time above bound", "right", seconds_text),
        Column("share", "Of step", "right", percent_text),
        Column("note", "", "left"),
    ]
    shown = frame if limit is None else frame.head(limit)
    rows = [[none_if_missing(row[c.key]) for c in columns] for row in shown.to_dict("records")]
    what = f"{case['model']} {case['mode']} {case['precision']} batch {case['batch_size']}"
    title = f"{what}: {units.count_text(len(frame), 'layer')}"
    return Table(columns, rows, title, _profile_notes(run, roof, frame, network, len(shown)))


def _profile_notes(
    run: ProfileRun, roof: bounds.DeviceRoofline, frame: pd.DataFrame, network: bounds.NetworkBound, shown: int
) -> list[str]:
    notes = []
    if hidden := len(frame) - shown:
        lost_s = _sum_or_none(frame["lost_s"].iloc[shown:])
        notes.append(
            f"Not shown: {units.count_text(hidden, 'layer')}, in total {seconds_text(lost_s)} above the bound "
            "(`dlbench profile --all` shows all layers)."
        )
    notes.append(roof.describe())
    step = f"Step {seconds_text(network.step_s)}"
    if network.bound_s is not None:
        step += (
            f", bound {seconds_text(network.bound_s)} (FLOP {seconds_text(network.flop_s)} + memory "
            f"{seconds_text(network.memory_s)} + optimizer {seconds_text(network.optimizer_s)}): "
            f"{_format_factor(network.ratio_to_bound)} the bound"
        )
    notes.append(f"{step}.")
    noted = [f"{layer.layer} ({layer.note})" for layer in run.layers if layer.note]
    notes += [f"FLOP and bounds are not exact for {units.list_text(noted, 3)}."] if noted else []
    own = {name: bounds.median_usable_time(samples) for name, samples in run.parts_s.items()}
    parts = ", ".join(f"{_PART_TITLES.get(name, name)} {seconds_text(s)}" for name, s in own.items())
    share = units.percent_text(bounds.share_of_time_in_layers(run))
    notes.append(f"Layers take {share} of the profiled steps' time; its other parts: {parts or 'none'}.")
    notes += busy_host_note(run.busy_share, "these times may be far too long; profile again on an idle machine")
    notes += _time_sum_mismatch_notes(run, frame, [s for s in own.values() if s is not None])
    longer = bounds.profiling_overhead(run)
    hooked = seconds_text(bounds.median_usable_time(run.hooked_step_s))
    notes.append(
        f"With the profiler's hooks a step takes {hooked}, {units.percent_text(abs(longer))} "
        f"{'more' if longer >= 0 else 'less'} than without. The times of layers include the hooks, that of the step "
        f"above does not. Times are medians over {len(run.hooked_step_s)} steps."
        if longer is not None
        else "The cost of the profiler's hooks is unknown, because no step has a usable time."
    )
    if (frame["note"] == "from cache").any():
        notes.append(
            "from cache: the layer ran faster than memory can deliver its operands, so the operands were in a cache."
        )
    return notes


#: Parts of a step that are not layers, where the stored name alone does not tell.
_PART_TITLES = {"measuring": "the profiler itself", "between": "gaps between layers"}


def busy_host_note(share: float | None, what: str) -> list[str]:
    """A sentence where other work took more of the cores than goes without a word."""
    if share is None or not share > BUSY_SHARE:
        return []
    return [
        f"Busy host: other processes used {units.percent_text(share)} of the cores during this measurement; {what}."
    ]


def _time_sum_mismatch_notes(run: ProfileRun, frame: pd.DataFrame, parts_s: list[float]) -> list[str]:
    """Says so where the medians of layers and parts are far from adding up to the median step."""
    step_s, layers_s = bounds.median_usable_time(run.hooked_step_s), _sum_or_none(frame["time_s"])
    if not step_s or layers_s is None:
        return []
    share = (layers_s + sum(parts_s)) / step_s
    if share > INTERRUPTED_SHARE:
        return []
    return [
        f"The median times above add up to only {units.percent_text(share)} of the median step, because steps were "
        f"interrupted at different layers. The shares of the layers are therefore too low; profile on an idle machine."
    ]


def ceilings_table(rows: pd.DataFrame, every_shape: bool = False) -> Table:
    """The ceilings beside the datasheet: of each kind and precision the best shape, or all shapes.

    Args:
        rows: as `bounds_schema.read_ceilings` gives them, of one system.
    """
    columns = [
        Column("kind", "Ceiling", "left"),
        Column("precision", "Precision", "left"),
        Column("best", "Best", "right", _format_rate),
        Column("median", "Median", "right", _format_rate),
        Column("spread", "IQR of times", "right", percent_text),
        Column("samples", "Samples", "right"),
        Column("shape", "Shape", "left"),
        Column("datasheet", "Datasheet", "right", _format_rate),
        Column("of_datasheet", "Reached", "right", percent_text),
        *([Column("error", "", "left")] if every_shape else []),
    ]
    chosen = _best_row_per_ceiling(rows, every_shape)
    cells = [_ceiling_cells(row, every_shape) for row in chosen]
    shares = [row["busy_share"] for row in chosen if _is_number(row["busy_share"])]
    failed = int(rows["error"].notna().sum())
    notes = [
        "Best: the rate of the fastest sample; samples with impossible times are ignored. Bounds use this rate. IQR of "
        "times: range of the middle half of the measured times, divided by their median.",
        "sustained: the median rate of the fastest shape, run for 2 s without a pause; the device may then reach its "
        "power limit.",
        "copy and triad count bytes read and written, but not reads caused by write-allocate. Their arrays are "
        "larger than the caches.",
    ]
    beyond = [c for c in cells if isinstance(c[8], float) and c[8] > 1 + DATASHEET_TOLERANCE]
    if above := [f"{c[0]} {c[1] or ''}".strip() for c in beyond]:
        notes.append(
            f"Faster than the datasheet allows: {', '.join(above)}. The device or its clock differs from the "
            f"datasheet's, or the datasheet is wrong."
        )
    notes += busy_host_note(
        max(shares, default=None), "the rates may be far too low. Measure again: of several results, the best is used"
    )
    if failed and not every_shape:
        notes.append(
            f"{failed} of {len(rows)} operand shapes were not measured; `dlbench ceilings --all` gives the reasons."
        )
    return Table(columns, cells, _ceilings_title("Ceilings of", rows), notes)


def all_reduce_table(rows: pd.DataFrame) -> Table:
    """All-reduces by ranks and message size: time, algorithm and bus bandwidth.

    Args:
        rows: as `bounds_store.StoredBounds` has them, of one system.
    """
    columns = [
        Column("ranks", "Ranks", "right"),
        Column("nodes", "Nodes", "right"),
        Column("backend", "Through", "left"),
        Column("size_bytes", "Message", "right", bytes_text),
        Column("median_s", "Time", "right", seconds_text),
        Column("low_s", "Fastest", "right", seconds_text),
        Column("high_s", "Slowest", "right", seconds_text),
        Column("algorithm_bytes_per_s", "Algorithm [B/s]", "right", _format_rate),
        Column("bus_bytes_per_s", "Bus [B/s]", "right", _format_rate),
        Column("repetitions", "Repetitions", "right"),
    ]
    cells = []
    for row in rows.sort_values(["nodes", "ranks", "backend", "size_bytes"], kind="stable").to_dict("records"):
        times = [t for t in row["time_s"] if t == t] if row["time_s"] is not None else []
        way = " over ".join(str(row[name]) for name in ("backend", "transport") if row[name])
        row |= {"backend": way, "repetitions": len(times)}
        row |= {"low_s": min(times, default=None), "high_s": max(times, default=None)}
        cells.append([none_if_missing(row[c.key]) for c in columns])
    notes = [
        "An all-reduce here adds fp32 values. Time: median over repetitions, each timed by its slowest rank. Bus "
        "bandwidth = 2(n-1)/n x algorithm bandwidth, for n ranks; compare it with the bandwidth of a link."
    ]
    return Table(columns, cells, _ceilings_title("All-reduce over ranks of", rows), notes)


def _format_rate(cell: Any) -> str:
    return units.rate_text(float(cell), "") if _is_number(cell) else units.MISSING


def _best_row_per_ceiling(rows: pd.DataFrame, every_shape: bool) -> list[dict[Any, Any]]:
    records = rows.to_dict("records")
    if every_shape:
        return records
    best: dict[tuple[str, str], dict[Any, Any]] = {}
    for row in records:
        key = (row["kind"], str(row["precision"]))
        rate = _rate_of_ceiling_row(row)
        if key not in best or (rate or 0.0) > (_rate_of_ceiling_row(best[key]) or 0.0):
            best[key] = row
    kinds = enumerate((*FLOP_KINDS, *BYTE_KINDS))
    order = {f"{kind}{after}": i for i, kind in kinds for after in ("", SUSTAINED_SUFFIX)}
    precisions = list(bounds.ELEMENT_BYTES)

    def precision_and_kind_order(row: dict[Any, Any]) -> tuple[int, int]:
        known = row["precision"] in precisions
        return precisions.index(row["precision"]) if known else len(precisions), order[row["kind"]]

    return sorted(best.values(), key=precision_and_kind_order)


def _rate_of_ceiling_row(row: dict[Any, Any]) -> float | None:
    # What lasts is the median: the best sample of a sustained ceiling is a burst again.
    which = "median" if row["kind"].endswith(SUSTAINED_SUFFIX) else "best"
    value = row[f"{which}_flop_per_s"] if is_flop_rate(row["kind"]) else row[f"{which}_bytes_per_s"]
    return float(value) if _is_number(value) else None


def _ceiling_cells(row: dict[Any, Any], with_error: bool) -> list[Cell]:
    flop = is_flop_rate(row["kind"])
    best = _rate_of_ceiling_row(row)
    median = row["median_flop_per_s"] if flop else row["median_bytes_per_s"]
    peaks = find_device_peaks(row["device_name"]) if isinstance(row["device_name"], str) else None
    sheet = (peaks.flop_per_s(row["precision"]) if flop else bounds.datasheet_bytes_per_s(peaks)) if peaks else None
    samples = 0 if row["time_s"] is None else len(row["time_s"])
    share = best / sheet if best and sheet else None
    kind = f"{row['kind']} [{'FLOP/s' if flop else 'B/s'}]"
    cells = [kind, row["precision"], best, median, row["spread"], samples, row["shape"], sheet, share]
    return [none_if_missing(c) for c in ([*cells, row["error"]] if with_error else cells)]


def _ceilings_title(words: str, rows: pd.DataFrame) -> str:
    if rows.empty:
        return "Nothing was measured"
    first = rows.iloc[0]
    name = next(n for n in (first["device_name"], first["cpu_model"], first["device_kind"]) if isinstance(n, str))
    threads = f", {units.count_text(first['torch_threads'], 'thread')}" if first["device_kind"] == "cpu" else ""
    return f"{words} {name}{threads} (PyTorch {first['torch_version']})"


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool) and math.isfinite(cell)


def none_if_missing(cell: Any) -> Any:
    """A cell of a data frame without pandas' own missing values."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    return cell.item() if isinstance(cell, np.generic) else cell


def _format_factor(cell: Any) -> str:
    return f"{units.number_text(float(cell))} ×" if _is_number(cell) else units.MISSING


def _sum_or_none(values: pd.Series[float]) -> float | None:
    return float(values.sum()) if values.notna().any() else None
