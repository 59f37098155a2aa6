"""From one device to many: which measured cases form a scaling curve, and what each says.

Weak: the batch per device stays. Strong: the batch over all devices stays. They are never mixed. Speedup is throughput
over that of the measured single-device case, efficiency is speedup over devices; their intervals take the unfavourable
ends of both. Without a measured single-device case there is neither, and the absolute figures stand alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dlbench import units
from dlbench.report.chapters.scaling_model import Sample, ScalingModel, fit
from dlbench.report.data.content import Block, Content, Section
from dlbench.report.data.labels import network
from dlbench.report.forms.render import Cell, Column, Table
from dlbench.spec.case import AXES

KINDS = ("weak", "strong")
#: How gradients are brought together, which a single device does not do.
SYNCHRONISATION = ("backend", "bucket_cap_mb", "gradient_as_bucket_view", "static_graph", "comm_hook")
_SIZES = ("nodes", "devices_per_node", "batch_size")
#: The model is asked about sizes up to so many times the largest measured one.
PREDICTED_TIMES = 8
#: A model that misses a point it was fitted to by more than this describes something else, and predicts nothing.
MAX_FIT_ERROR = 0.2


@dataclass(frozen=True)
class Point:
    """One measured size; times in seconds, None where not measured."""

    devices: int
    nodes: int
    batch_size: int  # per device
    step_s: float
    throughput: float
    throughput_low: float
    throughput_high: float
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    exposed_s: float | None = None
    exposed_low_s: float | None = None
    exposed_high_s: float | None = None
    compute_s: float | None = None
    communication_s: float | None = None
    energy_j: float | None = None  # per image

    @property
    def efficiency(self) -> float | None:
        """Speedup over devices."""
        return None if self.speedup is None else self.speedup / self.devices

    @property
    def share(self) -> float | None:
        """Exposed communication over the step."""
        return None if self.exposed_s is None else self.exposed_s / self.step_s

    @property
    def share_limits(self) -> tuple[float, float] | None:
        """Interval of `share`, from the unfavourable ends of the two step times."""
        if self.exposed_low_s is None or self.exposed_high_s is None:
            return None
        return self.exposed_low_s / self.step_s, self.exposed_high_s / self.step_s


@dataclass(frozen=True)
class Curve:
    """The sizes of one setting, by devices, and the model fitted to them."""

    kind: str  # "weak" | "strong"
    name: str
    points: tuple[Point, ...]
    model: ScalingModel | None

    def batch_size(self, devices: int) -> float:
        """Images per device on so many devices."""
        last = self.points[-1]
        return last.batch_size if self.kind == "weak" else last.batch_size * last.devices / devices

    def predictions(self) -> list[tuple[int, float, float]]:
        """Beyond the measured range: devices, throughput, and that with what is unknown in our favour [img/s]."""
        found = []
        if self.model and self.model.fit_error > MAX_FIT_ERROR:
            return []
        devices = self.points[-1].devices * 2
        while self.model and devices <= self.points[-1].devices * PREDICTED_TIMES:
            batch = self.batch_size(devices)
            if batch >= 1:
                images = batch * devices
                model = self.model
                found.append(
                    (devices, images / model.step_s(devices, batch), images / model.best_step_s(devices, batch))
                )
            devices *= 2
        return found


def curves(cases: pd.DataFrame) -> list[Curve]:
    """All curves with at least two sizes; a set of cases may show a weak and a strong one.

    Args:
        cases: of one system, one per attempt, with intervals and what communication took, as `Content.shown` has them.
    """
    if cases.empty:
        return []
    cases = cases.assign(devices=cases["nodes"] * cases["devices_per_node"])
    cases["global_batch"] = cases["batch_size"] * cases["devices"]
    found = []
    for kind, batch in (("weak", "batch_size"), ("strong", "global_batch")):
        plain = [a for a in AXES if a not in (*_SIZES, *SYNCHRONISATION)] + [batch]
        full = [*plain, *SYNCHRONISATION]
        several = cases[cases["devices"] > 1]
        single = cases[cases["devices"] == 1]
        for _, group in several.groupby(full, sort=False, dropna=False):
            first = group.iloc[0]
            base = single[(single[plain] == first[plain]).all(axis=1)]
            sizes = pd.concat([base.tail(1), group]).drop_duplicates("devices", keep="last").sort_values("devices")
            if len(sizes) > 1:
                points = tuple(_points(sizes))
                found.append(Curve(kind, _name(first, batch, cases), points, fit([_sample(p) for p in points])))
    return found


def _points(sizes: pd.DataFrame) -> list[Point]:
    base = sizes.iloc[0] if sizes.iloc[0]["devices"] == 1 else None
    points = []
    for case in sizes.to_dict("records"):
        low, high = (_number(case[f"throughput_{end}"]) for end in ("low", "high"))
        value = float(case["throughput"])
        low, high = low or value, high or value
        speedup: dict[str, float] = {}
        if base is not None:
            b_low, b_high = (_number(base[f"throughput_{end}"]) or float(base["throughput"]) for end in ("low", "high"))
            own = case["devices"] == 1
            speedup["speedup"] = value / float(base["throughput"])
            speedup["speedup_low"] = 1.0 if own else low / b_high
            speedup["speedup_high"] = 1.0 if own else high / b_low
        compute = _number(case["unsynced"])
        ends = [_number(case[name]) for name in ("step_time_low", "unsynced_high", "step_time_high", "unsynced_low")]
        known = [end for end in ends if end is not None]
        exposed_limits: tuple[float | None, float | None] = (None, None)
        if len(known) == 4:
            exposed_limits = (max(0.0, known[0] - known[1]), max(0.0, known[2] - known[3]))
        points.append(
            Point(
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
                communication_s=_number(case["allreduce"]),
                energy_j=_number(case["energy_per_image"]),
                **speedup,
            )
        )
    return points


def _sample(point: Point) -> Sample:
    return Sample(point.devices, point.batch_size, point.step_s, point.compute_s, point.communication_s)


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _name(case: Any, batch: str, cases: pd.DataFrame) -> str:
    """Network and batch, and of the other axes those that tell the curves apart."""
    words = f"{case['batch_size']} per device" if batch == "batch_size" else f"{case['global_batch']} in all"
    fixed = ("model", *_SIZES)
    rest = [f"{a.replace('_', ' ')} {case[a]}" for a in AXES if a not in fixed and cases[a].nunique() > 1]
    return ", ".join([network(str(case["model"])), words, *rest])


def _shown(unit: str) -> Any:
    return lambda value: "–" if value is None else units.quantity(value, unit, 3)


def _percent(value: Cell) -> str:
    return "–" if value is None else f"{float(value):.1%}".replace("%", " %")


def table(found: list[Curve]) -> Table:
    """Every measured size, and behind each curve what the model predicts; the absolute figures stand in each row."""
    rows: list[list[Cell]] = []
    for curve in found:
        single = curve.points[0].throughput if curve.points[0].devices == 1 else None
        for p in curve.points:
            width = (p.throughput_high - p.throughput_low) / 2 / p.throughput
            speed = None if p.speedup is None else round(p.speedup, 3)
            shares = None if p.share_limits is None else " to ".join(f"{100 * s:.1f}" for s in p.share_limits) + " %"
            limits = None if p.speedup_low is None else f"{p.speedup_low:.2f} to {p.speedup_high:.2f}"
            rows.append(
                [
                    *(curve.kind, curve.name, "measured", p.devices, p.nodes, p.batch_size, p.throughput, width),
                    *(single, speed, limits, p.efficiency, p.exposed_s, p.share, shares, p.energy_j),
                ]
            )
        for devices, throughput, _ in curve.predictions():
            speed = None if single is None else round(throughput / single, 3)
            efficiency = None if single is None else throughput / single / devices
            batch = curve.batch_size(devices)
            rows.append(
                [
                    *(curve.kind, curve.name, "predicted", devices, None, batch, throughput, None),
                    *(single, speed, None, efficiency, None, None, None, None),
                ]
            )
    columns = [
        Column("scaling"),
        Column("curve"),
        Column("origin"),
        Column("devices"),
        Column("nodes"),
        Column("batch_size", "batch per device"),
        Column("throughput_img_per_s", "throughput", "right", _shown("img/s")),
        Column("half_width", "±", "right", _percent),
        Column("single_device_img_per_s", "single device", "right", _shown("img/s")),
        Column("speedup"),
        Column("speedup_interval", "interval of speedup", "right"),
        Column("efficiency", "", "right", _percent),
        Column("exposed_s", "exposed communication", "right", _shown("s")),
        Column("communication_share", "share of step", "right", _percent),
        Column("share_interval", "interval of share", "right"),
        Column("energy_per_image_j", "energy per image", "right", _shown("J")),
    ]
    return Table(columns, rows)


def model_sentence(curve: Curve) -> str:
    """What was fitted, how far it is to be trusted, and for which sizes it is a prediction."""
    model = curve.model
    if model is None:
        return f"{curve.name} ({curve.kind}): no prediction, which needs two sizes beyond one device."
    if model.fit_error > MAX_FIT_ERROR:
        return (
            f"{curve.name} ({curve.kind}): no prediction. The model misses a point that it was fitted to by "
            f"{100 * model.fit_error:.0f} %: these ranks share something that it does not know of, such as cores."
        )
    error = (
        "not tested on left-out points, of which it has too few"
        if model.left_out_error is None
        else f"off by at most {model.left_out_error:.1%} at points left out of the fit".replace("%", " %")
    )
    bound = "" if model.overlap_known else "at least "
    times = (model.compute_s(curve.batch_size(1)), model.transfer_s, model.latency_s)
    compute, transfer, latency = (units.quantity(time_s, "s", 3) for time_s in times)
    return (
        f"{curve.name} ({curve.kind}): computation {compute} on one device, "
        f"transfer {transfer}, latency {latency} per hop ({model.algorithm}), "
        f"{bound}{100 * model.overlap:.0f} % of the computation hides communication; {error}. "
        f"Fitted to {', '.join(map(str, model.fitted))} devices; anything beyond is a prediction."
    )


def section(content: Content) -> Section:
    """Scaling over devices: figures, table and predictions per system; words where nothing ran on several sizes."""
    from dlbench.report.figures.plots_scaling import plots

    blocks: list[Block] = []
    several = sum(bool(len(content.of_system(s))) for s in content.system_names)
    for number, (system, name) in enumerate(content.system_names.items(), 1):
        found = curves(content.of_system(system))
        if not found:
            continue
        ending = f"-{number}" if several > 1 else ""
        for plot in plots(found, ending):
            blocks.append(Block(plot=plot, heading=name if several > 1 else ""))
        blocks.append(Block(table=table(found), filters=("scaling", "curve", "origin")))
        blocks += [Block(words=model_sentence(curve)) for curve in found]
    if not blocks:
        blocks = [Block(words="No case ran on several numbers of devices; benchmarks/scaling_weak.toml does.")]
    return Section("scaling", "Scaling", blocks)
