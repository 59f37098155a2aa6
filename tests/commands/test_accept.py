"""`dlbench accept` on stores."""

import dataclasses
import json

import numpy as np
import pytest

from dlbench.__main__ import main
from dlbench.suites.case import Case
from tests.fakes import records as fakes

LINE = """
[[line]]
case = {{model = "resnet50", mode = "training"}}
metric = "{metric}"
{bound}
{more}
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Five processes of one case at about 320 img/s, which differ by 0.3 %."""
    root = tmp_path_factory.mktemp("accept")
    noise = np.random.default_rng(0).normal(0, 0.003, 5)
    cases = [Case("resnet50", device="cuda", repeat=i) for i in range(5)]
    records = [
        fakes.record(case, number=i, step_s=fakes.noisy_steps(0.1 * (1 + noise[i]), 60, i))
        for i, case in enumerate(cases)
    ]
    records.append(fakes.record(Case("vgg16", device="cuda"), number=90))
    records.append(fakes.record(Case("vgg16", device="cuda", batch_size=8), number=91))
    records.append(fakes.record(Case("alexnet", device="cuda"), number=92, status="oom"))
    records += [fakes.record(Case("lenet5", device="cuda", repeat=i), number=93 + i) for i in range(3)]
    records.append(fakes.record(Case("lenet5", device="cuda", repeat=3), number=99, status="crashed"))
    return fakes.fill(root / "results", records)


def accept(results, tmp_path, text, *words):
    file = tmp_path / "acceptance.toml"
    file.write_text(text)
    return main(["accept", str(file), str(results), *words])


@pytest.mark.parametrize(
    ("metric", "bound", "more", "status", "verdict"),
    [
        ("throughput", "at_least = 300", "", 0, "passed"),
        ("throughput", "at_least = 340", "", 1, "failed"),
        ("throughput", "at_least = 320", "", 2, "the limit lies inside the confidence interval"),
        ("throughput", "at_least = 340", "tolerance = 0.1", 0, "passed"),
        ("throughput", "at_most = 340", "", 0, "passed"),
        ("throughput", "at_most = 300", "", 1, "failed"),
        ("throughput", "at_least = 300", "repeats = 6", 2, "only 5 of 6 required processes were measured"),
        ("step_time", "at_most = 0.11", "", 0, "passed"),
    ],
)
def test_verdicts_and_exit_statuses(results, tmp_path, capsys, metric, bound, more, status, verdict):
    assert accept(results, tmp_path, LINE.format(metric=metric, bound=bound, more=more)) == status
    assert verdict in capsys.readouterr().out


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ('{model = "vgg11"}', "no record matches"),
        ('{model = "vgg16"}', "several cases match; they differ in batch_size"),
        ('{model = "alexnet"}', "no process has a value of throughput (status: oom)"),
    ],
)
def test_lines_that_match_no_case_or_two_are_not_decided(results, tmp_path, capsys, case, reason):
    assert accept(results, tmp_path, f'[[line]]\ncase = {case}\nmetric = "throughput"\nat_least = 1') == 2
    assert reason in capsys.readouterr().out


def test_two_settings_of_a_cpu_are_two_cases_and_a_line_may_choose_one(tmp_path, capsys):
    cases = [Case("lenet5", repeat=number) for number in range(6)]
    systems = [dataclasses.replace(fakes.CPU, torch_threads=1 + number % 2) for number in range(6)]
    records = [fakes.record(case, system, i) for i, (case, system) in enumerate(zip(cases, systems, strict=True))]
    records.append(fakes.record(Case("lenet5", repeat=6), number=6, status="crashed"))
    store = fakes.fill(tmp_path / "results", records)
    line = '[[line]]\ncase = {{model = "lenet5"{more}}}\nmetric = "throughput"\nat_least = 1'
    assert accept(store, tmp_path, line.format(more="")) == 2
    assert "several cases match; they differ in torch_threads" in capsys.readouterr().out
    assert accept(store, tmp_path, line.format(more=', torch_threads = 2, cpu_model = "AMD EPYC 7B13"')) == 0
    assert " 3 " in capsys.readouterr().out


def test_a_program_gets_value_interval_and_margin_as_numbers(results, tmp_path, capsys):
    case = 'case = {model = "resnet50", batch_size = 32, device_name = "NVIDIA H200"}'
    text = f'[[line]]\n{case}\nmetric = "throughput"\nat_least = 250\ntolerance = 0.2'
    assert accept(results, tmp_path, text, "--format", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["low"] < row["value"] < row["high"]
    assert row["value"] == pytest.approx(320, rel=0.05)
    assert row["margin"] == pytest.approx(row["value"] / 200 - 1)


def test_attempts_without_a_measurement_are_named_in_a_decided_line(results, tmp_path, capsys):
    text = '[[line]]\ncase = {model = "lenet5"}\nmetric = "throughput"\nat_least = 1'
    assert accept(results, tmp_path, text) == 0
    assert "1 more have no measurement (crashed)" in capsys.readouterr().out


def test_one_failure_outweighs_all_else(results, tmp_path, capsys):
    good, bad = (LINE.format(metric="throughput", bound=f"at_least = {v}", more="") for v in (300, 340))
    assert accept(results, tmp_path, good + bad) == 1
    assert "acceptance: 1 passed, 1 failed, 0 not decided" in capsys.readouterr().err


def test_the_page_holds_lines_digests_and_room_to_sign(results, tmp_path, capsys):
    text = 'name = "Lot <2>"\n' + LINE.format(metric="throughput", bound="at_least = 300", more="")
    assert accept(results, tmp_path, text, "-o", str(tmp_path / "page.html")) == 0
    page = (tmp_path / "page.html").read_text()
    assert "Lot &lt;2&gt;" in page
    assert "Signature" in page
    assert page.count("SHA-256") == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[[line]]",
        "line = 3",
        'speed = 3\n[[line]]\ncase = {model = "vgg16"}',
        '[[line]]\ncase = {modle = "vgg16"}\nmetric = "throughput"\nat_least = 1',
        '[[line]]\ncase = {model = "vgg16"}\nmetric = "speed"\nat_least = 1',
        '[[line]]\ncase = {model = "vgg16"}\nmetric = "throughput"',
        '[[line]]\ncase = {model = "vgg16"}\nmetric = "throughput"\nat_least = 1\nat_most = 2',
        '[[line]]\ncase = {model = "vgg16"}\nmetric = "throughput"\nat_least = "fast"',
        '[[line]]\ncase = {model = "vgg16"}\nmetric = "throughput"\nat_least = nan',
        '[[line]]\ncase = {model = "vgg16"}\nmetric = "throughput"\nat_least = 1\ntolerance = 2',
        '[[line]]\ncase = {model = "vgg16"}\nmetric = "throughput"\nat_least = 1\nrepeats = 0',
        '[[line]]\ncase = {model = true}\nmetric = "throughput"\nat_least = 1',
        "[[line",
    ],
)
def test_a_file_that_cannot_be_used_ends_with_2_and_one_line(results, tmp_path, capsys, text):
    assert accept(results, tmp_path, text) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
