"""How fast a layer, and a network, could be at best on a device, and by how much the measured time misses it.

The time bound of a layer is max(FLOP / peak, bytes / bandwidth), forward and backward each on its own. Peak and
bandwidth are the highest that `dlbench ceilings` measured on the same system; where it measured none, the datasheet's;
where there is none, there is no bound. The bound of a network is the sum of its layers' bounds: layers run one after
the other, so that one cannot compute while another moves its bytes.

What is counted, and what that means:

- Peak is the best over matrix products and convolutions, in counted FLOP: an algorithm with fewer multiplications
  (Winograd) raises it, and so stays below its own bound.
- Bytes count every operand and result of each eager operation once, normalisation, activation, pooling and additions
  included: these have no counted FLOP, their bound is bytes alone. Mixed precision counts 2 bytes per element.
- Operands that stay in a cache from one layer to the next move less: such a layer can be faster than its bound, which
  holds for memory, and is marked.
- The optimizer's bound is its parameters, gradients and state, read and written once; it belongs to the step, not to a
  layer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dlbench import units
from dlbench.facts.peaks import DevicePeaks, find_device_peaks
from dlbench.results.bounds_records import BYTE_KINDS, FLOP_KINDS, DeviceIdentity, ProfileRun
from dlbench.results.bounds_schema import layers_frame

#: Bytes of one element in memory, by precision: autocast may keep all of them in half, so that is the least.
ELEMENT_BYTES = {"fp32": 4, "tf32": 4, "amp_bf16": 2, "amp_fp16": 2, "bf16": 2, "fp16": 2, "fp8": 1}
#: Ceilings of these are measured under the other name: products of the same type.
_SAME_ARITHMETIC = {"bf16": "amp_bf16", "fp16": "amp_fp16"}
FLOP, MEMORY = "FLOP", "memory"
MEASURED, DATASHEET = "measured", "datasheet"
DIRECTIONS = ("forward", "backward")
#: Faster than the bound by more than this says that the operands came from a cache.
_CACHE_REUSE_MARGIN = 0.98


@dataclass(frozen=True)
class DeviceRoofline:
    """What one device can reach at one precision, and who says so; None where nobody does."""

    precision: str
    flop_per_s: float | None = None
    bytes_per_s: float | None = None
    flop_source: str | None = None  # MEASURED | DATASHEET
    bytes_source: str | None = None

    def describe(self) -> str:
        """The roof in one line, with its sources."""
        if self.flop_per_s is None and self.bytes_per_s is None:
            return "No peak of this device is known, so no bound is shown; run `dlbench ceilings` to measure the peak."
        rate = f"{units.quantity_text(self.flop_per_s, 'FLOP/s')} ({self.flop_source or 'unknown'})"
        speed = f"{units.quantity_text(self.bytes_per_s, 'B/s')} ({self.bytes_source or 'unknown'})"
        return f"The bounds assume a peak of {rate} in {self.precision} and a memory bandwidth of {speed}."


def find_device_roofline(ceilings: pd.DataFrame | None, where: DeviceIdentity, precision: str) -> DeviceRoofline:
    """The roof of a device at a case's precision: measured on the same system, else from its datasheet, else unknown.

    Args:
        ceilings: rows as `bounds_schema.read_ceilings` gives them, of any systems; None for none.
        where: the device. On a CPU the number of threads must be the same too.
    """
    alike = _ceilings_of_system(ceilings, where)
    peaks = find_device_peaks(where.device_name) if where.device_kind != "cpu" else None
    products = alike["precision"] == _SAME_ARITHMETIC.get(precision, precision)
    flop = _highest_positive_rate(alike[alike["kind"].isin(FLOP_KINDS) & products], "best_flop_per_s")
    moved = _highest_positive_rate(alike[alike["kind"].isin(BYTE_KINDS)], "best_bytes_per_s")
    flop_source, bytes_source = MEASURED, MEASURED
    if flop is None:
        flop, flop_source = (peaks.flop_per_s(precision) if peaks else None), DATASHEET
    if moved is None:
        moved, bytes_source = datasheet_bytes_per_s(peaks), DATASHEET
    return DeviceRoofline(precision, flop, moved, flop_source if flop else None, bytes_source if moved else None)


def datasheet_bytes_per_s(peaks: DevicePeaks | None) -> float | None:
    """Memory bandwidth of the datasheet [B/s]; None where there is none."""
    return peaks.memory_tb_per_s * 1e12 if peaks and peaks.memory_tb_per_s else None


def _ceilings_of_system(ceilings: pd.DataFrame | None, where: DeviceIdentity) -> pd.DataFrame:
    columns = ["kind", "precision", "best_flop_per_s", "best_bytes_per_s"]
    if ceilings is None or ceilings.empty:
        return pd.DataFrame(columns=columns)
    same = (ceilings["system_key"] == where.system_key) & (ceilings["device_kind"] == where.device_kind)
    if where.device_kind == "cpu" and where.torch_threads is not None:
        same &= ceilings["torch_threads"] == where.torch_threads
    elif where.device_name is not None:
        same &= ceilings["device_name"] == where.device_name
    return ceilings[same]


def _highest_positive_rate(rows: pd.DataFrame, column: str) -> float | None:
    values = pd.to_numeric(rows[column], errors="coerce").to_numpy(dtype=float)
    values = values[np.isfinite(values) & (values > 0)]
    return float(values.max()) if values.size else None


def least_time_and_bottleneck(flop: float, moved_bytes: float, roof: DeviceRoofline) -> tuple[float | None, str | None]:
    """The least time [s] for so much work, and what limits it: `FLOP` or `MEMORY`. No work takes no time.

    None where a rate that the work needs is unknown, or the work is no number.
    """
    if not (math.isfinite(flop) and math.isfinite(moved_bytes)) or flop < 0 or moved_bytes < 0:
        return None, None
    times = []
    for work, rate, limit in ((flop, roof.flop_per_s, FLOP), (moved_bytes, roof.bytes_per_s, MEMORY)):
        if work > 0 and rate is None:
            return None, None
        times.append((work / rate if rate else 0.0, limit))
    bound_s, limit = max(times, key=lambda t: t[0])
    return bound_s, limit if bound_s > 0 else None


def layer_bounds(layers: pd.DataFrame, roof: DeviceRoofline) -> pd.DataFrame:
    """Each layer with its median times, its bounds, and its distance to them, slowest against its bound first.

    Args:
        layers: columns of `LayerTime`; samples per step, work of one step.

    Returns:
        `layer`, `kind`; for both ways `<way>_s`, `_flop`, `_bytes`, `_bound_s`, `_limit`; for their sum `time_s`,
        `bound_s`, `limited_by`, `lost_s` (time above the bound), `distance` (time over bound) and `note`.
    """
    frame = pd.DataFrame(
        [_build_layer_bounds_row(layer, roof) for layer in layers.to_dict("records")], columns=_BOUND_COLUMNS
    )
    for name in _NUMBER_COLUMNS:
        frame[name] = pd.to_numeric(frame[name]).astype(float)
    # Without a roof only what has no work at all has a bound.
    order = ["time_s"] if roof.flop_per_s is None and roof.bytes_per_s is None else ["lost_s", "time_s"]
    return frame.sort_values(order, ascending=False, kind="stable", ignore_index=True)


_NUMBER_COLUMNS = [f"{way}_{name}" for way in DIRECTIONS for name in ("s", "flop", "bytes", "bound_s")]
_NUMBER_COLUMNS += ["time_s", "bound_s", "lost_s", "distance"]
_BOUND_COLUMNS = ["layer", "kind", *_NUMBER_COLUMNS, "forward_limit", "backward_limit", "limited_by", "note"]


def _build_layer_bounds_row(layer: dict[Any, Any], roof: DeviceRoofline) -> dict[str, Any]:
    # What pandas has for a missing text is a number.
    counts = layer["note"] if isinstance(layer.get("note"), str) else ""
    row: dict[str, Any] = {"layer": layer["layer"], "kind": layer["kind"], "note": counts}
    limits: dict[str, float] = {}
    for way in DIRECTIONS:
        moved = layer[f"{way}_elements"] * ELEMENT_BYTES[roof.precision] + layer[f"{way}_fixed_bytes"]
        bound_s, limit = least_time_and_bottleneck(layer[f"{way}_flop"], moved, roof)
        row |= {f"{way}_s": median_usable_time(layer[f"{way}_s"]), f"{way}_flop": layer[f"{way}_flop"]}
        row |= {f"{way}_bytes": moved, f"{way}_bound_s": bound_s, f"{way}_limit": limit}
        if limit and bound_s:
            limits[limit] = limits.get(limit, 0.0) + bound_s
        if row[f"{way}_s"] is None and moved:
            row["note"] = "; ".join(filter(None, (counts, f"no usable {way} time")))
    row["limited_by"] = max(limits, key=lambda limit: limits[limit]) if limits else None
    known = [way for way in DIRECTIONS if row[f"{way}_s"] is not None]
    if not known:
        return row
    row["time_s"] = sum(row[f"{way}_s"] for way in known)
    bounds = [row[f"{way}_bound_s"] for way in known]
    if all(b is not None for b in bounds):
        row["bound_s"] = sum(bounds)
        row["lost_s"] = row["time_s"] - row["bound_s"]
        if row["bound_s"] > 0:
            row["distance"] = row["time_s"] / row["bound_s"]
            if row["distance"] < _CACHE_REUSE_MARGIN and not row["note"]:
                row["note"] = "from cache" if row["limited_by"] == MEMORY else "above the measured peak"
    return row


def median_usable_time(samples: Any) -> float | None:
    """The median of the usable samples [s]; None where all of them are zero, negative or no numbers."""
    values = np.asarray([] if samples is None else [s for s in samples if s is not None], dtype=float)
    values = values[np.isfinite(values) & (values > 0)]
    return float(np.median(values)) if values.size else None


@dataclass(frozen=True)
class NetworkBound:
    """One network's step against its bound [s]. None where it cannot be known.

    `flop_s` + `memory_s` + `optimizer_s` = `bound_s`; what the step takes above it is overhead.
    """

    flop_s: float | None  # all FLOP at the peak
    memory_s: float | None  # what the layers' bytes add to it, layer by layer
    optimizer_s: float | None  # the update's bytes; 0 in inference
    step_s: float | None

    @property
    def bound_s(self) -> float | None:
        """The least time of the step."""
        if self.flop_s is None or self.memory_s is None or self.optimizer_s is None:
            return None
        return self.flop_s + self.memory_s + self.optimizer_s

    @property
    def ratio_to_bound(self) -> float | None:
        """Measured time over the bound."""
        return self.step_s / self.bound_s if self.bound_s and self.step_s is not None else None


def time_bound_of_network(
    layers: pd.DataFrame, roof: DeviceRoofline, step_s: Sequence[float], optimizer_bytes: float
) -> NetworkBound:
    """The bound of a step: the sum of the bounds of its layers, forward and backward, and of the optimizer.

    Args:
        layers: as `layer_bounds` gives them; their work counts whether or not their time was measured.
        step_s: samples of the step time without hooks [s].
        optimizer_bytes: what the update must at least move.
    """
    step = median_usable_time(step_s)
    columns = [f"{way}_bound_s" for way in DIRECTIONS]
    optimizer_s = least_time_and_bottleneck(0, optimizer_bytes, roof)[0]
    flop = float(layers[[f"{way}_flop" for way in DIRECTIONS]].to_numpy(dtype=float).sum())
    flop_s = least_time_and_bottleneck(flop, 0, roof)[0]
    if layers.empty or flop_s is None or bool(layers[columns].isna().to_numpy().any()):
        return NetworkBound(None, None, optimizer_s, step)
    return NetworkBound(flop_s, float(layers[columns].to_numpy().sum()) - flop_s, optimizer_s, step)


def share_of_time_in_layers(run: ProfileRun) -> float | None:
    """What share of the profiled steps' time is in the layers' own times."""
    total = sum(t for t in run.hooked_step_s if t is not None)
    inside = sum(t or 0.0 for layer in run.layers for t in (*layer.forward_s, *layer.backward_s))
    return inside / total if total > 0 else None


def profiling_overhead(run: ProfileRun) -> float | None:
    """By what fraction the median step with hooks is longer than the one without."""
    plain, hooked = median_usable_time(run.step_s), median_usable_time(run.hooked_step_s)
    return hooked / plain - 1 if plain and hooked else None


def bounds_of_profiled_layers(run: ProfileRun, roof: DeviceRoofline) -> pd.DataFrame:
    """`layer_bounds` of a profile, with each layer's `share` of the median profiled step."""
    frame = layer_bounds(layers_frame(run.layers), roof)
    step = median_usable_time(run.hooked_step_s)
    return frame.assign(share=frame["time_s"] / step if step else np.nan)
