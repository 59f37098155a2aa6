"""What the machine offers, asked of a process that may import torch, so that the supervisor need not."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dlbench.errors import BadInput, DeviceUnavailable, UnknownName
from dlbench.spec.catalog import CATALOG


@dataclass(frozen=True)
class Probe:
    """The answer of `python -m dlbench.worker --probe`."""

    device_kind: str  # "cuda" | "cpu"
    system_key: str
    description: str  # as in a report's headline
    device_count: int
    facts: dict[str, Any]


def probe(models: Sequence[str] = (), timeout_s: float = 180.0) -> Probe:
    """Ask for the devices, and whether these models can be built.

    Raises:
        BadInput: a model that nobody knows, or torch is missing or broken in this Python.
    """
    argv = [sys.executable, "-m", "dlbench.worker", "--probe", *models]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
        facts = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise BadInput(
            f"the device did not answer within {timeout_s:.0f} s: `{' '.join(argv)}` shows where it hangs"
        ) from None
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise BadInput(f"cannot measure with {sys.executable}: {last}") from None
    for reason in facts["broken_models"].values():
        raise BadInput(reason)
    return Probe(facts["device_kind"], facts["system_key"], _describe(facts), len(facts["devices"]), facts)


def check_models(models: Sequence[str]) -> None:
    """See that these networks exist: the catalogue's at once, others with the help of torch, where it is installed.

    Raises:
        BadInput: somebody knows better.
        UnknownName: a plain name that is not in the catalogue, on a machine without torch.
    """
    others = [name for name in models if name not in CATALOG]
    if others and importlib.util.find_spec("torch"):
        probe(others)
    for name in others:
        if ":" not in name and not importlib.util.find_spec("torch"):
            hint = "Without torch only the catalogue is known; write torchvision:NAME or timm:NAME for theirs."
            raise UnknownName("model", name, CATALOG, hint=hint)


def require_device(kind: str, found: Probe) -> None:
    """Stop before the first case when a device is asked for that is not there.

    Raises:
        DeviceUnavailable: CUDA is asked for and there is none.
    """
    if kind == "cuda" and found.device_kind != "cuda":
        reason = found.facts.get("cuda_error") or "no NVIDIA or AMD GPU is visible to PyTorch"
        raise DeviceUnavailable(f"the suite asks for device 'cuda', but {reason}; take device 'cpu' or 'auto'")


def _describe(facts: dict[str, Any]) -> str:
    names = [device["name"] for device in facts["devices"]]
    if not names:
        return f"{facts.get('cpu_model') or 'CPU'}, {facts.get('cpu_cores')} cores"
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
