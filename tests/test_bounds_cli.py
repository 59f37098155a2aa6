"""`dlbench ceilings` on this machine."""

from __future__ import annotations

import os

from dlbench.__main__ import main
from dlbench.results.bounds_schema import read_ceilings

ARGUMENTS = ["ceilings", "--device", "cpu", "--budget", "0.5s", "--missing", "--results"]


def test_ceilings_that_the_results_hold_are_not_measured_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert main([*ARGUMENTS, str(tmp_path), "--precision", "fp32"]) == 0
    first = read_ceilings(tmp_path)
    assert set(first["precision"].dropna()) == {"fp32"}

    assert main([*ARGUMENTS, str(tmp_path), "--precision", "fp32"]) == 0
    assert "the results hold the ceilings of this system already" in capsys.readouterr().err
    assert len(read_ceilings(tmp_path)) == len(first)

    # Those of another number of threads are no ceilings of this system.
    if len(os.sched_getaffinity(0)) > 1:
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert main([*ARGUMENTS, str(tmp_path), "--precision", "fp32"]) == 0
        assert set(read_ceilings(tmp_path)["torch_threads"]) == {1, 2}
