"""`dlbench history` on stores, and its chapter in the report."""

import dataclasses
from datetime import timedelta

import numpy as np
import pytest

from dlbench.__main__ import main
from dlbench.report import build
from dlbench.report.analysis import content, history
from dlbench.suites.case import Case
from tests.fakes import records as fakes


def campaign(days, factor, change_at):
    """Three processes a day, with a new driver and other step times from a day on."""
    rng = np.random.default_rng(0)
    found = []
    for day in range(days):
        late = day >= change_at
        system = dataclasses.replace(fakes.GPU, driver_version="590.1" if late else "580.1")
        for process in range(3):
            time_s = 0.1 * (factor if late else 1) * float(np.exp(rng.normal(0, 0.004)))
            steps = fakes.noisy_steps(time_s, 40, 3 * day + process)
            one = fakes.record(Case("alexnet", device="cuda", repeat=process), system, 3 * day + process, step_s=steps)
            begin = fakes._START - timedelta(days=60 - day, minutes=-process)
            found.append(dataclasses.replace(one, started_at=begin.isoformat()))
    return found


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    root = tmp_path_factory.mktemp("history")
    fakes.fill(root / "slower", campaign(40, 1.05, 25))
    fakes.fill(root / "quiet", campaign(40, 1.0, 99))
    fakes.fill(root / "short", campaign(4, 1.0, 99))
    return root


def test_a_regression_is_reported_with_its_driver(stores, tmp_path, capsys):
    assert main(["history", str(stores / "slower"), "--fail-on-change", "--plot", str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert "regression" in output.out
    assert "driver 580.1 -> 590.1" in output.out
    assert "1 time series: 1 change" in output.err
    assert (tmp_path / "history.svg").is_file()


@pytest.mark.parametrize(
    ("store", "words", "status"),
    [
        ("slower", [], 0),
        ("quiet", ["--fail-on-change"], 0),
        ("slower", ["--fail-on-change", "--since", "2026-11-15"], 0),
        ("slower", ["--fail-on-change", "--since", "2026-10-01"], 1),
        ("short", ["--fail-on-change"], 2),
        ("slower", ["--since", "yesterday"], 2),
    ],
)
def test_exit_statuses(stores, store, words, status, capsys):
    assert main(["history", str(stores / store), *words]) == status


def test_the_chapter_s_lines_are_those_of_the_command_for_several_ranks_too(tmp_path):
    records = []
    for number in range(36):
        devices = (1, 4)[number % 2]
        status = "crashed" if number % 7 == 5 else "ok"
        case = Case("alexnet", device="cuda", devices_per_node=devices)
        one = fakes.record(case, number=number, status=status)
        begin = fakes._START - timedelta(days=40 - number // 4, minutes=number)
        if number == 8:  # a rank without steps
            ranks = [(system, dataclasses.replace(m, step_s=m.step_s if m.rank else ())) for system, m in one.ranks]
            one = dataclasses.replace(one, ranks=tuple(ranks))
        records.append(dataclasses.replace(one, started_at=begin.isoformat()))
    fakes.fill(tmp_path / "store", records)
    lines = history.read_history([tmp_path / "store"]).lines
    again = history.history_from_content(content.read_content([tmp_path / "store"])).lines
    assert len(lines) == len(again) == 2
    for one, other in zip(lines, again, strict=True):
        assert (one.name, one.device, one.days, one.processes) == (
            other.name,
            other.device,
            other.days,
            other.processes,
        )
        np.testing.assert_array_equal(one.step_s, other.step_s)


def test_another_number_of_threads_on_a_cpu_is_another_line_and_no_change(tmp_path, capsys):
    records = []
    for number in range(36):
        threads = 1 if number >= 18 else 2
        system = dataclasses.replace(fakes.CPU, torch_threads=threads)
        steps = fakes.noisy_steps(0.2 / threads, 40, number)
        one = fakes.record(Case("alexnet"), system, number, step_s=steps)
        begin = fakes._START - timedelta(days=40 - number)
        records.append(dataclasses.replace(one, started_at=begin.isoformat()))
    fakes.fill(tmp_path / "store", records)
    assert main(["history", str(tmp_path / "store"), "--fail-on-change"]) == 0
    lines = capsys.readouterr().out
    assert "batch 32, 1 thread " in lines
    assert "batch 32, 2 threads " in lines
    again = history.history_from_content(content.read_content([tmp_path / "store"])).lines
    assert [len(line.days) for line in again] == [18, 18]
    assert not any(line.changes for line in again)


def test_the_threads_of_a_host_do_not_divide_the_line_of_its_gpu(tmp_path):
    records = []
    for number in range(4):
        system = dataclasses.replace(fakes.GPU, torch_threads=8 * (1 + number % 2))
        records.append(fakes.record(Case("alexnet", device="cuda", repeat=number), system, number))
    fakes.fill(tmp_path / "store", records)
    for found in (
        history.read_history([tmp_path / "store"]),
        history.history_from_content(content.read_content([tmp_path / "store"])),
    ):
        assert [(line.processes, "thread" in line.name) for line in found.lines] == [(4, False)]


def test_the_report_has_a_chapter_where_there_are_enough_days(stores, tmp_path):
    page = build.write_report(content.read_content([stores / "slower"]), tmp_path / "report").read_text()
    assert 'id="history"' in page
    assert "driver 580.1 -&gt; 590.1" in page
