"""`dlbench run` with workers that measure nothing: which processes a run adds, and what a later run makes of them."""

import pytest

from dlbench.cli import main
from dlbench.launch import launchers, probe
from dlbench.results import store
from dlbench.suites.case import Case
from tests.fakes import records as fakes
from tests.fakes.workers import script

SUITE = """
name = "fake"
[axes]
model = ["lenet5"]
batch_size = [64]
device = ["cpu"]
[protocol]
processes = 3
min_time_s = 1.0
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    facts = {"devices": [], "precisions": {"cpu": ["fp32"]}, "torch_threads": 2}
    key = fakes.record(Case("lenet5", device="cpu"), fakes.CPU).system_key
    monkeypatch.setattr(probe, "probe_machine", lambda *_, **__: probe.ProbeResult("cpu", key, "a CPU", 0, facts))
    monkeypatch.setattr(launchers, "find_launcher", lambda name: script("write_good()"))
    (tmp_path / "fake.toml").write_text(SUITE)

    def run(*options):
        assert main(["run", str(tmp_path / "fake.toml"), "--results", str(tmp_path / "results"), *options]) == 0
        output = capsys.readouterr()
        numbers = [row["repeat"] for row in store.read_rows(tmp_path / "results").to_pylist()]
        return sorted(numbers), output.out + output.err

    return run


def test_a_resume_counts_the_processes_that_an_earlier_run_added(run):
    # Workers that all give the same figure have no interval over processes: more are added, up to the cap.
    assert run("-P", "protocol.max_processes=5")[0] == [0, 1, 2, 3, 4]
    numbers, said = run("-P", "protocol.max_processes=6")
    assert numbers == [0, 1, 2, 3, 4, 5]
    assert "6 processes" in said
    assert "another run" not in said


def test_a_fresh_run_sums_up_what_it_measured_alone(run):
    run()
    numbers, said = run("--fresh")
    assert numbers == [0, 0, 1, 1, 2, 2]
    assert "3 processes" in said
