"""The chapter of the input pipeline: the loader alone, the device alone, both together, and what limits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import varying_axes
from dlbench.report.chapters.tables import case_name_cells, case_name_columns, metric_column, sort_attempts
from dlbench.report.document import Block, Section
from dlbench.report.figures.plots_pipeline import pipeline_plot
from dlbench.table import Cell, Column, Table

#: A step that takes at most so many times the step of the device alone is limited by the device.
DEVICE_BOUND = 1.05
_METRICS = ("loader_throughput", "device_throughput", "throughput", "data_wait", "accelerator_utilisation")
_INTRODUCTION = (
    "Each case loads, decodes and augments image files while the device computes. The loader alone and the device "
    "alone were measured in the same process, right after the timed steps. Loader and device together "
    "reach at most the lower of their throughputs. MLPerf Storage requires an accelerator utilisation (AU) of 90 % "
    "with ResNet-50."
)


def pipeline_section(content: Content) -> Section:
    """What loading costs; without blocks where no case loads files."""
    cases = content.shown[content.shown[["loader_throughput", "loader_workers"]].notna().all(axis=1)]
    if cases.empty:
        return Section("pipeline", "Input pipeline")
    table = pipeline_table(cases, content.system_names)
    blocks = [Block(words=_INTRODUCTION), Block(plot=pipeline_plot(cases)), Block(table=table)]
    return Section("pipeline", "Input pipeline", blocks)


def pipeline_table(cases: pd.DataFrame, names: Mapping[str, str]) -> Table:
    """One row per case that loads files."""
    cases = sort_attempts(cases)
    varying = [axis for axis in varying_axes(cases) if axis != "loader_workers"]
    axes = ["model", "mode", "precision", "batch_size", "loader_workers", *varying]
    columns = case_name_columns(axes, names)
    columns += [metric_column(name, cases[name], 3) for name in _METRICS]
    columns += [Column("limit", "Limited by"), Column("workers_needed", "Loader workers needed", "right")]
    rows: list[list[Cell]] = []
    for case in cases.to_dict("records"):
        cells = case_name_cells(case, axes, names)
        cells += [float(case[name]) for name in _METRICS]
        batch = case["batch_size"] * case["nodes"] * case["devices_per_node"]
        found = find_input_bottleneck(
            *(case["step_time"], batch / case["device_throughput"], batch / case["loader_throughput"]),
            *(case["loader_read_time"], case["loader_decode_time"], int(case["loader_workers"])),
        )
        rows.append([*cells, found.limit, found.workers])
    notes = [
        f"A case is limited by the device if the step takes at most {DEVICE_BOUND:g} times as long as on the device "
        f"alone. Otherwise it is limited by the slower of the loader's two tasks: decoding, or reading from storage.",
        "Loader workers needed: how many keep the device busy, if each is as fast as the measured ones and has its own "
        "core.",
    ]
    return Table(columns, rows, notes=notes)


@dataclass(frozen=True)
class InputBottleneck:
    """What limits: "device", "decode", "storage" or "loader"; and the loader processes that would feed the device."""

    limit: str
    workers: int


def find_input_bottleneck(
    step_s: float, device_step_s: float, loader_batch_s: float, read_s: float, decode_s: float, workers: int
) -> InputBottleneck:
    """The verdict on one case.

    Args:
        step_s: time of a step with its loading [s].
        device_step_s: of a step whose batch is at hand [s].
        loader_batch_s: of a batch of the loader alone, with `workers` processes [s].
        read_s: reading the files of a batch, summed over processes [s].
        decode_s: decoding and augmenting them, likewise [s]. Both are NaN where the loader does not time them apart.
        workers: processes of the loader; 0: the process that computes loads as well.

    Returns:
        The number of processes supposes that each does as much as one of those that were measured: cores and storage
        are not asked.
    """
    needed = max(1, math.ceil(max(1, workers) * loader_batch_s / device_step_s))
    if step_s <= DEVICE_BOUND * device_step_s:
        return InputBottleneck("device", needed)
    if math.isnan(read_s) or math.isnan(decode_s):
        return InputBottleneck("loader", needed)
    return InputBottleneck("storage" if read_s > decode_s else "decode", needed)
