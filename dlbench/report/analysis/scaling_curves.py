"""From one device to many: which measured cases form a scaling curve, and what it predicts.

Weak: the batch per device stays. Strong: the batch over all devices stays. They are never mixed. Speedup is throughput
over that of the measured single-device case, efficiency is speedup over devices; their intervals take the unfavourable
ends of both, where enough processes ran on each side to know how these differ. Without a measured single-device case
there is neither, and the absolute figures stand alone.

A size is a number of nodes and of devices on each. Where a setting reached one number of devices in two ways, such as
1 x 4 and 2 x 2, its sizes make a curve within one node and one for each number of devices per node.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dlbench.process_statistics import MIN_PROCESSES
from dlbench.report.analysis import confidence_levels
from dlbench.report.analysis.labels import network_title
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.scaling_model import ScalingModel, ScalingSample, fit_scaling_model
from dlbench.report.analysis.side_by_side import add_case_numbers, summarize_processes
from dlbench.suites.case import AXES, USUAL_CONFIDENCE

KINDS = ("weak", "strong")
#: How gradients are brought together, which a single device does not do.
SYNCHRONISATION = ("backend", "bucket_cap_mb", "gradient_as_bucket_view", "static_graph", "comm_hook")
_SIZE_AXES = ("nodes", "devices_per_node", "batch_size")
#: The model is asked about sizes up to so many times the largest measured one.
PREDICTED_TIMES = 8
#: A model that misses a point it was fitted to by more than this describes something else, and predicts nothing.
MAX_FIT_ERROR = 0.2


@dataclass(frozen=True, kw_only=True)
class ScalingPoint(ScalingSample):
    """One measured size with all that is known of it; times in seconds, None where not measured."""

    nodes: int
    throughput: float
    throughput_low: float | None = None
    throughput_high: float | None = None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    exposed_s: float | None = None
    exposed_low_s: float | None = None
    exposed_high_s: float | None = None
    energy_j: float | None = None  # per image
    attempts: tuple[str, ...] = ()

    @property
    def half_width(self) -> float | None:
        """Half of the interval of the throughput, relative to it."""
        if self.throughput_low is None or self.throughput_high is None:
            return None
        return (self.throughput_high - self.throughput_low) / 2 / self.throughput

    @property
    def efficiency(self) -> float | None:
        """Speedup over devices."""
        return None if self.speedup is None else self.speedup / self.devices

    @property
    def is_superlinear(self) -> bool:
        """Whether the efficiency is above 1 by more than its interval."""
        return self.devices > 1 and self.speedup_low is not None and self.speedup_low > self.devices

    @property
    def communication_share(self) -> float | None:
        """Exposed communication over the step."""
        return None if self.exposed_s is None else self.exposed_s / self.step_s

    @property
    def communication_share_limits(self) -> tuple[float, float] | None:
        """Interval of `communication_share`, from the unfavourable ends of both step times; at most the whole step."""
        if self.exposed_low_s is None or self.exposed_high_s is None:
            return None
        return self.exposed_low_s / self.step_s, min(1.0, self.exposed_high_s / self.step_s)


@dataclass(frozen=True)
class ThroughputPrediction:
    """Throughput of a size that was not measured [img/s]: one value, or only its limits."""

    devices: int
    low: float
    high: float
    known: bool  # False: all communication was hidden, so that it is not known how much more could be

    @property
    def throughput(self) -> float | None:
        """The one value; None where there are only limits."""
        return self.low if self.known else None


@dataclass(frozen=True)
class ScalingCurve:
    """The sizes of one setting, by devices, and the model fitted to them."""

    kind: str  # "weak" | "strong"
    name: str
    points: tuple[ScalingPoint, ...]
    model: ScalingModel | None
    mode: str
    precision: str
    confidence: tuple[float, ...] = (USUAL_CONFIDENCE,)  # of the intervals of its points

    def batch_size_per_device(self, devices: int) -> float:
        """Images per device on so many devices."""
        last = self.points[-1]
        return last.batch_size if self.kind == "weak" else last.batch_size * last.devices / devices

    def predictions(self) -> list[ThroughputPrediction]:
        """What the model says beyond the measured range; nothing where it misses what was measured."""
        model, last = self.model, self.points[-1].devices
        if model is None or model.fit_error > MAX_FIT_ERROR:
            return []
        found = []
        devices = last * 2
        while devices <= last * PREDICTED_TIMES:
            batch = self.batch_size_per_device(devices)
            if batch >= 1:
                images = batch * devices
                slow_s, fast_s = model.step_s(devices, batch), model.minimum_step_s(devices, batch)
                found.append(ThroughputPrediction(devices, images / slow_s, images / fast_s, model.overlap_known))
            devices *= 2
        return found


def find_scaling_curves(cases: pd.DataFrame) -> list[ScalingCurve]:
    """All curves with at least two sizes; a set of cases may show a weak and a strong one.

    `cases` are those of one system, one per attempt, as `Content.shown` has them.
    """
    if cases.empty:
        return []
    processes = add_case_numbers(cases)
    attempts = processes.groupby(["number", "system_id"], sort=False)["attempt_id"].agg(tuple)
    # Both are by number and system, in the order of their first processes.
    cases = summarize_processes(processes, (*METRICS, "unsynced", "allreduce")).assign(attempts=attempts.to_numpy())
    cases = cases.assign(devices=cases["nodes"] * cases["devices_per_node"])
    cases["global_batch"] = cases["batch_size"] * cases["devices"]
    found = []
    for kind, batch in (("weak", "batch_size"), ("strong", "global_batch")):
        plain = [a for a in AXES if a not in (*_SIZE_AXES, *SYNCHRONISATION)] + [batch]
        full = [*plain, *SYNCHRONISATION]
        several = cases[cases["devices"] > 1]
        single = cases[cases["devices"] == 1]
        for _, group in several.groupby(full, sort=False, dropna=False):
            first = group.iloc[0]
            base = single[(single[plain] == first[plain]).all(axis=1)].tail(1)
            name = _curve_name(first, batch, several)
            mode, precision = str(first["mode"]), str(first["precision"])
            for way, own in _split_into_curves(group.drop_duplicates(["nodes", "devices_per_node"], keep="last")):
                sizes = pd.concat([base, own]).sort_values("devices")
                if len(sizes) > 1:
                    points = tuple(_build_scaling_points(sizes))
                    model = fit_scaling_model(points)
                    level = tuple(confidence_levels.confidence_levels(sizes))
                    found.append(ScalingCurve(kind, name + way, points, model, mode, precision, level))
    return found


def curves_confidence_text(found: Sequence[ScalingCurve]) -> str:
    """The confidence of all intervals of these curves, in words."""
    return confidence_levels.format_levels(sorted({level for curve in found for level in curve.confidence}))


def _split_into_curves(sizes: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Sizes that form one curve, with what names it: all of them, unless a number of devices is there twice."""
    if not sizes["devices"].duplicated().any():
        return [("", sizes)]
    counts = sorted(sizes.loc[sizes["nodes"] > 1, "devices_per_node"].unique())
    within = [(", in one node", sizes[sizes["nodes"] == 1])]
    return within + [(f", {count} on each node", sizes[sizes["devices_per_node"] == count]) for count in counts]


