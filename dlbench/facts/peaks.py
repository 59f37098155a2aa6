"""Datasheet peaks of devices, and anchors (published measurements).

Both are CSV files in this folder; `dlbench/facts/README.md` lists their sources. Peaks are dense: figures for
structured sparsity (twice as high) are not used.
"""

import re
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from dlbench.facts.csv_files import read_csv_rows

#: Precision -> column of the datasheet. fp32 is strict: without TF32.
_COLUMN_OF_PRECISION = {
    **{name: name for name in ("fp32", "tf32", "bf16", "fp16", "fp8")},
    "amp_bf16": "bf16",
    "amp_fp16": "fp16",
}

#: Device name of driver or PyTorch (pattern over the whole name, case ignored), row of the datasheet, and the fraction
#: of that row that one device has. Other devices have no peak: similar names differ (H200 NVL, RTX 3090 Ti, L40, MIG
#: slices), and a wrong bound is worse than none.
_NAME_PATTERNS: tuple[tuple[str, str, float], ...] = (
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
    """Dense datasheet peaks of one device; None if the datasheet has no value.

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
        """Return the dense peak [FLOP/s] for a precision of a case; None if unknown."""
        column = _COLUMN_OF_PRECISION.get(precision)
        tflops: float | None = getattr(self, f"{column}_tflops") if column else None
        return None if tflops is None else tflops * 1e12


@dataclass(frozen=True)
class PublishedThroughput:
    """One published throughput for comparison, with the differences of its measurement."""

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
def peaks_by_device() -> dict[str, DevicePeaks]:
    """Read all rows of `device_peaks.csv`, by device name."""
    return {row["device"]: _parse_peaks(row) for row in read_csv_rows("device_peaks.csv")}


@cache
def find_device_peaks(device_name: str | None) -> DevicePeaks | None:
    """Return the peaks of the device with this driver or PyTorch name; None for a CPU or unknown device."""
    if not device_name:
        return None
    plain = re.sub(r"^(NVIDIA|AMD) ", "", device_name.strip(), flags=re.IGNORECASE)
    for pattern, row, share in _NAME_PATTERNS:
        if re.fullmatch(pattern, plain, flags=re.IGNORECASE):
            return _peaks_of_device_share(peaks_by_device()[row], share)
    return peaks_by_device().get(plain)


@cache
def published_throughputs() -> tuple[PublishedThroughput, ...]:
    """Read all rows of `anchors.csv`, in order."""
    return tuple(
        PublishedThroughput(
            **{k: r[k] for k in ("model", "mode", "device", "precision", "framework", "data", "source")},
            devices=int(r["devices"]),
            img_per_s_total=float(r["img_per_s_total"]),
            batch_per_device=int(r["batch_per_device"]) if r["batch_per_device"] else None,
        )
        for r in read_csv_rows("anchors.csv")
    )


def _parse_peaks(row: dict[str, str]) -> DevicePeaks:
    numbers: dict[str, Any] = {k: float(v) if v else None for k, v in row.items() if k not in ("device", "note")}
    return DevicePeaks(device=row["device"], note=row["note"], **numbers)


def _peaks_of_device_share(peaks: DevicePeaks, share: float) -> DevicePeaks:
    if share == 1.0:
        return peaks
    numbers = {f.name: getattr(peaks, f.name) for f in fields(peaks) if f.name not in ("device", "note")}
    parts: dict[str, Any] = {name: value * share for name, value in numbers.items() if value is not None}
    return replace(peaks, note=f"{peaks.note}; these values are scaled to a share of {share:g} of the device", **parts)
