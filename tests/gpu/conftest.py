"""Checks of a real device. They are collected only by `make test-gpu`; every figure goes into a JSON file, pass or fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

KIND = os.environ.get("DLBENCH_TEST_GPU", "")
OUTPUT = Path(os.environ.get("DLBENCH_TEST_GPU_JSON", "test-gpu.json")).absolute()
ROOT = Path(__file__).parents[2]

if not KIND:
    collect_ignore_glob = ["test_*.py"]


@dataclass(frozen=True)
class Sizes:
    """What fits the device and the time: on a CPU the same code runs, with sizes that end soon."""

    kind: str
    networks: str
    batch_size: int
    precisions: str
    load_s: tuple[float, ...]
    num_stamps: int
    window_s: float


SIZES = {
    "cuda": Sizes("cuda", "lenet5,resnet50_v1_5", 256, "fp32,tf32,amp_bf16,amp_fp16", (2.5, 5.0, 10.0), 20_000, 1.0),
    "cpu": Sizes("cpu", "lenet5", 8, "fp32,amp_bf16", (0.2, 0.4), 20_000, 0.3),
}


@pytest.fixture(scope="session")
def sizes():
    return SIZES[KIND]


@pytest.fixture(autouse=True)
def _needs_its_device(request):
    if request.node.get_closest_marker("gpu") and KIND != "cuda":
        pytest.skip("needs an NVIDIA GPU")


@pytest.fixture
def note(request):
    """Notes figures of a check, which are written even where it fails: note(tick_s=0.1)."""
    figures = {}
    yield figures.update
    _write(request.node.name, {"figures": figures})


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        _write(report.nodeid.rpartition("::")[2], {"outcome": report.outcome, "seconds": round(report.duration, 2)})


def _write(name, facts):
    """Adds to the file at once: a run that is cut off leaves what it has."""
    found = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    found[name] = found.get(name, {}) | facts
    OUTPUT.write_text(json.dumps(found, indent=1) + "\n")


@pytest.fixture
def dlbench(tmp_path):
    """Runs a command of dlbench in a folder of its own; gives what it printed, and fails where its status is another."""

    def run(*words, status=0, timeout_s=240, **options):
        command = [sys.executable, "-m", "dlbench", *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=timeout_s, env=environment, **options
        )
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@pytest.fixture
def measured(dlbench, tmp_path):
    """Measures the cases of some axes and gives the rows of their records (a pandas frame), and the results folder."""

    def run(axes, *options, window_s=0.5, status=0, **protocol):
        protocol = {
            "min_time_s": window_s, "max_time_s": 4 * window_s, "warmup_min_time_s": 0.2, "warmup_max_time_s": 10.0,
            "idle_time_s": 0.2, "min_steps": 5, "target_half_width": 0.2,
        } | protocol  # fmt: skip
        lines = ['name = "acceptance"', "[axes]", *(f"{name} = {json.dumps(value)}" for name, value in axes.items())]
        lines += ["[protocol]", *(f"{name} = {json.dumps(value)}" for name, value in protocol.items())]
        (tmp_path / "acceptance.toml").write_text("\n".join(lines) + "\n")
        results = tmp_path / f"results-{time.monotonic_ns()}"
        dlbench("run", "acceptance.toml", "--results", results, *options, status=status)
        import dlbench as package

        return package.load(results), results

    return run