def _build_scaling_points(sizes: pd.DataFrame) -> list[ScalingPoint]:
    base = sizes.iloc[0] if sizes.iloc[0]["devices"] == 1 else None
    points = []
    for case in sizes.to_dict("records"):
        low, high = (_finite_or_none(case[f"throughput_{end}"]) for end in ("low", "high"))
        value = float(case["throughput"])
        speedup: dict[str, float] = {}
        if base is not None:
            speedup["speedup"] = value / float(base["throughput"])
            b_low, b_high = (_finite_or_none(base[f"throughput_{end}"]) for end in ("low", "high"))
            if case["devices"] == 1:
                speedup |= {"speedup_low": 1.0, "speedup_high": 1.0}
            elif low and high and b_low and b_high and min(case["processes"], base["processes"]) >= MIN_PROCESSES:
                speedup |= {"speedup_low": low / b_high, "speedup_high": high / b_low}
        compute = _finite_or_none(case["unsynced"])
        ends = [case[name] for name in ("step_time_low", "unsynced_high", "step_time_high", "unsynced_low")]
        exposed_limits: tuple[float | None, float | None] = (None, None)
        if all(map(math.isfinite, ends)):
            exposed_limits = (max(0.0, ends[0] - ends[1]), max(0.0, ends[2] - ends[3]))
        points.append(
            ScalingPoint(
                devices=int(case["devices"]),
                nodes=int(case["nodes"]),
                batch_size=int(case["batch_size"]),
                step_s=float(case["step_time"]),
                throughput=value,
                throughput_low=low,
                throughput_high=high,
                compute_s=compute,
                # Below zero it is noise: nothing was seen.
                exposed_s=None if compute is None else max(0.0, float(case["step_time"]) - compute),
                exposed_low_s=exposed_limits[0],
                exposed_high_s=exposed_limits[1],
                communication_s=_finite_or_none(case["allreduce"]),
                energy_j=_finite_or_none(case["energy_per_image"]),
                attempts=case["attempts"],
                **speedup,
            )
        )
    return points


def _finite_or_none(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _curve_name(case: Any, batch: str, cases: pd.DataFrame) -> str:
    """Network and batch, and of the other axes those that tell the curves apart."""
    words = f"{case['batch_size']} per device" if batch == "batch_size" else f"{case['global_batch']} in all"
    fixed = ("model", *_SIZE_AXES)
    rest = [f"{a.replace('_', ' ')} {case[a]}" for a in AXES if a not in fixed and cases[a].nunique() > 1]
    return ", ".join([network_title(str(case["model"])), words, *rest])
