"""Devices and versions of the machine, read by a subprocess so that the supervisor does not import torch."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlbench import units
from dlbench.errors import BadInput, DeviceUnavailable, UnknownName
from dlbench.launch import scheduler
from dlbench.launch.processes import die_with_parent, worker_environment
from dlbench.safe_names import short_repr
from dlbench.suites.case import Case
from dlbench.suites.catalog import CATALOG, find_model


@dataclass(frozen=True)
class ProbeResult:
    """Result of `python -m dlbench.worker --probe`."""

    device_kind: str  # cuda | xpu | mps | cpu
    system_key: str
    description: str  # as in a report's headline
    device_count: int
    facts: dict[str, Any]

    @property
    def system_keys(self) -> Mapping[str, str]:
        """System key per kind of device; `system_key` belongs to `device_kind`."""
        return {self.device_kind: self.system_key, **self.facts.get("system_keys", {})}

    @property
    def network_keys(self) -> dict[str, str]:
        """Network key per model name; "" for catalogue networks. Empty from an older dlbench."""
        return dict(self.facts.get("network_keys", {}))

    @property
    def network_files(self) -> dict[str, dict[str, str]]:
        """Source files of user networks, with their digests."""
        return dict(self.facts.get("network_files", {}))


def probe_machine(
    models: Sequence[str] = (),
    timeout_s: float = 180.0,
    argv: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> ProbeResult:
    """Probe the devices, and check that these models can be built.

    Args:
        argv: the probe command, if workers run elsewhere, such as in a step's container.
        environment: environment variables of the workers, added to those of this process.

    Raises:
        BadInput: an unknown model, or torch is missing or broken in this Python.
    """
    for name in models:
        if not name.isprintable():
            raise BadInput(f"invalid model name {name!r}: it contains control characters")
    _check_omp_thread_count({**os.environ, **(environment or {})}.get("OMP_NUM_THREADS", ""))
    argv = list(argv) or [sys.executable, "-m", "dlbench.worker", "--probe", *models]
    around = worker_environment(environment or {})
    try:
        for tries_left in reversed(range(scheduler.STEP_TRIES)):
            done = subprocess.run(
                argv, capture_output=True, errors="replace", timeout=timeout_s, preexec_fn=die_with_parent, env=around
            )
            failed = scheduler.step_failure_message(done.stderr) if done.returncode else None
            if failed is None or not tries_left:
                break
            text = f"Slurm failed to start the first step: {failed}; waiting for Slurm's controller, then trying again"
            print(text, file=sys.stderr)
            scheduler.wait_for_controller()
        facts = _parse_probe_answer(done.stdout)
    except OSError as error:
        raise BadInput(
            f"cannot measure with {argv[0]}: {error.strerror or error}; run dlbench where '{argv[0]}' exists, "
            f"for example on a node of the job outside its container"
        ) from None
    except subprocess.TimeoutExpired:
        raise BadInput(
            f"the device probe did not finish within {timeout_s:.0f} s; run `{' '.join(argv)}` to find the reason"
        ) from None
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode} and no output"])[-1]
        of = f"  (models: {', '.join(models)})" if models else ""
        raise BadInput(f"cannot measure with {argv[0]}: {last}{of}") from None
    for reason in facts["broken_models"].values():
        raise BadInput(reason)
    found = _describe_devices(facts)
    return ProbeResult(facts["device_kind"], facts["system_key"], found, len(facts["devices"]), facts)


def _check_omp_thread_count(text: str) -> None:
    """Refuse what OpenMP would pass over without a word, and measure with other threads than were asked for."""
    if text.strip() and not all(part.strip().isdecimal() and int(part) for part in text.split(",")):
        raise BadInput(
            f"OMP_NUM_THREADS is {short_repr(text)}; it must be a whole number above zero, or "
            "several separated by commas"
        )


def _parse_probe_answer(stdout: str) -> dict[str, Any]:
    """Find the JSON answer in the output, which may hold other lines. Raises ValueError if there is none."""
    for line in reversed(stdout.splitlines()):
        if line.startswith("{"):
            facts = json.loads(line)
            if isinstance(facts, dict) and "system_key" in facts:
                return facts
    raise ValueError("no answer")


def check_networks_exist(models: Sequence[str]) -> None:
    """Check that these networks exist: the catalogue directly, others with torch if it is installed.

    Raises BadInput if the worker rejects one; UnknownName for a plain name not in the catalogue, without torch.
    """
    others = [name for name in models if find_model(name) is None]
    if others and importlib.util.find_spec("torch"):
        probe_machine(others)
    for name in others:
        if ":" not in name and not importlib.util.find_spec("torch"):
            hint = "Without PyTorch, dlbench knows only these names; for others write torchvision:NAME or timm:NAME."
            raise UnknownName("model", name, CATALOG, hint=hint)


def require_devices(cases: Sequence[Case], found: ProbeResult) -> None:
    """Check that the devices of the cases exist. Raises DeviceUnavailable, or BadInput for TF32 on a CPU."""
    for kind in {case.device for case in cases} - {"cpu", "auto", found.device_kind}:
        unseen = "no NVIDIA or AMD GPU" if kind == "cuda" else "no such device"
        reason = found.facts.get("cuda_error") or f"{unseen} is visible to PyTorch"
        raise DeviceUnavailable(
            f"the suite requires device '{kind}', but {reason}; use -P device=cpu or -P device=auto"
        )
    if any(case.device == "cpu" and case.precision == "tf32" for case in cases):
        raise BadInput("precision 'tf32' needs a GPU; on a CPU use fp32, amp_bf16 or amp_fp16, or exclude these cases")


def cases_fitting_on_gpus(cases: Sequence[Case], found: ProbeResult) -> tuple[list[Case], str]:
    """Return the cases that fit on the GPUs of a node here, and a line about those left out; "" if none is.

    If none fits, all are returned: each then gets a record with the reason.
    """
    gpus = found.device_count
    fitting = [case for case in cases if case.device != "cuda" or case.devices_per_node <= gpus]
    left = {case.first_process_id: case.devices_per_node for case in cases if case not in fitting} if gpus else {}
    if not fitting or not left:
        return list(cases), ""
    few, most = min(left.values()), max(left.values())
    needed = f"{units.count_text(len(left), 'case')} with {few if few == most else f'{few} to {most}'} GPUs per node"
    return fitting, f"skipped: {needed}; this node has {units.count_text(gpus, 'GPU')}"


def _describe_devices(facts: dict[str, Any]) -> str:
    """Describe the devices, or the CPU: "EPYC 7B13, 2 cores, 1 thread"; equal numbers are given once."""
    names = [device["name"] for device in facts["devices"]]
    if not names:
        cores, threads = facts.get("cpu_cores"), facts.get("job_threads")
        found = f"{facts.get('cpu_model') or 'CPU'}, "
        found += f"{cores} cores" if cores is None else units.count_text(cores, "core")
        found += "" if threads in (None, cores) else f", {units.count_text(threads, 'thread')}"
        # Otherwise a campaign would silently measure the CPU of a node with a broken driver.
        error = facts.get("cuda_error")
        return f"{found} (a GPU is present but not usable: {error})" if error else found
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
