"""Published throughputs beside ours, each with everything in which the two measurements differ."""

import re
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from dlbench.facts.peaks import PublishedThroughput, find_device_peaks, published_throughputs
from dlbench.report.analysis.labels import network_title
from dlbench.table import Cell, Column, Table, default_cell_text, three_digits_text

#: How the sources name a pass over a batch without the optimizer's update: less work than a training step.
_MODE_OF_PASSES = {"forward+backward": "training"}
_FORMAT_OF_LAYOUT = {"NHWC": "channels_last", "NCHW": "channels_first"}


def published_throughputs_table(shown: pd.DataFrame, names: Mapping[str, str]) -> tuple[Table, int]:
    """One row per published result of a network and device measured here; and how many there are of other devices.

    A row holds the result, our nearest case, the ratio, and what differs. Nearest is, in this order, as many devices,
    the same precision, the nearest batch.
    """
    several = len(names) > 1
    columns = [
        Column("model", "Network"),
        Column("device", "Published on"),
        Column("published", "Per device [img/s]", "right", three_digits_text),
        Column("ours", "Measured here [img/s]", "right", three_digits_text),
        *([Column("system", "Measured on")] if several else []),
        Column("ratio", "Measured over published [×]", "right", three_digits_text),
        Column("differs", "What differs", "left"),
        Column("source", "Source"),
    ]
    rows: list[list[Cell]] = []
    num_others = 0
    for anchor in published_throughputs():
        case = _find_nearest_case(anchor, shown)
        if case is None:
            continue
        if _device_name(case) != anchor.device:
            num_others += 1
            continue
        ours = case["throughput"] / (case["nodes"] * case["devices_per_node"])
        published = anchor.img_per_s_total / anchor.devices
        device = anchor.device if anchor.devices == 1 else f"{anchor.devices} × {anchor.device}"
        title = f"{network_title(_published_network_name(anchor))}, {anchor.mode}"
        row: list[Cell] = [title, device, published, ours]
        row += [names.get(case["system_id"], "unknown")] if several else []
        rows.append([*row, ours / published, "; ".join(_differences_from_published(anchor, case)), anchor.source])
    return Table(columns, rows), num_others


def _find_nearest_case(anchor: PublishedThroughput, shown: pd.DataFrame) -> Mapping[Hashable, Any] | None:
    mode = _MODE_OF_PASSES.get(anchor.mode, anchor.mode)
    same = shown[
        (shown["model"] == _published_network_name(anchor)) & (shown["mode"] == mode) & shown["throughput"].gt(0)
    ]
    cases = same.to_dict("records")

    def distance_to_published(case: Mapping[Hashable, Any]) -> tuple[Any, ...]:
        devices = case["nodes"] * case["devices_per_node"]
        batch = abs(case["batch_size"] - anchor.batch_per_device) if anchor.batch_per_device else 0
        others = (
            _device_name(case) != anchor.device,
            devices != anchor.devices,
            not _has_published_precision(anchor, case),
        )
        return *others, batch, -case["throughput"]

    return min(cases, key=distance_to_published, default=None)


def _published_network_name(anchor: PublishedThroughput) -> str:
    return anchor.model.partition(" (")[0]


def _published_variant_in_brackets(anchor: PublishedThroughput) -> str:
    return anchor.model.partition(" (")[2].removesuffix(")")


def _device_name(case: Mapping[Hashable, Any]) -> str:
    """The device as the anchors call it; the processor of a case on a CPU has no name there."""
    name = case["device_name"] if isinstance(case["device_name"], str) else None
    peaks = find_device_peaks(name)
    return peaks.device if peaks else name or "a CPU"


def _differences_from_published(anchor: PublishedThroughput, case: Mapping[Hashable, Any]) -> list[str]:
    """Sentences without verbs: published first, ours second."""
    variant = _published_variant_in_brackets(anchor)
    found = [f"network variant: {variant} published; for ours see the chapter Published CNN table"] if variant else []
    devices = case["nodes"] * case["devices_per_node"]
    if devices != anchor.devices:
        found.append(f"devices: {anchor.devices} published, {devices} here")
    if anchor.mode in _MODE_OF_PASSES:
        found.append(f"timed part of a step: {anchor.mode} in the publication; here also the optimizer's update")
    if not anchor.framework.startswith("PyTorch"):
        found.append(f"framework: {anchor.framework} published, PyTorch here")
    elif re.search(r"\d", anchor.framework):
        found.append(f"version: {anchor.framework}")
    if not _has_published_precision(anchor, case):
        found.append(f"precision: {_published_precision(anchor)} published, {case['precision']} here")
    if anchor.batch_per_device is None:
        found.append(f"batch: not published, {case['batch_size']} here")
    elif anchor.batch_per_device != case["batch_size"]:
        found.append(f"batch: {anchor.batch_per_device} published, {case['batch_size']} here")
    published = f"{anchor.precision} {anchor.framework}"
    layout = next((ours for word, ours in _FORMAT_OF_LAYOUT.items() if word in published), None)
    if layout and layout != case["memory_format"]:
        found.append(f"layout: {layout} published, {case['memory_format']} here")
    compiled, ours_compiled = "compiled" in anchor.precision, case["compile"] != "off"
    if compiled != ours_compiled:
        found.append(f"compiled: {default_cell_text(compiled)} published, {default_cell_text(ours_compiled)} here")
    if not anchor.data.startswith("synthetic"):
        found.append(f"data: {anchor.data} published, {case['data']} here")
    return found


def _published_precision(anchor: PublishedThroughput) -> str:
    """The published precision without layout and compiler, which stand for themselves."""
    return re.sub(r" (NHWC|NCHW|compiled)", "", anchor.precision)


def _has_published_precision(anchor: PublishedThroughput, case: Mapping[Hashable, Any]) -> bool:
    # Ours with autocast runs what is left of fp32 strictly; the published "+tf32" says that theirs does not.
    return _published_precision(anchor) == str(case["precision"])
