"""Made-up records for tests and for looking at the report: nothing in here was ever measured.

The numbers are plausible (step times follow the networks' FLOP, noise is skewed and correlated) and fully determined by
the seed in each function, so that a report of them can be compared byte by byte.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from dlbench.results.records import Measurement, Record, System
from dlbench.results.schema import to_table
from dlbench.suites.case import Case, Protocol

#: Per image: forward MACs, forward + backward FLOP, parameters, elements saved for backward.
NETWORKS = {
    "lenet5": (416_520, 2_260_000, 61_706, 9_000),
    "alexnet": (724_406_816, 4_136_000_000, 60_965_224, 1_100_000),
    "overfeat_fast": (2_801_403_904, 16_590_000_000, 145_920_872, 1_600_000),
    "vgg16": (15_470_264_320, 92_650_000_000, 138_357_544, 27_000_000),
    "googlenet": (1_582_671_872, 9_260_000_000, 13_378_280, 9_500_000),
    "resnet50": (3_857_973_248, 22_910_000_000, 25_557_032, 26_000_000),
}
#: Text that would do harm if it became markup.
HOSTILE = "<script>alert('x')</script>\"'&{{7*7}}<img src=x onerror=alert(1)>"

GPU = System(
    hostname="fake-gpu-node-01",
    cpu_model="AMD EPYC 9654 96-Core Processor",
    cpu_cores=24,
    cpu_threads=48,
    memory_bytes=1536 * 2**30,
    device_kind="cuda",
    device_name="NVIDIA H200",
    device_count=4,
    driver_version="580.82.07",
    os="Rocky Linux 9.6",
    kernel="5.14.0-570.el9.x86_64",
    python_version="3.11.9",
    torch_version="2.15.0+cu130",
    torchvision_version="0.29.2+cu130",
    cuda_version="13.0",
    cudnn_version="9.12.0",
    nccl_version="2.28.3",
    torch_threads=24,
    container_runtime="apptainer",
    container_image="dlbench-2.15.sif",
    dlbench_version="0.1.0",
    git_commit="d1a3d7a5c0ffee00d1a3d7a5c0ffee00d1a3d7a5",
    git_dirty=False,
    slurm_job_id="1234567",
    firmware="BIOS 2.3.6, VBIOS 96.00.89.00.01",
    details={"libraries": ["/opt/cuda/lib64/libcudnn.so.9", "/opt/cuda/lib64/libcublas.so.13"]},
)
CPU = dataclasses.replace(
    GPU,
    hostname="fake-laptop",
    cpu_model="AMD EPYC 7B13",
    cpu_cores=2,
    cpu_threads=2,
    memory_bytes=8 * 2**30,
    device_kind="cpu",
    device_name=None,
    device_count=0,
    driver_version=None,
    torch_version="2.15.0+cpu",
    torchvision_version="0.29.2+cpu",
    cuda_version=None,
    cudnn_version=None,
    nccl_version=None,
    torch_threads=2,
    container_runtime=None,
    container_image=None,
    slurm_job_id=None,
    firmware=None,
)
_START = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
_PEAK = {"fp32": 67e12, "tf32": 494.5e12, "amp_bf16": 989e12, "amp_fp16": 989e12}


def noisy_steps(median_s: float, count: int, seed: int) -> tuple[float, ...]:
    """Step times like real ones: skewed, correlated from step to step, with a few outliers."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.004, count)
    for i in range(1, count):
        noise[i] += 0.4 * noise[i - 1]
    steps = median_s * (1 + np.abs(noise) * rng.choice([-0.6, 1.0], count))
    steps[rng.integers(0, count, max(1, count // 150))] *= 1.15
    return tuple(float(x) for x in steps)


def measurement(case: Case, system: System, rank: int = 0, **changes: Any) -> Measurement:
    """What one rank of `case` might have measured on `system`."""
    macs, training_flop, parameters, saved = NETWORKS.get(case.model, NETWORKS["alexnet"])
    training = case.mode == "training"
    flop = (training_flop if training else 2 * macs) * case.batch_size
    gpu = system.device_kind == "cuda"
    peak = _PEAK[case.precision] if gpu else 60e9
    seed = zlib.crc32(f"{case.id}{rank}".encode())
    rng = np.random.default_rng(seed)
    # Small work is dominated by launches; the larger it is the nearer it gets to the peak.
    reach = 0.55 * flop / (flop + peak * 2e-3) * rng.uniform(0.8, 1.0)
    median_s = flop / (peak * reach) + (3e-4 if gpu else 2e-4)
    count = int(np.clip(5.0 / median_s, 30, 400))
    steps = noisy_steps(median_s, count, seed)
    window = sum(steps)
    shares = (0.31, 0.62, 0.04) if training else (0.97, 0.0, 0.0)
    element = 4 if case.precision in ("fp32", "tf32") else 2
    values: dict[str, Any] = {
        "rank": rank,
        "local_rank": rank % case.devices_per_node,
        "world_size": case.world_size,
        "device_name": system.device_name,
        "step_s": steps,
        "forward_s": tuple(shares[0] * s for s in steps),
        "backward_s": tuple(shares[1] * s for s in steps) if training else (),
        "optimizer_s": tuple(shares[2] * s for s in steps) if training else (),
        "clock": "cuda_event" if gpu else "host",
        "window_s": window * 1.0004,
        "device_window_s": window,
        "warmup_steps": 12,
        "warmup_s": 12 * median_s,
        "warmup_step_s": noisy_steps(median_s * 1.1, 12, seed),
        "steady": True,
        "stop_reason": "target",
        "import_s": 2.1,
        "build_s": 0.4,
        "first_step_s": 0.9 + median_s,
        "parameters": parameters,
        "forward_macs": macs,
        "forward_flop": 2 * macs,
        "backward_flop": training_flop - 2 * macs if training else None,
        "memory_rss_peak_bytes": 900 * 2**20 + (0 if gpu else 6 * parameters + 4 * saved * case.batch_size),
        "parameter_bytes": 4 * parameters,
        "gradient_bytes": 4 * parameters if training else None,
        "optimizer_state_bytes": 4 * parameters if training else None,
        "activation_bytes": element * saved * case.batch_size if training else None,
        "loss_first": 6.9,
        "loss_last": 6.7,
    }
    if gpu:
        values |= _of_gpu(values, reach, window, rank, rng)
    own = changes.get("step_s")
    if own and all(isinstance(s, float) and math.isfinite(s) for s in own):
        values |= {"window_s": sum(own) * 1.0004, "device_window_s": sum(own)}
    return Measurement(**(values | changes))


def _of_gpu(values: dict[str, Any], reach: float, window: float, rank: int, rng: np.random.Generator) -> dict[str, Any]:
    parts = ("parameter_bytes", "gradient_bytes", "optimizer_state_bytes", "activation_bytes")
    allocated = int(sum(values[p] or 0 for p in parts) * 1.12) + 200 * 2**20
    watts = 120 + 560 * min(1.0, reach / 0.5)
    times = np.arange(0, window, max(0.1, window / 200))
    power = watts + rng.normal(0, 6, times.size) - (watts - 80) * np.exp(-times / 0.2)
    return {
        "device_uuid": f"GPU-fake-{rank}",
        "energy_j": watts * window,
        "energy_source": "nvml_counter",
        "energy_scope": "device",
        "energy_window_s": window * 1.0004,
        "energy_counter_j": watts * window,
        "energy_integral_j": watts * window * 1.006,
        "idle_power_w": 76.0,
        "power_time_s": tuple(float(t) for t in times),
        "power_w": tuple(float(w) for w in power),
        "memory_allocated_peak_bytes": allocated,
        "memory_reserved_peak_bytes": int(allocated * 1.08),
        "memory_device_used_bytes": int(allocated * 1.08) + 700 * 2**20,
        "memory_device_total_bytes": 141 * 10**9,
        "sm_clock_before_mhz": 1980.0,
        "sm_clock_min_mhz": 1890.0,
        "sm_clock_after_mhz": 1965.0,
        "sm_clock_max_mhz": 1980.0,
        "memory_clock_mhz": 3201.0,
        "temperature_before_c": 41.0,
        "temperature_max_c": 63.0,
        "temperature_after_c": 60.0,
        "power_limit_w": 700.0,
    }


def record(case: Case, system: System = GPU, number: int = 0, status: str = "ok", **changes: Any) -> Record:
    """A made-up attempt at `case`; a failed one has neither ranks nor a system, as after a crash.

    Args:
        number: makes the attempt's id and its time of start; attempts of one store need different ones.
        changes: fields of `Record`, or of every rank's `Measurement`.
    """
    of_record = {k: changes.pop(k) for k in [f.name for f in dataclasses.fields(Record)] if k in changes}
    started = _START + timedelta(seconds=30 * number)
    done = status in ("ok", "unstable")
    if status == "unstable":
        changes.setdefault("stop_reason", "max_time")
    if not done:
        of_record.setdefault("error", _ERRORS.get(status, "failed"))
    ranks = (
        tuple((system, measurement(case, system, rank, **changes)) for rank in range(case.world_size)) if done else ()
    )
    values: dict[str, Any] = {
        "attempt_id": f"{started:%Y%m%dT%H%M%S}-{case.id}",
        "case_id": case.id,
        "suite": "fake",
        "suite_version": 1,
        "case": case.to_dict(),
        "started_at": started.isoformat(),
        "finished_at": (started + timedelta(seconds=21)).isoformat(),
        "status": status,
        "exit_code": 0 if done else 1,
        "wall_s": 21.0,
        "system_key": f"{zlib.crc32(repr(system).encode()):08x}",
        "ranks": ranks,
    }
    return Record(**(values | of_record))


_ERRORS = {
    "oom": "out of memory: tried to allocate 12.3 GiB, 4.1 GiB of 139.8 GiB free",
    "timeout": "no result after 900 s; killed",
    "crashed": "worker ended by signal 11 (segmentation fault)",
    "invalid": "loss is NaN after step 1",
    "preempted": "job ended by SIGTERM",
}


def quick(system: System = CPU) -> list[Record]:
    """The suite `quick`: six networks, training and inference, one small batch each."""
    device = system.device_kind
    batches = {"lenet5": 64}
    cases = [
        Case(name, mode, batch_size=batches.get(name, 4), device=device, protocol=Protocol(min_time_s=1.0))
        for name in NETWORKS
        for mode in ("training", "inference")
    ]
    note = {} if device == "cuda" else {"energy_note": "RAPL is not readable in this virtual machine"}
    return [record(c, system, i, **note) for i, c in enumerate(cases)]


def classic(system: System = GPU) -> list[Record]:
    """The suite `classic`: six networks x two modes x three precisions x eight batch sizes, some of which fail."""
    cases = [
        Case(name, mode, precision, "channels_last", batch, "cuda")
        for name in NETWORKS
        for mode in ("training", "inference")
        for precision in ("fp32", "tf32", "amp_bf16")
        for batch in (1, 4, 16, 64, 128, 256, 512, 1024)
    ]
    return [record(c, system, i, _status(c, i)) for i, c in enumerate(cases)]


def _status(case: Case, number: int) -> str:
    if case.model == "vgg16" and case.mode == "training" and case.batch_size >= 512 and case.precision != "amp_bf16":
        return "oom"
    return {17: "unstable", 45: "crashed", 101: "timeout", 140: "unstable", 199: "invalid"}.get(number, "ok")


def fill(root: Path, records: list[Record]) -> Path:
    """Write the records to a store at `root`, all in one part as after a merge; gives `root`."""
    root.mkdir(parents=True, exist_ok=True)
    if records:
        pq.write_table(to_table(records), root / "merged-fake.parquet")
    return root
