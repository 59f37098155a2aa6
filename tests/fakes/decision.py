"""A made-up choice between three systems: one is faster in amp_bf16, another in fp32, a third is cheaper.

Known answers: Birch is fastest in amp_bf16 training, Alder in fp32, Alder needs least energy, Cedar costs least, and
amp_bf16 inference is not decided between Alder and Birch. AlexNet alone goes the other way in amp_bf16 training.
"""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import numpy as np

from dlbench.report.analysis.projection import Prices
from dlbench.results.records import Record
from dlbench.suites.case import Case
from tests.fakes import systems

ALDER = dataclasses.replace(systems.H200, hostname="alder-01", device_name="Alder 100", cpu_model="Alder host")
BIRCH = dataclasses.replace(systems.H200, hostname="birch-01", device_name="Birch X", cpu_model="Birch host")
CEDAR = dataclasses.replace(systems.H200, hostname="cedar-01", device_name="Cedar S", cpu_model="Cedar host")
#: Step time over Alder's by mode and precision, and power over Alder's.
_BIRCH = {("training", "amp_bf16"): 0.72, ("training", "fp32"): 1.22, ("inference", "fp32"): 1.15}
_POWER = {"Alder 100": 1.0, "Birch X": 1.6, "Cedar S": 0.75}
PRICES = Prices(
    "EUR", per_kwh=0.25, per_device_hour=2.0, pue=1.2,
    systems={"Cedar": Prices("EUR", 0.25, 0.7, 1.2), "Birch": Prices("EUR", 0.25, 2.9, 1.2)},
)  # fmt: skip


def times(device: str, case: Case) -> float:
    """Step time over that of Alder, with what one process differs from the next by."""
    rng = np.random.default_rng(zlib.crc32(f"{device}{case.id}{case.repeat}".encode()))
    noise = float(np.exp(rng.normal(0, 0.03 if (case.mode, case.precision) == ("inference", "amp_bf16") else 0.005)))
    if device == "Cedar S":
        return 1.7 * noise
    if device == "Birch X":
        slow = case.model == "alexnet" and (case.mode, case.precision) == ("training", "amp_bf16")
        return (1.1 if slow else _BIRCH.get((case.mode, case.precision), 0.995)) * noise
    return noise


def campaigns(repeats: int = 3) -> dict[str, list[Record]]:
    """The records of each system by its name."""
    found: dict[str, list[Record]] = {}
    first = 0
    for name, system in (("Alder", ALDER), ("Birch", BIRCH), ("Cedar", CEDAR)):
        found[name] = systems.campaign(
            system, systems.classic_cases(("alexnet", "vgg16", "googlenet", "resnet50")), repeats=repeats, first=first,
            times=times, power=_POWER[system.device_name or ""],
        )  # fmt: skip
        first += len(found[name])
    return found


def fill(root: Path, repeats: int = 3) -> list[str]:
    """Write the three stores below `root`; gives them as a report takes them."""
    return [f"{name}={systems.store(root / name, records)}" for name, records in campaigns(repeats).items()]
