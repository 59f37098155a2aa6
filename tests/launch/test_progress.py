"""What a person sees of a campaign: the line of each case, and what is said at its end."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import io
import math
import os
import pty
import re
import select
import struct
import termios

import numpy as np
import pytest

from dlbench import units
from dlbench.campaign import measure
from dlbench.launch.progress import Progress
from dlbench.launch.results_folder import ResultsFolder
from dlbench.launch.supervise import Campaign
from dlbench.report.analysis import derived_metrics
from dlbench.results.case_figures import average_power, case_figures
from dlbench.results.schema import to_table
from dlbench.suites.case import Case, Protocol
from tests.fakes import records as fakes
from tests.fakes.workers import script

BUSY = "busy_host: other processes took 63% of this process's 2 cores."


def line_of(record, total=1, **options):
    stream = io.StringIO()
    Progress(total, stream=stream, **options).print_finished_case(record)
    return stream.getvalue().rstrip("\n")


def test_a_line_says_what_kind_of_warning_and_how_much_of_it():
    warnings = (BUSY, "drift: the median step time changed by -3.4% from ...", "host_bound: at 9 of 10 looks.")
    line = line_of(fakes.record(Case("lenet5"), fakes.CPU, warnings=warnings))
    assert line.endswith("(busy_host 63 %, drift -3.4 %, host_bound)")


def test_a_partial_count_makes_the_rate_a_lower_bound():
    def line(**changes):
        return line_of(fakes.record(Case("lenet5"), fakes.CPU, **changes))

    partial = line(flop_partial="_fft_r2c", warnings=("flop_partial: not counted: _fft_r2c; the FLOP are ...",))
    assert " ≥ " in partial
    assert partial.endswith("(flop_partial)")
    assert "≥" not in line()
    assert "FLOP/s" not in line(forward_flop=None, backward_flop=None)


def test_ranks_that_share_a_meter_count_it_once():
    case = Case("lenet5", devices_per_node=2)
    shared = fakes.record(case, fakes.CPU, energy_scope="package", energy_source="rapl", energy_j=100.0)
    own = fakes.record(case, fakes.CPU, energy_scope="device", energy_source="nvml_counter", energy_j=100.0)
    of_rank = [100.0 / m.window_s for _, m in own.ranks]
    powers = [average_power(record.ranks) for record in (shared, own)]
    assert powers == pytest.approx([of_rank[0], sum(of_rank)])
    unknown = fakes.record(case, fakes.CPU, energy_j=None)
    assert average_power(unknown.ranks) is None


def uneven_ranks(case, system, steps, **changes):
    """A record whose ranks took these steps [s], each with its own window and energy."""
    made = fakes.record(case, system, **changes)
    ranks = [
        (s, dataclasses.replace(m, step_s=own, window_s=sum(own) * 1.01, energy_window_s=sum(own), energy_j=90.0 + i))
        for i, ((s, m), own) in enumerate(zip(made.ranks, steps, strict=True))
    ]
    return dataclasses.replace(made, ranks=tuple(ranks))


#: Each rank is the slower one in turns, so that the slowest steps are those of none of them.
TURNS = [tuple(0.010 + 0.004 * ((i + rank) % 2) + 1e-5 * (i % 7) for i in range(60)) for rank in range(2)]


@pytest.mark.parametrize("mode", ["training", "inference"])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
@pytest.mark.parametrize(("system", "scope"), [(fakes.CPU, "package"), (fakes.GPU, "device")])
def test_the_line_and_the_report_give_one_figure_of_a_case_with_several_ranks(mode, confidence, system, scope):
    protocol = Protocol(confidence=confidence)
    case = Case("lenet5", mode, device=system.device_kind, devices_per_node=2, protocol=protocol)
    steps = [TURNS[0], (*TURNS[1], 0.5)]  # the last step of one rank has no counterpart
    record = uneven_ranks(case, system, steps, energy_scope=scope, energy_source="x")
    rows = to_table([record]).to_pandas()
    shown = derived_metrics.add_metric_intervals(derived_metrics.attempts_from_rows(rows)).iloc[0]
    found = case_figures(record)
    assert found.median_s == pytest.approx(shown["step_time"]) == pytest.approx(0.01403)
    assert found.throughput == pytest.approx(shown["throughput"]) == pytest.approx(64 / 0.01403)
    assert found.interval.confidence == confidence
    assert found.interval.relative_half_width == pytest.approx(shown["step_time_half_width"])
    assert found.energy_per_image_j == pytest.approx(shown["energy_per_image"])
    assert found.flop_per_s == pytest.approx(shown["flop_rate"])
    if system is fakes.GPU:
        assert found.share_of_peak == pytest.approx(shown["mfu"])
    line = line_of(record)
    assert (
        f"{units.rate_text(shown['throughput'], 'img/s')} ±{units.percent_text(shown['step_time_half_width'])}" in line
    )
    assert units.quantity_text(shown["energy_per_image"], "J/img") in line
    assert units.quantity_text(shown["flop_rate"], "FLOP/s") in line
    level = {0.5: "at 50 %", 0.99: "at 99 %"}
    assert [words for words in level.values() if words in line] == [w for c, w in level.items() if c == confidence]


def test_a_wide_interval_is_printed_by_the_ends_of_the_throughput_before_it():
    steps = tuple(np.random.default_rng(2).lognormal(math.log(0.1), 1.0, 40).tolist())
    record = fakes.record(Case("lenet5"), fakes.CPU, step_s=steps)
    found = case_figures(record).interval
    assert found.relative_half_width > 0.2
    down, up = (units.number_text(100 * abs(found.value / end - 1), 2) for end in (found.high, found.low))
    assert down != up
    assert f" img/s −{down} to +{up} % within one run" in line_of(record)


@pytest.mark.parametrize("bad", [math.nan, 0.0, -1.0, 1e12])
def test_a_rank_with_a_step_that_cannot_be_right_leaves_no_figure(bad):
    record = uneven_ranks(Case("lenet5", devices_per_node=2), fakes.CPU, [TURNS[0], (bad, *TURNS[1][1:])])
    assert case_figures(record) is None
    assert line_of(record).endswith("no samples")
    assert derived_metrics.attempts_from_rows(to_table([record]).to_pandas())["throughput"].isna().all()


def test_a_warning_of_any_rank_stands_in_the_line_once():
    record = fakes.record(Case("lenet5", devices_per_node=2), fakes.CPU, warnings=(BUSY,))
    (_, first), (system, second) = record.ranks
    record = dataclasses.replace(
        record,
        ranks=(
            (system, dataclasses.replace(first, warnings=())),
            (system, dataclasses.replace(second, warnings=(BUSY, BUSY))),
        ),
    )
    assert line_of(record).endswith("(busy_host 63 %)")


def test_a_campaign_on_a_busy_host_says_so_at_its_end(tmp_path, capsys):
    body = f"import json; d = json.loads(good)\nd['ranks'][0]['measurement']['warnings'] = [{BUSY!r}]\n"
    body += "good = json.dumps(d)\nwrite_good()"
    cases = [Case("lenet5", batch_size=1), Case("lenet5", batch_size=2)]
    folder = ResultsFolder(tmp_path)
    busy = Campaign(tmp_path, "s", 1, "sys", launcher=script(body), folder=folder)
    assert measure.measure_cases(busy, cases, fresh=False) == 0
    said = capsys.readouterr().err
    assert said.count("(busy_host 63 %)") == 2
    assert "busy host: other work used the CPU during 2 of 2 processes" in said
    quiet = Campaign(tmp_path, "s", 1, "sys", launcher=script("write_good()"), folder=folder)
    assert measure.measure_cases(quiet, cases, fresh=True) == 0
    assert "busy host" not in capsys.readouterr().err


@contextlib.contextmanager
def terminal(columns):
    """A real terminal: a stream to write to, and a function that returns the lines that it shows."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def shown():
        stream.flush()
        data = b""
        while select.select([reader], [], [], 0.2)[0]:
            data += os.read(reader, 65536)
        text = re.sub(r"\x1b\[[0-9?;]*[A-JL-Za-z]|\r\n", lambda code: "\n" * code.group().endswith("\n"), data.decode())
        return [line for line in re.split(r"\n|(?:\r?\x1b\[2K)+", text.replace("\r", "")) if line]

    with os.fdopen(writer, "w") as stream:
        yield stream, shown
    os.close(reader)


