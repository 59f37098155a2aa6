"""`dlbench fleet` on stores."""

import dataclasses
import json

import pytest

from dlbench.__main__ import main
from dlbench.suites.case import Case
from tests.fakes import fleets
from tests.fakes import records as fakes


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    root = tmp_path_factory.mktemp("fleets")
    fakes.fill(root / "healthy", fleets.campaign(12))
    fakes.fill(root / "slow", fleets.campaign(12, {"n3": 1.1, "n7": 1.2}, throttle_reasons=("hw_thermal_slowdown",)))
    fakes.fill(root / "one", fleets.campaign(1))
    return root


def test_a_healthy_fleet_ends_with_0(stores, capsys):
    assert main(["fleet", str(stores / "healthy")]) == 0
    output = capsys.readouterr()
    assert "12 units: no outlier" in output.err
    assert "Probability of at least one false alarm in this fleet, over 24 tests: 5.0 %." in output.out
    assert "8 % on average, 22 % at most, and outliers 1.5 times slower" in output.out


def test_slow_nodes_are_named_with_reason_and_status_1(stores, capsys):
    assert main(["fleet", str(stores / "slow")]) == 1
    output = capsys.readouterr()
    assert output.err.strip().endswith("12 units: 2 outliers on 2 nodes: n[3,7]")
    assert "throttled because of high temperature" in output.out


def test_the_list_is_for_scontrol(stores, capsys):
    assert main(["fleet", str(stores / "slow"), "--list"]) == 1
    assert capsys.readouterr().out == "n[3,7]\n"


def test_one_node_cannot_be_judged(stores, capsys):
    assert main(["fleet", str(stores / "one")]) == 2
    assert "cannot decide" in capsys.readouterr().err


def test_the_map_is_drawn(stores, tmp_path, capsys):
    main(["fleet", str(stores / "slow"), "--map", str(tmp_path)])
    assert "n3" in (tmp_path / "fleet-map.svg").read_text()


def cpu_fleet(threads):
    """One case on the CPU of each node, twice as fast with two threads as with one."""
    records = []
    for number, count in enumerate(threads):
        system = dataclasses.replace(fakes.CPU, hostname=f"n{number + 1}", torch_threads=count)
        steps = fakes.noisy_steps(0.2 / count * (1 + 0.001 * number), 60, number)
        records.append(fakes.record(Case("alexnet"), system, number, step_s=steps))
    return records


def test_nodes_that_computed_with_other_threads_are_not_compared(tmp_path, capsys):
    fakes.fill(tmp_path / "mixed", cpu_fleet([2] * 14 + [1] * 6))
    assert main(["fleet", str(tmp_path / "mixed")]) == 0
    shown = capsys.readouterr().out
    assert "AlexNet, training, fp32, batch 32, 1 thread " in shown
    assert "AlexNet, training, fp32, batch 32, 2 threads " in shown
    note = (
        "cases with different numbers of threads are not compared (1: n15, n16, n17 and 3 more; 2: n1, n10, n11 and 11"
    )
    assert note in shown
    fakes.fill(tmp_path / "alike", cpu_fleet([2] * 20))
    assert main(["fleet", str(tmp_path / "alike")]) == 0
    assert "threads" not in capsys.readouterr().out


def test_json_holds_the_outliers(stores, capsys):
    main(["fleet", str(stores / "slow"), "--format", "json"])
    outliers, units = json.loads(capsys.readouterr().out)
    assert [row["node"] for row in outliers["rows"]] == ["n7", "n3"]
    assert units["rows"]


@pytest.mark.parametrize(
    "words", [["nowhere"], ["--since", "soon"], ["--false-alarms", "2"], ["--margin", "x"]], ids=lambda w: w[0]
)
def test_bad_input_ends_with_2_and_one_line(stores, words, capsys):
    try:
        status = main(["fleet", *([] if words[0] == "nowhere" else [str(stores / "slow")]), *words])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.filterwarnings("default::dlbench.results.store.SkippedPart")
def test_a_folder_that_is_still_being_written_is_judged_by_what_is_complete(stores, tmp_path, capsys):
    content = (fakes.fill(tmp_path, fleets.campaign(12)) / "merged-fake.parquet").read_bytes()
    (tmp_path / ".merged-other.parquet.host-1-2.tmp").write_bytes(content[:1000])
    (tmp_path / "torn.parquet").write_bytes(content[: len(content) // 2])
    (tmp_path / "attempts" / "20261129T000000-0123456789ab-abcdef").mkdir(parents=True)
    assert main(["fleet", str(tmp_path)]) == 0
    output = capsys.readouterr()
    assert "12 units: no outlier" in output.err
    assert "torn.parquet" in output.err
