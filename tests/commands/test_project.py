"""`dlbench project` on made-up stores."""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics

import pytest

from dlbench.commands import project
from dlbench.errors import BadInput, UnknownName
from dlbench.process_statistics import interval_over_processes
from dlbench.report.analysis import derived_metrics
from dlbench.report.analysis.content import read_content
from dlbench.report.analysis.side_by_side import process_values_with_intervals
from dlbench.report.chapters.projection_section import projected_trainings_table
from dlbench.results import store
from dlbench.suites.case import Case
from tests.fakes import records


def run(*arguments):
    parser = argparse.ArgumentParser()
    project.add_parser(parser.add_subparsers())
    options = parser.parse_args(["project", *map(str, arguments)])
    return options.command(options) or 0


@pytest.fixture
def root(tmp_path):
    trainings = [Case("resnet50", batch_size=n, device="cuda") for n in (64, 128)]
    cases = [*trainings, Case("resnet50", "inference", device="cuda"), Case("vgg16", device="cuda")]
    return records.fill(tmp_path / "results", [records.record(c, number=i) for i, c in enumerate(cases)])


def rows_of(capsys):
    found = json.loads(capsys.readouterr().out)
    return found["rows"], " ".join(found["notes"])


def test_each_training_has_time_energy_and_cost_with_limits(root, tmp_path, capsys):
    prices = tmp_path / "prices.toml"
    prices.write_text('currency = "EUR"\nper_kwh = 0.3\nper_device_hour = 2.0\npue = 1.2\n')
    task = ("--images", 1_281_167, "--epochs", 90, "--prices", prices, "--format", "json")
    assert run(root, "--model", "resnet50", *task) == 0
    rows, notes = rows_of(capsys)
    assert [row["batch_size"] for row in rows] == [64, 128]
    for row in rows:
        assert row["time_s"] == pytest.approx(1_281_167 * 90 / row["throughput"])
        for name, unit in (("time", "_s"), ("energy", "_kwh"), ("cost", "")):
            assert row[f"{name}_low{unit}"] <= row[f"{name}{unit}"] <= row[f"{name}_high{unit}"]
        expected = row["time_s"] / 3600 * 2.0 + row["energy_kwh"] * 0.3 * 1.2
        assert row["cost"] == pytest.approx(expected)
    assert "PUE of 1.2" in notes
    assert "Validation" in notes


def test_without_a_meter_there_is_no_energy_and_no_cost_of_it(tmp_path, capsys):
    root = records.fill(tmp_path / "results", [records.record(Case("lenet5"), records.CPU)])
    assert run(root, "--images", 60_000, "--epochs", 10, "--format", "json") == 0
    (row,), _ = rows_of(capsys)
    assert row["energy_kwh"] is None
    assert row["cost"] is None
    assert row["time_s"] > 0


def test_a_meter_that_stood_still_gives_no_energy_and_ends_nothing(tmp_path, capsys):
    record = records.record(Case("lenet5", device="cuda"), energy_j=0.0)
    root = records.fill(tmp_path / "results", [record])
    assert run(root, "--images", 60_000, "--epochs", 10, "--format", "json") == 0
    (row,), _ = rows_of(capsys)
    assert row["energy_kwh"] is None
    table, _ = projected_trainings_table(read_content([root]).shown, {}, None)
    assert "energy_kwh" not in [column.key for column in table.columns]


def test_a_single_sample_has_no_made_up_interval(tmp_path, capsys):
    record = records.record(Case("lenet5"), records.CPU, step_s=(0.01,), window_s=0.01)
    root = records.fill(tmp_path / "results", [record])
    assert run(root, "--images", 60_000, "--epochs", 1, "--format", "json") == 0
    (row,), notes = rows_of(capsys)
    assert (row["time_low_s"], row["time_high_s"]) == (None, None)
    assert "because steps are too few or too uneven: 1 case." in notes


def test_what_makes_a_training_doubtful_stands_beside_its_cost(tmp_path, capsys):
    busy = ("busy_host: other processes took 63% of this process's 2 cores.",)
    made = [
        records.record(Case("lenet5"), records.CPU, 0, "unstable", warnings=busy),
        records.record(Case("alexnet"), records.CPU, 1),
    ]
    root = records.fill(tmp_path / "results", made)
    assert run(root, "--images", 60_000, "--epochs", 1, "--format", "json") == 0
    found, _ = rows_of(capsys)
    assert {row["model"]: row["warnings"] for row in found} == {
        "lenet5": "unstable, busy host (others: 63 % CPU)",
        "alexnet": "",
    }
    table, _ = projected_trainings_table(read_content([root]).shown, {}, None)
    assert [row["warnings"] for row in table.records()] == ["unstable, busy host (others: 63 % CPU)", None]


def test_a_machines_cpu_and_its_gpu_are_two_systems(tmp_path, capsys):
    made = [
        records.record(Case("lenet5", device="cpu"), records.CPU, 0),
        records.record(Case("lenet5", device="cuda"), records.GPU, 1),
    ]
    made = [dataclasses.replace(record, system_key="one machine") for record in made]
    root = records.fill(tmp_path / "results", made)
    assert run(root, "--images", 60_000, "--epochs", 1, "--format", "json") == 0
    found, _ = rows_of(capsys)
    assert sorted(row["system"] for row in found) == ["AMD EPYC 7B13", "NVIDIA H200"]
    assert [row["processes"] for row in found] == [1, 1]


