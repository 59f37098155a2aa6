"""Resume knows what a case was measured on: on a CPU also cores, threads and the node."""

from __future__ import annotations

from dlbench.campaign import measure
from dlbench.launch.results_folder import ResultsFolder
from dlbench.launch.supervise import Campaign
from dlbench.results import store
from dlbench.suites.case import Case
from tests.fakes.workers import script

CPU, GPU = Case("lenet5"), Case("lenet5", device="cuda")
ONE_THREAD = {"cpu": "one thread", "cuda": "gpu"}
TWO_THREADS = {"cpu": "two threads", "cuda": "gpu"}


def measured(root, keys, cases):
    """The kinds of device and keys of all records, once a campaign with these keys has ended."""
    found = Campaign(root, "s", 1, keys, launcher=script("write_good()"), folder=ResultsFolder(root))
    assert measure.measure_cases(found, cases, fresh=False) == 0
    return sorted(zip(store.load(root)["device"], store.load(root)["system_key"], strict=True))


def test_another_setting_of_the_cpu_is_measured_anew_and_a_gpu_is_not(tmp_path, capsys):
    once = [("cpu", "one thread"), ("cuda", "gpu")]
    assert measured(tmp_path, ONE_THREAD, [CPU, GPU]) == once
    assert measured(tmp_path, ONE_THREAD, [CPU, GPU]) == once
    assert "2 processes already measured" in capsys.readouterr().err
    assert measured(tmp_path, TWO_THREADS, [CPU, GPU]) == sorted([*once, ("cpu", "two threads")])
    said = capsys.readouterr().err
    assert "1 process already measured" in said
    assert "measuring 1 process again: the earlier results are from another system" in said


def test_records_without_a_setting_are_no_results_of_this_one(tmp_path, capsys):
    measured(tmp_path, "a key of an earlier version", [CPU])
    assert len(measured(tmp_path, ONE_THREAD, [CPU])) == 2
    assert "are from another system (for example with other cores, threads or memory)" in capsys.readouterr().err
