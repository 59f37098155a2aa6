"""What the cases of a report miss: their metrics against the ceilings and profiles that lie beside them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dlbench.report.analysis.bounds import MEASURED, find_device_roofline, layer_bounds, time_bound_of_network
from dlbench.results.bounds_records import DeviceIdentity
from dlbench.results.bounds_schema import layers_frame
from dlbench.results.bounds_store import StoredBounds

#: What decides of a case's layers and their work.
_WORK_COLUMNS = ("model", "network_key", "mode", "batch_size", "optimizer")


def add_bound_metrics(attempts: pd.DataFrame, rows: pd.DataFrame, stored: StoredBounds) -> pd.DataFrame:
    """`attempts` with the metrics that need ceilings or profiles; NaN where these say nothing of a case.

    Args:
        attempts: one row per attempt with its metrics; `rows` as stored, for the number of threads.
        stored: of any systems; work is that of the network on whatever device, rates are of the same system.
    """
    peaks, bounds = np.full(len(attempts), np.nan), np.full(len(attempts), np.nan)
    works = {
        tuple({**run.case, "network_key": run.network_key}[name] for name in _WORK_COLUMNS): run
        for run in stored.profiles
    }
    cases = attempts.assign(network_key=attempts["network_key"].astype(object).fillna(""))
    groups: dict[tuple[Any, ...], list[int]] = {}
    if not stored.ceilings.empty or stored.profiles:
        first = rows[["attempt_id", "system_torch_threads"]].drop_duplicates("attempt_id").set_index("attempt_id")
        cases = cases.assign(threads=cases["attempt_id"].map(first["system_torch_threads"]))
        groups = _group_cases_by_columns(cases, ("system_key", "device", "device_name", "threads", "precision"))
    for (system_key, kind, name, threads, precision), places in groups.items():
        threads = None if threads is None else int(threads)
        where = DeviceIdentity(system_key or "", kind or "", device_name=name, torch_threads=threads)
        roof = find_device_roofline(stored.ceilings, where, precision)
        if roof.flop_source == MEASURED:
            peaks[places] = roof.flop_per_s
        for (*work, compiled), same in _group_cases_by_columns(cases.iloc[places], (*_WORK_COLUMNS, "compile")).items():
            # What a compiler fuses moves fewer bytes than are counted.
            if tuple(work) in works and compiled == "off":
                run = works[tuple(work)]
                layers = layer_bounds(layers_frame(run.layers), roof)
                bound_s = time_bound_of_network(layers, roof, (), run.optimizer_bytes).bound_s
                bounds[np.asarray(places)[same]] = np.nan if bound_s is None else bound_s
    devices = attempts["nodes"] * attempts["devices_per_node"]
    return attempts.assign(
        measured_peak=peaks,
        share_of_measured_peak=attempts["flop_rate"] / (peaks * devices),
        layer_bound=bounds,
        distance_to_layer_bound=attempts["step_time"] / bounds,
    )


def _group_cases_by_columns(cases: pd.DataFrame, names: Sequence[str]) -> dict[tuple[Any, ...], list[int]]:
    """The places of the cases that agree in these columns, by their values; what is missing is None."""
    columns = [cases[name].astype(object).where(cases[name].notna(), None) for name in names]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, key in enumerate(zip(*columns, strict=True)):
        groups.setdefault(key, []).append(place)
    return groups
