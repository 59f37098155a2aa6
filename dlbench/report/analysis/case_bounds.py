"""What the cases of a report miss: their metrics against the ceilings and profiles that lie beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dlbench.report.analysis.bounds import MEASURED, Roof, find_roof, layer_bounds, time_bound_of_network
from dlbench.results.bounds_records import DeviceIdentity, ProfileRun
from dlbench.results.bounds_schema import layers_frame
from dlbench.results.bounds_store import StoredBounds

#: What decides of a case's layers and their work.
_WORK_COLUMNS = ("model", "network_key", "mode", "batch_size", "optimizer")
_DEVICE_COLUMNS = ("system_key", "device", "device_name", "threads", "precision")


def with_bounds(attempts: pd.DataFrame, rows: pd.DataFrame, stored: StoredBounds) -> pd.DataFrame:
    """`attempts` with the metrics that need ceilings or profiles; NaN where these say nothing of a case.

    Args:
        attempts: as `derive.tidy` gives them.
        rows: as stored, for the number of threads.
        stored: of any systems; work is that of the network on whatever device, rates are of the same system.
    """
    peaks, bounds = np.full(len(attempts), np.nan), np.full(len(attempts), np.nan)
    works = {_work_key(run): run for run in stored.profiles}
    known = not stored.ceilings.empty or stored.profiles
    cases = _with_threads(attempts, rows) if known else attempts
    cases = cases.assign(network_key=cases["network_key"].astype(object).fillna(""))
    for device, places in _group_by_values(cases, _DEVICE_COLUMNS).items() if known else ():
        roof = _roof_of_device(stored.ceilings, dict(zip(_DEVICE_COLUMNS, device, strict=True)))
        if roof.flop_source == MEASURED:
            peaks[places] = roof.flop_per_s
        for (*work, compiled), same in _group_by_values(cases.iloc[places], (*_WORK_COLUMNS, "compile")).items():
            # What a compiler fuses moves fewer bytes than are counted.
            if tuple(work) in works and compiled == "off":
                bounds[np.asarray(places)[same]] = _network_bound_s(works[tuple(work)], roof)
    devices = attempts["nodes"] * attempts["devices_per_node"]
    return attempts.assign(
        measured_peak=peaks,
        share_of_measured_peak=attempts["flop_rate"] / (peaks * devices),
        layer_bound=bounds,
        distance_to_layer_bound=attempts["step_time"] / bounds,
    )


def _work_key(run: ProfileRun) -> tuple[Any, ...]:
    values = run.case | {"network_key": run.network_key}
    return tuple(values[name] for name in _WORK_COLUMNS)


def _with_threads(attempts: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    first = rows[["attempt_id", "system_torch_threads"]].drop_duplicates("attempt_id").set_index("attempt_id")
    return attempts.assign(threads=attempts["attempt_id"].map(first["system_torch_threads"]))


def _group_by_values(cases: pd.DataFrame, names: Sequence[str]) -> dict[tuple[Any, ...], list[int]]:
    """The places of the cases that agree in these columns, by their values; what is missing is None."""
    columns = [cases[name].astype(object).where(cases[name].notna(), None) for name in names]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, key in enumerate(zip(*columns, strict=True)):
        groups.setdefault(key, []).append(place)
    return groups


def _roof_of_device(ceilings: pd.DataFrame, device: dict[str, Any]) -> Roof:
    where = DeviceIdentity(
        system_key=device["system_key"] or "",
        device_kind=device["device"] or "",
        device_name=device["device_name"],
        torch_threads=None if device["threads"] is None else int(device["threads"]),
    )
    return find_roof(ceilings, where, device["precision"])


def _network_bound_s(run: ProfileRun, roof: Roof) -> float:
    found = time_bound_of_network(layer_bounds(layers_frame(run.layers), roof), roof, (), run.optimizer_bytes).bound_s
    return np.nan if found is None else found
