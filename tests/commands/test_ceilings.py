"""`dlbench ceilings` on this machine."""

from __future__ import annotations

import math
import os

import pytest
import torch

from dlbench.__main__ import main
from dlbench.commands.ceilings import _unmeasured_precisions
from dlbench.launch.probe import ProbeResult
from dlbench.results.bounds_schema import read_ceilings

ARGUMENTS = ["ceilings", "--device", "cpu", "--budget", "0.5s", "--missing", "--results"]


def test_ceilings_of_a_device_that_is_not_there_are_no_ceilings_that_are_held(tmp_path, monkeypatch, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    arguments = ["ceilings", "--device", "cuda", "--missing", "--results", str(tmp_path)]
    assert main(arguments) == 2
    assert "device 'cuda' was requested" in capsys.readouterr().err


def test_the_ceilings_of_a_cpu_may_be_missing_beside_a_gpu(tmp_path, monkeypatch):
    facts = {"devices": [{"name": "GPU"}], "precisions": {"cpu": ["fp32"], "cuda": ["tf32"]}, "torch_threads": 4}
    monkeypatch.setattr("dlbench.launch.probe.probe_machine", lambda: ProbeResult("cuda", "key", "a GPU", 1, facts))
    assert _unmeasured_precisions(tmp_path, "cpu", None) == ["fp32"]
    assert _unmeasured_precisions(tmp_path, "auto", None) == ["tf32"]


def test_ceilings_that_the_results_hold_are_not_measured_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("dlbench.results.records.BUSY_SHARE", math.inf)  # else a busy host measures them again
    assert main([*ARGUMENTS, str(tmp_path), "--precision", "fp32"]) == 0
    first = read_ceilings(tmp_path)
    assert set(first["precision"].dropna()) == {"fp32"}

    assert main([*ARGUMENTS, str(tmp_path), "--precision", "fp32"]) == 0
    assert "the results already contain the ceilings of this system" in capsys.readouterr().err
    assert len(read_ceilings(tmp_path)) == len(first)

    # Those of another number of threads are no ceilings of this system.
    if len(os.sched_getaffinity(0)) > 1:
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert main([*ARGUMENTS, str(tmp_path), "--precision", "fp32"]) == 0
        assert set(read_ceilings(tmp_path)["torch_threads"]) == {1, 2}
