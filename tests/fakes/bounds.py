"""Made-up ceilings, all-reduces and a profile beside made-up records: nothing in here was ever measured."""

from __future__ import annotations

from pathlib import Path

from dlbench.results.bounds_records import (
    AllReduce,
    AllReduceRun,
    Ceiling,
    CeilingRun,
    DeviceIdentity,
    LayerTime,
    ProfileRun,
    to_json,
)
from dlbench.results.bounds_schema import write_all_reduces, write_ceilings
from dlbench.results.records import System
from dlbench.suites.case import Case
from tests.fakes import records as fakes

STARTED = "2026-11-20T07:00:00+00:00"


def add(store: Path, system: System = fakes.GPU) -> None:
    """Write one run of each kind, of this system, beside the records of `store`: `c`, `r` and `p`."""
    case = Case("resnet50", batch_size=64, device=system.device_kind)
    key = fakes.record(case, system).system_key or ""
    where = DeviceIdentity(key, system.device_kind, system.device_name, None, system.hostname, system.cpu_model)
    ceilings = (
        Ceiling("matmul", "fp32", "4096 x 4096 x 4096", flop=2 * 4096**3, time_s=(2.5e-3, 2.6e-3)),
        Ceiling("copy", None, "1024 MiB", bytes=2**31, time_s=(5e-4, 6e-4)),
    )
    write_ceilings(store, CeilingRun(where, ceilings, "c", STARTED))
    sizes = tuple(AllReduce(4096 * 4**i, (2e-5 + 4096 * 4**i / 3e11,)) for i in range(8))
    write_all_reduces(store, AllReduceRun(where, 1, 4, "nccl", "NVLink", sizes, run_id="r", started_at=STARTED))
    layers = (
        LayerTime("conv1", "Conv2d", (4e-3,), (8e-3,), 15 * 10**10, 30 * 10**10, 10**8, 2 * 10**8),
        LayerTime("relu", "ReLU", (4e-4,), (5e-4,), forward_elements=10**8, backward_elements=2 * 10**8),
    )
    run = ProfileRun(where, case.to_dict(), layers, {}, 10**8, (0.014,), (0.0142,), run_id="p", started_at=STARTED)
    write_profile(store, run)


def write_profile(store: Path, run: ProfileRun) -> None:
    """Leave a profile where `dlbench profile` does."""
    folder = store / "profiles" / run.run_id
    folder.mkdir(parents=True)
    (folder / "profile.json").write_text(to_json(run), encoding="utf-8")