def long_records():
    """Two networks, each with every figure and several warnings, of two processes; one crashed."""
    cases = [Case(m, device="cuda", memory_format="channels_last", repeat=r) for r in (0, 1) for m in ("vgg16", "mlp")]
    records = [fakes.record(case, fakes.GPU, warnings=(BUSY, "host_bound: 9 of 10 looks.")) for case in cases]
    error = "RuntimeError: the network's output has 10 classes, but the labels name 1000; set num_classes in the suite"
    records[-1] = dataclasses.replace(records[-1], status="crashed", error=error)
    return cases, records


@pytest.mark.parametrize("columns", [64, 80, 120])
def test_on_a_terminal_no_line_is_wider_than_it_and_nothing_is_lost(columns, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    cases, records = long_records()
    with terminal(columns) as (stream, shown):
        progress = Progress(len(cases), cases, stream)
        for record in records:
            progress.print_finished_case(record)
        progress.print_case_summary(cases[0], ["2 processes", "812 img/s ±0.4 %, one more run ±0.9 %"])
        lines = shown()
    assert lines[0] == "all cases: fp32, 32 x 1 GPU, channels_last; ± within one run"
    assert max(map(len, lines)) <= columns
    assert not any("channels_last" in line or "within one run" in line for line in lines[1:])
    text = " ".join(" ".join(lines[1:]).split())
    for number, record in enumerate(records):
        log = line_of(record, len(cases), cases=cases, number=number)
        for words in ("fp32", "32 x 1 GPU", "channels_last", "within one run"):
            log = log.replace(words, "")
        assert " ".join(log.split()) in text
    assert text.endswith("vgg16 training 2 processes 812 img/s ±0.4 %, one more run ±0.9 %")


def test_a_log_gets_each_line_in_full():
    cases, records = long_records()
    stream = io.StringIO()
    progress = Progress(len(cases), cases, stream)
    for record in records:
        progress.print_finished_case(record)
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(cases)
    assert all("fp32         32 x 1 GPU  channels_last" in line for line in lines)
    assert all("within one run" in line for line in lines[:-1])


def test_the_live_line_takes_one_line_of_a_terminal(monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)
    case = Case("a_network_with_a_long_name", compile="max-autotune-no-cudagraphs", repeat=2)
    with terminal(80) as (stream, shown):
        progress = Progress(2, [case, Case("lenet5")], stream)
        progress.show_running_case(case, 3.0, "window")
        lines = shown()
        progress.close()
    frames = [line for line in lines if " left " in line]
    assert frames == lines[1:]
    assert " 0/2 0:00:0" in frames[-1]
    assert "window 3 s: a_network_with_a_long_name" in frames[-1]
    assert max(map(len, lines)) <= 80


def test_a_figure_without_interval_is_explained_at_the_end():
    progress = Progress(4, stream=io.StringIO())
    case = Case("lenet5")
    alike = tuple(0.01 + 0.0001 * i for i in range(30))  # steps get slower all the time
    for steps in (TURNS[0][:19], alike, TURNS[0]):
        progress.print_finished_case(uneven_ranks(case, fakes.CPU, [steps]))
        line = progress.stream.getvalue().splitlines()[-1]
        assert ("no ±" in line) == (steps is not TURNS[0])
    assert progress.describe_missing_intervals() == [
        "no confidence interval (±) in 1 of 3 processes: fewer than 20 steps",
        "no confidence interval (±) in 1 of 3 processes: step times drifted during the window",
    ]


def test_a_campaign_whose_runs_have_few_steps_says_what_to_change(tmp_path, capsys):
    body = "import json; d = json.loads(good)\nm = d['ranks'][0]['measurement']\nm['step_s'] = m['step_s'][:9]\n"
    campaign = Campaign(
        tmp_path,
        "s",
        1,
        "sys",
        launcher=script(body + "good = json.dumps(d)\nwrite_good()"),
        folder=ResultsFolder(tmp_path),
    )
    assert measure.measure_cases(campaign, [Case("lenet5")], fresh=False) == 0
    said = capsys.readouterr().err
    assert "no confidence interval (±) in 1 of 1 process: fewer than 20 steps; raise protocol.max_time_s" in said
