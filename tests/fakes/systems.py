"""Made-up systems that differ as real ones do, for tests and for looking at a comparison: nothing was ever measured."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dlbench.results.records import Record, System
from dlbench.suites.case import Case
from tests.fakes import records as fakes

H200 = fakes.GPU
A100 = dataclasses.replace(
    fakes.GPU, hostname="a100-01", cpu_model="AMD EPYC 7713 64-Core Processor", device_name="NVIDIA A100-SXM4-80GB",
    driver_version="550.54.15", container_runtime="pyxis", container_image="nvcr.io/nvidia/pytorch:26.01-py3",
)  # fmt: skip
L40S = dataclasses.replace(
    fakes.GPU, hostname="l40s-01", cpu_model="Intel(R) Xeon(R) Gold 6448Y", device_name="NVIDIA L40S", device_count=8
)
#: Step times and power over those of the H200.
FACTORS = {"NVIDIA H200": (1.0, 1.0), "NVIDIA A100-SXM4-80GB": (2.1, 0.62), "NVIDIA L40S": (3.4, 0.5)}
#: Relative standard deviation between processes.
BETWEEN = 0.006
_TIMES = ("step_s", "forward_s", "backward_s", "optimizer_s", "window_s", "device_window_s", "energy_window_s")


def classic_cases(
    networks: Sequence[str] = ("alexnet", "vgg16", "resnet50"), batches: Sequence[int] = (16, 64, 256)
) -> list[Case]:
    """Some cases of the suite `classic`."""
    return [
        Case(name, mode, precision, "channels_last", batch, "cuda")
        for name in networks
        for mode in ("training", "inference")
        for precision in ("fp32", "amp_bf16")
        for batch in batches
    ]


def campaign(
    system: System,
    cases: Sequence[Case],
    hosts: Sequence[str] = (),
    repeats: int = 1,
    slow: Callable[[str], float] = lambda host: 1.0,
    first: int = 0,
    times: Callable[[str, Case], float] | None = None,
    power: float | None = None,
    **of_record: object,
) -> list[Record]:
    """What `cases` took on `system`; repeats go round the hosts, each process with a deviation of its own.

    Args:
        slow: by how much the step times of a host are longer.
        first: number of the first attempt; attempts of one store need different ones.
        times: step times over those of `fakes.measurement`, by device and case, noise included.
        power: the power over that of `fakes.measurement`.
    """
    hosts = hosts or (system.hostname,)
    found = []
    for case in cases:
        for repeat in range(repeats):
            number = first + len(found)
            host = hosts[repeat % len(hosts)]
            found.append(
                _process(
                    system, dataclasses.replace(case, repeat=repeat), host, slow(host), number, of_record, times, power
                )
            )
    return found


def _process(
    system: System, case: Case, host: str, slower: float, number: int, of_record: dict,
    own: Callable[[str, Case], float] | None, own_power: float | None,
) -> Record:  # fmt: skip
    rng = np.random.default_rng(zlib.crc32(f"{case.id}{host}{system.device_name}".encode()))
    times, power = FACTORS.get(system.device_name, (1.0, 1.0))
    factor = times * slower * float(np.exp(rng.normal(0, BETWEEN)))
    factor = own(system.device_name or "", case) if own else factor
    power = own_power or power
    # All processes of a case share the steps' noise of its first repeat: what differs is the process.
    base = fakes.measurement(dataclasses.replace(case, repeat=0), system)
    changes: dict = {}
    for name in _TIMES:
        value = getattr(base, name)
        if value is not None:
            changes[name] = tuple(factor * v for v in value) if isinstance(value, tuple) else factor * value
    if base.energy_j is not None:
        joules = base.energy_j * factor * power
        changes |= {"energy_j": joules, "energy_counter_j": joules, "energy_integral_j": 1.006 * joules}
        changes |= {"device_uuid": f"GPU-{host}", "power_w": tuple(power * w for w in base.power_w)}
        changes |= {"power_time_s": tuple(factor * t for t in base.power_time_s)}
    key = zlib.crc32(repr((system.device_name, system.cpu_model, system.torch_version, system.driver_version)).encode())
    values = {"system_key": f"{key:012x}"} | of_record
    return fakes.record(case, dataclasses.replace(system, hostname=host), number, **changes, **values)


def store(root: Path, *campaigns: list[Record]) -> Path:
    """A store that holds these campaigns."""
    return fakes.fill(root, [record for records in campaigns for record in records])
