"""What a device could reach at most, and what others published: the datasheet peaks and the anchors.

Both are read from CSV files beside the package; `dlbench/facts/README.md` names their sources. Peaks are dense: the
doubled figures that vendors quote for structured sparsity appear nowhere.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent

#: Which column of the datasheet bounds a precision of ours. fp32 is strict: no TF32 anywhere.
_COLUMN_OF_PRECISION = {"fp32": "fp32", "tf32": "tf32", "amp_bf16": "bf16", "amp_fp16": "fp16"}

#: What the driver or PyTorch calls a device (a pattern over the whole name, case ignored), the datasheet's row, and
#: the share of that row that one such device is. Whatever matches none has no peak: parts that sound alike differ
#: (H200 NVL, RTX 3090 Ti, L40, MIG slices), and a wrong bound is worse than none.
_NAMES: tuple[tuple[str, str, float], ...] = (
    (r"Tesla V100-SXM[23].*", "V100 SXM2", 1.0),
    (r"A100-SXM4-40GB", "A100 SXM4 40GB", 1.0),
    (r"A100-SXM4-80GB", "A100 SXM4 80GB", 1.0),
    (r"A100[- ]80GB PCIe|A100-PCIE-80GB", "A100 PCIe 80GB", 1.0),
    (r"H100 80GB HBM3|H100 SXM5.*", "H100 SXM5", 1.0),
    (r"H100 PCIe", "H100 PCIe", 1.0),
    (r"H200|H200 SXM.*", "H200 SXM", 1.0),
    (r"GH200 480GB", "GH200 96GB", 1.0),  # 480 GB is the memory of the CPU; the GPU has 96 GB of HBM3
    (r"GH200 144G HBM3e.*", "GH200 144GB", 1.0),
    (r"B200", "B200", 1.0),
    (r"L40S", "L40S", 1.0),
    (r"A40", "A40", 1.0),
    (r"GeForce RTX 3090", "RTX 3090", 1.0),
    (r"GeForce RTX 4090", "RTX 4090", 1.0),
    (r"Instinct MI210", "MI210", 1.0),
    (r"Instinct MI250X", "MI250X", 0.5),  # the datasheet counts two dies; the framework sees each as a device
    (r"Instinct MI300X.*", "MI300X", 1.0),
)


@dataclass(frozen=True)
class DevicePeaks:
    """The dense datasheet peaks of one device; None where the datasheet has none.

    Rates are in TFLOP/s, as datasheets print them; `flop_per_s` gives the rate in FLOP/s.
    """

    device: str
    fp32_tflops: float | None = None
    tf32_tflops: float | None = None
    fp16_tflops: float | None = None
    bf16_tflops: float | None = None
    fp8_tflops: float | None = None
    memory_gb: float | None = None
    memory_tb_per_s: float | None = None
    power_limit_w: float | None = None
    link_gb_per_s: float | None = None
    reachable_bf16_tflops: float | None = None  # best published measurement
    note: str = ""

    def flop_per_s(self, precision: str) -> float | None:
        """The dense peak in FLOP/s for a precision as a case names it; None where there is none."""
        column = _COLUMN_OF_PRECISION.get(precision)
        tflops: float | None = getattr(self, f"{column}_tflops") if column else None
        return None if tflops is None else tflops * 1e12


@dataclass(frozen=True)
class Anchor:
    """One published throughput to hold our own against, with what differs from our way of measuring."""

    model: str
    mode: str
    device: str
    devices: int
    img_per_s_total: float
    precision: str
    framework: str
    batch_per_device: int | None
    data: str
    source: str


@cache
def device_peaks() -> dict[str, DevicePeaks]:
    """All rows of `device_peaks.csv` by the device's name there."""
    return {row["device"]: _peaks(row) for row in _rows("device_peaks.csv")}


@cache
def find_peaks(device_name: str | None) -> DevicePeaks | None:
    """The peaks of the device that a driver or PyTorch calls `device_name`; None for a CPU or an unknown device."""
    if not device_name:
        return None
    plain = re.sub(r"^(NVIDIA|AMD) ", "", device_name.strip(), flags=re.IGNORECASE)
    for pattern, row, share in _NAMES:
        if re.fullmatch(pattern, plain, flags=re.IGNORECASE):
            return _share(device_peaks()[row], share)
    return device_peaks().get(plain)


@cache
def anchors() -> tuple[Anchor, ...]:
    """All rows of `anchors.csv`, in its order."""
    return tuple(
        Anchor(
            **{k: r[k] for k in ("model", "mode", "device", "precision", "framework", "data", "source")},
            devices=int(r["devices"]),
            img_per_s_total=float(r["img_per_s_total"]),
            batch_per_device=int(r["batch_per_device"]) if r["batch_per_device"] else None,
        )
        for r in _rows("anchors.csv")
    )


def _peaks(row: dict[str, str]) -> DevicePeaks:
    numbers: dict[str, Any] = {k: float(v) if v else None for k, v in row.items() if k not in ("device", "note")}
    return DevicePeaks(device=row["device"], note=row["note"], **numbers)


def _share(peaks: DevicePeaks, share: float) -> DevicePeaks:
    if share == 1.0:
        return peaks
    numbers = {f.name: getattr(peaks, f.name) for f in fields(peaks) if f.name not in ("device", "note")}
    parts: dict[str, Any] = {name: value * share for name, value in numbers.items() if value is not None}
    return replace(peaks, note=f"{peaks.note}; shown: {share:g} of it", **parts)


def _rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