def test_energy_of_uneven_steps_is_that_of_so_many_images(tmp_path, capsys):
    steps = (0.010,) * 30 + (0.030,) * 20
    made = records.record(Case("lenet5", device="cuda"), records.GPU, step_s=steps, energy_j=90.0, energy_window_s=0.9)
    root = records.fill(tmp_path / "results", [made])
    images = 60_000
    assert run(root, "--images", images, "--epochs", 1, "--format", "json") == 0
    (row,), _ = rows_of(capsys)
    of_one = derived_metrics.attempts_from_rows(store.load([root]))["energy_per_image"].iloc[0]
    assert row["energy_kwh"] == pytest.approx(of_one * images / 3.6e6)


def test_an_example_of_prices_can_be_read():
    from pathlib import Path

    from dlbench.report.analysis.projection import read_prices

    assert read_prices(Path(__file__).parents[2] / "benchmarks" / "prices/example.toml").currency


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        (("--model", "resnet51", "--images", 1, "--epochs", 1), UnknownName, "did you mean 'resnet50'"),
        (("--images", 0, "--epochs", 1), BadInput, "number of images is 0"),
        (("--images", 10**400, "--epochs", 1), BadInput, "is above the limit of 1e\\+18"),
        (("--images", 1, "--epochs", "nan"), BadInput, "number of epochs is nan"),
        (("--images", 10**17, "--epochs", 1e300), BadInput, "over 10 billion years"),
        (
            ("--images", 1, "--epochs", 1, "--prices", "/nowhere.toml"),
            BadInput,
            "price list '/nowhere.toml' does not exist",
        ),
    ],
)
def test_bad_input_is_one_line(root, arguments, error, reason):
    with pytest.raises(error, match=reason):
        run(root, *arguments)


def test_inference_alone_is_no_training(tmp_path):
    root = records.fill(tmp_path / "results", [records.record(Case("lenet5", "inference"), records.CPU)])
    with pytest.raises(BadInput, match="no training of lenet5"):
        run(root, "--images", 1, "--epochs", 1)


@pytest.mark.parametrize("step_times_s", [(0.010, 0.020), (0.010, 0.012, 0.020)])
def test_repeats_are_one_row_with_the_interval_over_them(tmp_path, capsys, step_times_s):
    made = [
        records.record(Case("lenet5", repeat=i), records.CPU, number=i, step_s=records.noisy_steps(step_s, 60, i))
        for i, step_s in enumerate(step_times_s)
    ]
    root = records.fill(tmp_path / "results", made)
    assert run(root, "--images", 60_000, "--epochs", 10, "--format", "json") == 0
    (row,), notes = rows_of(capsys)
    assert row["processes"] == len(step_times_s)
    processes = read_content([root]).shown
    table, _ = projected_trainings_table(processes, {}, None)
    (shown,) = table.records()
    for end in ("low", "high"):
        assert shown[f"time_{end}_s"] / shown["time_s"] == pytest.approx(row[f"time_{end}_s"] / row["time_s"])
    if len(step_times_s) == 2:
        median = statistics.median(1 / step_s for step_s in step_times_s)
        expected, tolerance = (0.010 * median, 0.020 * median), 0.02
        words = "for two processes of a case, the range covered by their intervals"
    else:
        interval = interval_over_processes(process_values_with_intervals(processes))
        assert row["throughput"] == pytest.approx(statistics.geometric_mean(processes["throughput"]))
        expected, tolerance = (interval.low / interval.value, interval.high / interval.value), 1e-6
        words = "for more, the interval of the mean"
    assert row["time_low_s"] / row["time_s"] == pytest.approx(expected[0], rel=tolerance)
    assert row["time_high_s"] / row["time_s"] == pytest.approx(expected[1], rel=tolerance)
    assert words in notes


def test_prices_of_a_system_that_nobody_has_are_named(root, tmp_path, capsys):
    prices = tmp_path / "prices.toml"
    prices.write_text('currency = "EUR"\nper_kwh = 0.3\n[systems."NVIDIA H20O"]\nper_kwh = 9\n')
    assert run(root, "--images", 100, "--epochs", 1, "--prices", prices, "--format", "json") == 0
    _, notes = rows_of(capsys)
    assert "prices for NVIDIA H20O, but the results have no system of such a name" in notes
    assert "Systems in the results: NVIDIA H200." in notes


def test_prices_of_a_system_that_measured_no_such_training_are_no_slip(root, tmp_path, capsys):
    other = records.fill(tmp_path / "other", [records.record(Case("lenet5"), records.CPU, number=9)])
    prices = tmp_path / "prices.toml"
    prices.write_text(f'currency = "EUR"\nper_kwh = 0.3\n[systems."{records.CPU.cpu_model}"]\nper_kwh = 9\n')
    task = ("--images", 100, "--epochs", 1, "--prices", prices, "--format", "json")
    assert run(root, other, "--model", "resnet50", *task) == 0
    _, notes = rows_of(capsys)
    assert "no system of such a name" not in notes


def test_two_processes_of_a_single_step_have_no_limits(tmp_path, capsys):
    made = [
        records.record(Case("lenet5", repeat=i), records.CPU, number=i, step_s=(step_s,), window_s=step_s)
        for i, step_s in enumerate((0.01, 0.010005))
    ]
    root = records.fill(tmp_path / "results", made)
    assert run(root, "--images", 60_000, "--epochs", 1, "--format", "json") == 0
    (row,), notes = rows_of(capsys)
    assert row["processes"] == 2
    assert (row["time_low_s"], row["time_high_s"]) == (None, None)
    assert "because steps are too few or too uneven: 1 case." in notes
