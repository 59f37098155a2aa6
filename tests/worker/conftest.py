"""A case in a folder, a worker in a process of its own, and a fake NVML for both sides."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dlbench.results.records import Outcome
from dlbench.suites import worker_request as requests
from dlbench.suites.case import Case, Protocol

FAKES = Path(__file__).parent.parent / "fakes"
NETWORKS = Path(__file__).parent / "networks"
#: Long enough to go through every part, too short for a number.
TINY = Protocol(
    warmup_min_steps=2, warmup_min_time_s=0.0, warmup_max_time_s=0.5, min_time_s=0.1, min_steps=5, max_time_s=0.3
)


def worker_environment() -> dict[str, str]:
    """One thread: two that wait for each other on cores that others use too are a hundred times slower."""
    paths = [str(NETWORKS), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


def start_worker(folder: Path, case: Case, **options: object) -> subprocess.Popen[str]:
    requests.write_request(folder, requests.measure_request(case))
    command = [sys.executable, "-m", "dlbench.worker", str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=worker_environment(), **pipes, **options)


def run_worker(folder: Path, case: Case, **options: object) -> tuple[int, Outcome, str]:
    """Exit status, outcome and stderr of a worker that measured `case`."""
    with start_worker(folder, case, **options) as process:
        _, stderr = process.communicate(timeout=120)
    return process.returncode, Outcome.from_json((folder / "result.json").read_text()), stderr


@pytest.fixture
def fake_nvml(tmp_path, monkeypatch):
    """Puts the stand-in under this process and the sampler's; call it with the devices there are."""
    spec = importlib.util.spec_from_file_location("fake_pynvml", FAKES / "nvml" / "pynvml.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("nvml", "energy"):
        monkeypatch.setattr(f"dlbench.worker.meters.{name}.pynvml", module)
    monkeypatch.setenv("PYTHONPATH", str(FAKES / "nvml"))
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "nvml.json"))

    def install(*devices):
        (tmp_path / "nvml.json").write_text(json.dumps(devices))
        return module

    return install
