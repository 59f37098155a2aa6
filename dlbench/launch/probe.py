"""What the machine offers, asked of a process that may import torch, so that the supervisor need not."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlbench import units
from dlbench.errors import BadInput, DeviceUnavailable, UnknownName
from dlbench.launch import scheduler
from dlbench.launch.processes import die_with_parent, worker_environment
from dlbench.suites.case import Case
from dlbench.suites.catalog import CATALOG


@dataclass(frozen=True)
class Probe:
    """The answer of `python -m dlbench.worker --probe`."""

    device_kind: str  # "cuda" | "cpu"
    system_key: str
    description: str  # as in a report's headline
    device_count: int
    facts: dict[str, Any]

    @property
    def system_keys(self) -> Mapping[str, str]:
        """What a case on each kind of device is measured on; `system_key` is that of `device_kind`."""
        keys: Mapping[str, str] = self.facts.get("system_keys", {})
        return {self.device_kind: self.system_key, **keys}

    @property
    def network_keys(self) -> dict[str, str]:
        """Which network each model's name stands for; "" where the name alone tells. Empty from an older dlbench."""
        keys: dict[str, str] = self.facts.get("network_keys", {})
        return keys

    @property
    def network_files(self) -> dict[str, dict[str, str]]:
        """The files that users' own networks are made of, with their digests."""
        files: dict[str, dict[str, str]] = self.facts.get("network_files", {})
        return files


def probe(
    models: Sequence[str] = (),
    timeout_s: float = 180.0,
    argv: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Probe:
    """Ask for the devices, and whether these models can be built.

    Args:
        models: to look at.
        timeout_s: how long the answer may take [s].
        argv: the whole command to ask with, where the workers run in another place, such as a step's container.
        environment: variables of the workers, over those of this process.

    Raises:
        BadInput: a model that nobody knows, or torch is missing or broken in this Python.
    """
    for name in models:
        if not name.isprintable():
            raise BadInput(f"no model can be named {name!r}: it has characters that no name has")
    argv = list(argv) or [sys.executable, "-m", "dlbench.worker", "--probe", *models]
    try:
        for tries_left in reversed(range(scheduler.STEP_TRIES)):
            done = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
                preexec_fn=die_with_parent,
                env=worker_environment(environment or {}),
            )
            failed = scheduler.step_failure(done.stderr) if done.returncode else None
            if failed is None or not tries_left:
                break
            print(f"Slurm failed the first step: {failed}; waiting for its controller to try again", file=sys.stderr)
            scheduler.wait_for_controller()
        facts = _answer(done.stdout)
    except OSError as error:
        raise BadInput(
            f"cannot measure with {argv[0]}: {error.strerror or error}; the supervisor must run where '{argv[0]}' is, "
            "such as on a job's node outside of its container"
        ) from None
    except subprocess.TimeoutExpired:
        raise BadInput(
            f"the device did not answer within {timeout_s:.0f} s: `{' '.join(argv)}` shows where it hangs"
        ) from None
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode} and no output"])[-1]
        of = f" (asked for {', '.join(models)})" if models else ""
        raise BadInput(f"cannot measure with {argv[0]}: {last}{of}") from None
    for reason in facts["broken_models"].values():
        raise BadInput(reason)
    return Probe(facts["device_kind"], facts["system_key"], _describe(facts), len(facts["devices"]), facts)


def _answer(stdout: str) -> dict[str, Any]:
    """The answer among what the launcher or container of the probe may print before and after it.

    Raises:
        ValueError: there is none.
    """
    for line in reversed(stdout.splitlines()):
        if line.startswith("{"):
            facts = json.loads(line)
            if isinstance(facts, dict) and "system_key" in facts:
                return facts
    raise ValueError("no answer")


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


def require_devices(cases: Sequence[Case], found: Probe) -> None:
    """Stop before the first case when one asks for what is not there.

    Raises:
        DeviceUnavailable: a case asks for CUDA, and there is none.
        BadInput: a case asks for TF32 on a CPU.
    """
    if found.device_kind != "cuda" and any(case.device == "cuda" for case in cases):
        reason = found.facts.get("cuda_error") or "no NVIDIA or AMD GPU is visible to PyTorch"
        raise DeviceUnavailable(f"the suite asks for device 'cuda', but {reason}; take device 'cpu' or 'auto'")
    if any(case.device == "cpu" and case.precision == "tf32" for case in cases):
        raise BadInput("precision 'tf32' needs a GPU; on a CPU take fp32, amp_bf16 or amp_fp16, or exclude these cases")


def _setting(facts: dict[str, Any]) -> str:
    """Cores and threads in words: "2 cores, 1 thread"; threads where they are not as many."""
    cores, threads = facts.get("cpu_cores"), facts.get("job_threads")
    words = f"{cores} cores" if cores is None else units.counted(cores, "core")
    return words if threads in (None, cores) else f"{words}, {units.counted(threads, 'thread')}"


def _describe(facts: dict[str, Any]) -> str:
    names = [device["name"] for device in facts["devices"]]
    if not names:
        found = f"{facts.get('cpu_model') or 'CPU'}, {_setting(facts)}"
        # Else a campaign would measure the CPU of a node whose driver is broken without a word.
        error = facts.get("cuda_error")
        return f"{found} (there is a GPU, but it cannot be used: {error})" if error else found
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
