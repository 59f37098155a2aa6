"""What a person sees of a campaign: the line of each case, and what is said at its end."""

from __future__ import annotations

import dataclasses
import math

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


def test_a_line_says_what_kind_of_warning_and_how_much_of_it():
    warnings = (BUSY, "drift: the median step time changed by -3.4% from ...", "host_bound: at 9 of 10 looks.")
    line = Progress(1).case_line(fakes.record(Case("lenet5"), fakes.CPU, warnings=warnings))
    assert line.endswith("(busy_host 63 %, drift -3.4 %, host_bound)")


def test_a_partial_count_makes_the_rate_a_lower_bound():
    def line(**changes):
        return Progress(1).case_line(fakes.record(Case("lenet5"), fakes.CPU, **changes))

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
    shown = derived_metrics.with_intervals(derived_metrics.attempts_from_rows(rows)).iloc[0]
    found = case_figures(record)
    assert found.median_s == pytest.approx(shown["step_time"]) == pytest.approx(0.01403)
    assert found.throughput == pytest.approx(shown["throughput"]) == pytest.approx(64 / 0.01403)
    assert found.interval.confidence == confidence
    assert found.interval.relative_half_width == pytest.approx(shown["step_time_half_width"])
    assert found.energy_per_image_j == pytest.approx(shown["energy_per_image"])
    assert found.flop_per_s == pytest.approx(shown["flop_rate"])
    if system is fakes.GPU:
        assert found.share_of_peak == pytest.approx(shown["mfu"])
    line = Progress(1).case_line(record)
    assert f"{units.rate(shown['throughput'], 'img/s')} ±{units.percent(shown['step_time_half_width'])}" in line
    assert units.quantity(shown["energy_per_image"], "J/img") in line
    assert units.quantity(shown["flop_rate"], "FLOP/s") in line
    level = {0.5: "at 50 %", 0.99: "at 99 %"}
    assert [words for words in level.values() if words in line] == [w for c, w in level.items() if c == confidence]


def test_a_wide_interval_is_printed_by_the_ends_of_the_throughput_before_it():
    steps = tuple(np.random.default_rng(2).lognormal(math.log(0.1), 1.0, 40).tolist())
    record = fakes.record(Case("lenet5"), fakes.CPU, step_s=steps)
    found = case_figures(record).interval
    assert found.relative_half_width > 0.2
    down, up = (units.digits(100 * abs(found.value / end - 1), 2) for end in (found.high, found.low))
    assert down != up
    assert f" img/s −{down} to +{up} % within one run" in Progress(1).case_line(record)


@pytest.mark.parametrize("bad", [math.nan, 0.0, -1.0, 1e12])
def test_a_rank_with_a_step_that_cannot_be_right_leaves_no_figure(bad):
    record = uneven_ranks(Case("lenet5", devices_per_node=2), fakes.CPU, [TURNS[0], (bad, *TURNS[1][1:])])
    assert case_figures(record) is None
    assert Progress(1).case_line(record).endswith("no samples")
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
    assert Progress(1).case_line(record).endswith("(busy_host 63 %)")


def test_a_campaign_on_a_busy_host_says_so_at_its_end(tmp_path, capsys):
    body = f"import json; d = json.loads(good)\nd['ranks'][0]['measurement']['warnings'] = [{BUSY!r}]\n"
    body += "good = json.dumps(d)\nwrite_good()"
    cases = [Case("lenet5", batch_size=1), Case("lenet5", batch_size=2)]
    folder = ResultsFolder(tmp_path)
    busy = Campaign(tmp_path, "s", 1, "sys", launcher=script(body), folder=folder)
    assert measure.measure_cases(busy, cases, fresh=False) == 0
    said = capsys.readouterr().err
    assert said.count("(busy_host 63 %)") == 2
    assert "busy host in 2 of 2 runs" in said
    quiet = Campaign(tmp_path, "s", 1, "sys", launcher=script("write_good()"), folder=folder)
    assert measure.measure_cases(quiet, cases, fresh=True) == 0
    assert "busy host" not in capsys.readouterr().err
