"""Made-up fleets for tests: identical devices with the spread that public studies found, and faults put into them.

Sinha et al. 2022 (SC22, "Not All GPUs Are Created Equal") found identical GPUs apart by 8 % on average over
applications and 22 % at most; what computes differs most, what waits for memory hardly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd

from dlbench.report.analysis.fleet import _READ_COLUMNS
from dlbench.results.aggregation import SETTING_AXES, THREADS_COLUMN
from dlbench.results.records import Record
from dlbench.suites.case import Case
from tests.fakes import records as fakes

#: Range over the median of six cases: 8 % on average, 22 % at most.
PUBLIC_RANGES = (0.22, 0.12, 0.07, 0.04, 0.02, 0.01)
#: The range of 500 normal values in standard deviations.
_RANGE_OF_500 = 6.07


def rows(
    num_nodes: int = 125,
    per_node: int = 4,
    ranges: tuple[float, ...] = PUBLIC_RANGES,
    slow: Mapping[int, float] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """The processes of a fleet as `fleet.read` gives them: each device measures each case once.

    Args:
        ranges: of each case the range of 500 devices over their median.
        slow: of a device by its number how much longer it takes.
    """
    count = num_nodes * per_node
    frames = []
    for number, times in enumerate(step_times(count, ranges, slow, seed)):
        case = Case("resnet50", batch_size=2**number, device="cuda")
        frame = pd.DataFrame({name: [getattr(case, name)] * count for name in SETTING_AXES})
        frames.append(
            frame.assign(
                attempt_id=[f"a{number}-{i}" for i in range(count)], rank=0, world_size=1, local_rank=0, step_s=times,
                started_at=pd.Timestamp("2026-11-20", tz="UTC"), suite="fleet", system_device_kind="cuda",
                system_hostname=[f"n{1 + i // per_node}" for i in range(count)], device_name="NVIDIA H200",
                device_uuid=[f"GPU-{i:05}" for i in range(count)], energy_j=100.0, energy_window_s=1.0,
                energy_scope="device", temperature_max_c=60.0, sm_clock_min_mhz=1900.0, memory_clock_mhz=3200.0,
                system_device_count=per_node, system_driver_version="580.82",
            )
        )  # fmt: skip
    whole = pd.concat(frames, ignore_index=True)
    missing = [name for name in (*_READ_COLUMNS, THREADS_COLUMN) if name not in whole]
    return whole.assign(**{name: pd.Series([None] * len(whole), dtype=object) for name in missing})


def step_times(
    count: int, ranges: tuple[float, ...] = PUBLIC_RANGES, slow: Mapping[int, float] | None = None, seed: int = 0
) -> list[np.ndarray]:
    """The step times [s] of `rows`, an array of all devices for each case."""
    rng = np.random.default_rng(seed)
    factors = np.ones(count)
    for place, factor in (slow or {}).items():
        factors[place] = factor
    return [0.1 * np.exp(rng.normal(0, reach / _RANGE_OF_500, count)) * factors for reach in ranges]


def campaign(num_nodes: int, slow: Mapping[str, float] | None = None, **changes: object) -> list[Record]:
    """Records of two cases on the one device of each node; `slow` names nodes that take so much longer.

    Args:
        changes: of the measurement on slow nodes.
    """
    found = []
    for number in range(num_nodes):
        host = f"n{number + 1}"
        system = dataclasses.replace(fakes.GPU, hostname=host, device_count=1)
        factor = (slow or {}).get(host, 1.0)
        for place, case in enumerate((Case("alexnet", device="cuda"), Case("vgg16", device="cuda"))):
            noise = np.random.default_rng([number, place]).normal(0, 0.003)
            steps = fakes.noisy_steps(0.1 * factor * float(np.exp(noise)), 60, number)
            own = dict(changes) if host in (slow or {}) else {}
            found.append(
                fakes.record(case, system, 10 * number + place, step_s=steps, device_uuid=f"GPU-{host}", **own)
            )
    return found
