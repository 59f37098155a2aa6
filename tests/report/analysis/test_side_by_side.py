"""What stands beside what, what is left out and why, who is ahead, and the tables of networks by systems."""

import dataclasses
import math
import re
import statistics

import numpy as np
import pytest

from dlbench.process_statistics import interval_over_processes
from dlbench.report.analysis import ranking
from dlbench.report.analysis.case_warnings import summarize_case_warnings
from dlbench.report.analysis.content import read_content
from dlbench.report.analysis.side_by_side import (
    add_case_numbers,
    find_shared_cases,
    process_values_with_intervals,
    select_median_processes,
    select_representative_cases,
    summarize_processes,
    unshared_cases_table,
)
from dlbench.report.chapters import tables_systems
from dlbench.report.chapters.sections import comparison_section
from dlbench.report.chapters.summary import summary_section
from dlbench.report.chapters.tables import combined_processes_table
from dlbench.suites.case import Case, Protocol
from dlbench.table import cell_texts, csv_table, text_table
from tests.fakes import records as fakes
from tests.fakes import systems as fake

CASES = fake.classic_cases(("alexnet", "vgg16"), (16, 64))


def two(tmp_path, ours=CASES, theirs=CASES, more=(), **options):
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, ours, **options))
    b = fake.store(tmp_path / "b", fake.campaign(fake.A100, theirs, first=500, **options), list(more))
    return read_content([f"H200={a}", f"A100={b}"])


def reasons(content):
    rows = unshared_cases_table(content).records()
    assert all(row["cases"] == 1 for row in rows if row["model"] == "AlexNet")
    return [(row["model"], row["system"], row["reason"]) for row in rows]


def test_cases_that_agree_in_all_but_the_system_stand_side_by_side(tmp_path):
    content = two(tmp_path)
    shared = find_shared_cases(content)
    assert shared.cases["number"].nunique() == len(CASES)
    assert shared.cases.groupby("number")["system_id"].nunique().eq(2).all()
    assert unshared_cases_table(content).rows == []


def test_a_cpu_stands_beside_a_gpu(tmp_path):
    a = fake.store(tmp_path / "a", fakes.quick(fakes.GPU)[:4])
    b = fake.store(tmp_path / "b", fakes.quick(fakes.CPU)[:4])
    assert find_shared_cases(read_content([a, b])).cases["number"].nunique() == 4


def test_what_one_system_alone_has_is_left_out(tmp_path):
    content = two(tmp_path, theirs=CASES[: len(CASES) // 2])
    assert reasons(content) == [("VGG-16", "H200", "measured on no other system")] * 2  # training and inference
    assert [row["cases"] for row in unshared_cases_table(content).records()] == [4, 4]


def test_another_version_protocol_or_layout_is_left_out_with_both_values(tmp_path):
    case = CASES[0]
    versions = two(tmp_path / "1", [case], [], fake.campaign(fake.A100, [case], first=600, suite_version=2))
    assert reasons(versions) == [
        ("AlexNet", "H200", "suite version differs: 1 here and 2 on A100"),
        ("AlexNet", "A100", "suite version differs: 2 here and 1 on H200"),
    ]
    longer = dataclasses.replace(case, protocol=Protocol(min_time_s=9.0))
    protocols = two(tmp_path / "2", [case], [longer])
    assert ("AlexNet", "H200", "protocol differs: min_time_s is 5.0 here and 9.0 on A100") in reasons(protocols)
    layout = dataclasses.replace(case, memory_format="channels_first")
    layouts = two(tmp_path / "3", [case], [layout])
    assert ("AlexNet", "H200", "layout differs: channels_last here and channels_first on A100") in reasons(layouts)


def test_a_protocol_that_differs_in_its_time_limit_alone_is_the_same(tmp_path):
    patient = dataclasses.replace(CASES[0], protocol=Protocol(timeout_s=9000.0))
    assert len(find_shared_cases(two(tmp_path, [CASES[0]], [patient])).cases) == 2


def test_a_failure_elsewhere_is_the_reason_and_stands_in_the_table(tmp_path):
    l40s = fake.store(tmp_path / "c", fake.campaign(fake.L40S, CASES[:1], first=800))
    oom = fakes.record(CASES[0], number=700, status="oom", system_key=None)
    alone = two(tmp_path / "1", [CASES[0]], CASES[1:2], [oom])
    assert ("AlexNet", "H200", "no result on A100: oom") in reasons(alone)
    content = read_content([*alone.sources, l40s])
    shared = find_shared_cases(content)
    table = tables_systems.metric_by_system_table(shared.cases, content.system_names, "throughput", shared.failed)
    assert "oom" not in {c.heading for c in table.columns}
    assert table.records()[0]["system_1"] > 0


def test_failed_there_stands_in_place_of_the_number(tmp_path):
    oom = fakes.record(CASES[0], number=900, status="oom", system_key=None)
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES[:2]))
    b = fake.store(tmp_path / "b", fake.campaign(fake.A100, CASES[:2], first=500))
    c = fake.store(tmp_path / "c", fake.campaign(fake.L40S, CASES[1:2], first=800), [oom])
    content = read_content([f"x={a}", f"y={b}", f"z={c}"])
    shared = find_shared_cases(content)
    rows = tables_systems.metric_by_system_table(
        shared.cases, content.system_names, "throughput", shared.failed
    ).records()
    assert rows[0]["system_3"] == "oom"
    speedups = tables_systems.speedups_table(
        shared.cases, shared.processes, content.system_names, next(iter(content.system_names)), shared.failed
    )
    assert speedups.records()[0]["speedup_2"] == "oom"


def test_repeats_are_processes_of_one_case_with_their_mean_and_interval(tmp_path):
    content = two(tmp_path, CASES[:2], CASES[:2], repeats=5)
    cases = find_shared_cases(content).cases
    assert len(cases) == 4
    assert list(cases["processes"]) == [5] * 4
    mine = content.shown[(content.shown["system_id"] == cases["system_id"].iloc[0])]
    mine = mine[(mine["mode"] == cases["mode"].iloc[0]) & (mine["batch_size"] == cases["batch_size"].iloc[0])]
    assert cases["throughput"].iloc[0] == pytest.approx(statistics.geometric_mean(mine["throughput"]))
    interval = interval_over_processes(process_values_with_intervals(mine))
    work = cases["throughput"].iloc[0] * interval.value
    assert cases["step_time_low"].iloc[0] == pytest.approx(interval.low)
    assert cases["throughput_low"].iloc[0] == pytest.approx(work / interval.high)
    assert cases["throughput_high"].iloc[0] == pytest.approx(work / interval.low)
    assert cases["half_width"].iloc[0] == pytest.approx(interval.relative_half_width)
    assert cases["next_run"].iloc[0] == pytest.approx(interval.relative_prediction_half_width)
    assert cases["next_run"].iloc[0] > cases["half_width"].iloc[0]
    assert cases["memory_allocated_low"].iloc[0] == mine["memory_allocated"].min()


def processes(tmp_path, *steps_s):
    made = [
        fakes.record(Case("resnet50", repeat=i), number=i, step_s=steps, window_s=sum(steps))
        for i, steps in enumerate(steps_s)
    ]
    return read_content([fakes.fill(tmp_path / "store", made)])


@pytest.mark.parametrize("of_windows", ["ok", "unstable"])
@pytest.mark.parametrize(("spread", "status"), [(0.001, "ok"), (0.02, "unstable")])
def test_a_case_is_stable_exactly_where_its_processes_agree_within_the_target_whatever_their_windows_say(
    tmp_path, spread, status, of_windows
):
    case = Case("resnet50", protocol=Protocol(target_half_width=0.01))
    made = [
        fakes.record(
            dataclasses.replace(case, repeat=i), number=i, step_s=(0.1 * (1 + i * spread),) * 3, status=of_windows
        )
        for i in range(3)
    ]
    processes = add_case_numbers(read_content([fakes.fill(tmp_path / "store", made)]).shown)
    cases = summarize_processes(processes)
    (found,) = cases.to_dict("records")
    assert (found["half_width"] <= 0.01, found["status"]) == (status == "ok", status)
    # What is said of the cases says the same.
    assert summarize_case_warnings(processes, cases) == ("" if status == "ok" else "unstable")


def headline(content):
    return next(block for block in summary_section(content).blocks if block.figures).figures[0].note


def test_two_unsure_processes_are_not_sure_because_their_medians_are_near_each_other(tmp_path):
    wide = np.random.default_rng(1).lognormal(0.0, 0.3, 60)
    content = processes(tmp_path, *(tuple((step_s * wide).tolist()) for step_s in (0.1, 0.1001)))
    (case,) = summarize_processes(add_case_numbers(content.shown)).to_dict("records")
    for metric in ("step_time", "throughput", "flop_rate"):
        assert case[f"{metric}_low"] == content.shown[f"{metric}_low"].min() < content.shown[metric].min()
        assert case[f"{metric}_high"] == content.shown[f"{metric}_high"].max() > content.shown[metric].max()
    said = re.match(r"±(\S+) % over 2 processes", headline(content))
    assert float(said[1]) > 4


def test_the_medians_of_two_processes_alone_are_no_interval_and_those_of_three_are(tmp_path):
    two = processes(tmp_path / "2", (0.1,), (0.10005,))
    (case,) = summarize_processes(add_case_numbers(two.shown)).to_dict("records")
    assert case["processes"] == 2
    assert math.isnan(case["throughput_low"])
    assert math.isnan(case["step_time_high"])
    # What never has an interval of its own has its range.
    assert case["memory_allocated_low"] == two.shown["memory_allocated"].min()
    assert "±" not in headline(two)
    three = processes(tmp_path / "3", (0.1,), (0.11,), (0.12,))
    (case,) = summarize_processes(add_case_numbers(three.shown)).to_dict("records")
    assert case["step_time"] == pytest.approx((0.1 * 0.11 * 0.12) ** (1 / 3))
    assert case["step_time_low"] < 0.1 < 0.12 < case["step_time_high"]
    # Symmetric in logarithms: 1/1.57 to 1.57.
    assert headline(three).startswith("−36 to +57 % over 3 processes")


def test_wide_intervals_stand_in_every_table_by_their_ends_and_in_csv_as_a_number(tmp_path):
    content = processes(tmp_path / "3", (0.1,), (0.11,), (0.12,))
    tables = [
        block.table for make in (summary_section, comparison_section) for block in make(content).blocks if block.table
    ]
    texts = [cell for table in tables for row in cell_texts(table) for cell in row]
    assert texts.count("−36 to +57 %") == 2  # of each network, over processes
    assert texts.count("−36 to +57") == 1  # all cases
    assert texts.count("−49 to +97 %") == 1  # one more run
    width = float(tables[-1].records()[0]["step_time_half_width"])
    assert 0.4 < width < 0.5
    assert f",{width!r}," in csv_table(tables[-1])
    words = summary_section(content).blocks[0].words
    assert "1 of 1 case has a confidence interval (95 %, over processes): −36 to +57 %." in words


def test_processes_that_fall_into_two_groups_are_shown_as_such(tmp_path):
    content = processes(tmp_path, *(fakes.noisy_steps(step_s, 60, i) for i, step_s in enumerate((0.1, 0.1, 0.2, 0.2))))
    (case,) = summarize_processes(add_case_numbers(content.shown)).to_dict("records")
    assert case["groups"].startswith("2 processes at 100")
    assert "and 2 at 200" in case["groups"]
    table = combined_processes_table(content.shown, content.system_names)
    assert table.columns[-1].title == "Two groups"


def test_a_table_over_processes_keeps_single_runs_apart(tmp_path):
    several = [fakes.record(Case("vgg16", repeat=i), number=i, step_s=(0.5 + i / 100,) * 30) for i in range(3)]
    one = [fakes.record(Case("lenet5"), number=9, step_s=fakes.noisy_steps(0.1, 60, 1))]
    content = read_content([fakes.fill(tmp_path / "store", several + one)])
    records = {row["model"]: row for row in combined_processes_table(content.shown, content.system_names).records()}
    assert records["VGG-16"]["half_width"] > 0
    assert records["VGG-16"]["next_run"] > records["VGG-16"]["half_width"]
    assert records["LeNet-5"]["half_width"] is None
    assert records["LeNet-5"]["within"] > 0
    assert (
        combined_processes_table(read_content([fakes.fill(tmp_path / "one", one)]).shown, content.system_names) is None
    )


def test_a_process_without_an_interval_counts_with_its_median(tmp_path):
    content = processes(tmp_path, fakes.noisy_steps(0.1, 60, 1), (0.2,))
    (case,) = summarize_processes(add_case_numbers(content.shown)).to_dict("records")
    assert case["step_time_low"] == content.shown["step_time_low"].min()
    assert case["step_time_high"] == 0.2


@pytest.mark.parametrize(("count", "place"), [(1, 0), (4, 1), (5, 2)])
def test_the_process_in_the_middle_stands_for_samples_that_have_no_median(tmp_path, count, place):
    times = (0.013, 0.010, 0.012, 0.014, 0.011)[:count]
    made = [fakes.record(Case("lenet5", repeat=i), number=i, step_s=(t,) * 30) for i, t in enumerate(times)]
    made += [fakes.record(Case("vgg16"), number=9, step_s=(0.5,) * 30)]
    shown = read_content([fakes.fill(tmp_path / "store", made)]).shown
    found = select_median_processes(shown).set_index("model")["step_time"]
    assert dict(found) == {"lenet5": sorted(times)[place], "vgg16": 0.5}
    assert set(select_median_processes(shown)["attempt_id"]) <= set(shown["attempt_id"])


def test_of_each_network_and_mode_the_setting_of_most_systems_and_then_the_fastest_stands_for_it(tmp_path):
    faster = Case("alexnet", "training", "amp_bf16", "channels_last", 512, "cuda")
    cases = select_representative_cases(find_shared_cases(two(tmp_path, [*CASES, faster], CASES)).cases)
    assert list(cases.drop_duplicates("number")["model"]) == ["alexnet", "alexnet", "vgg16", "vgg16"]
    assert set(cases["precision"]) == {"amp_bf16"}
    assert set(cases["batch_size"]) == {64}


def test_several_processes_on_each_side_make_a_winner_with_an_interval(tmp_path):
    standings = ranking.find_case_winners(find_shared_cases(two(tmp_path, repeats=5)).processes, "throughput")
    assert {s.outcome for s in standings} == {ranking.BETTER}
    for s in standings:
        assert s.low < s.ratio < s.high
        assert s.low > 1
        assert s.lead_with_interval.startswith("+")


def test_one_process_on_each_side_makes_no_winner(tmp_path):
    content = two(tmp_path)
    standings = ranking.find_case_winners(find_shared_cases(content).processes, "throughput")
    assert {s.outcome for s in standings} == {ranking.NOT_DECIDED}
    assert {(s.low, s.high) for s in standings} == {(None, None)}


@pytest.mark.parametrize("repeats", [1, 5])
def test_neither_of_two_of_one_kind_is_ahead(tmp_path, repeats):
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES, ("x",), repeats))
    b = fake.store(tmp_path / "b", fake.campaign(fake.H200, CASES, ("y",), repeats, first=500))
    standings = ranking.find_case_winners(find_shared_cases(read_content([f"a={a}", f"b={b}"])).processes, "throughput")
    assert len(standings) == len(CASES)
    outcomes = [s.outcome for s in standings]
    # Corrected for their number, so that even one false winner among them is rare; a question mark is not.
    assert ranking.BETTER not in outcomes
    assert outcomes.count(ranking.SAME) + outcomes.count(ranking.NOT_DECIDED) >= len(CASES) - 2
    for s in standings:
        assert (s.outcome == ranking.SAME) <= (abs(s.ratio - 1) < 0.02)


def test_less_is_better_for_energy_and_memory(tmp_path):
    processes = find_shared_cases(two(tmp_path, repeats=3)).processes
    for metric in ("energy_per_image", "memory_allocated"):
        for s in ranking.find_case_winners(processes, metric):
            assert s.value <= s.runner_up_value
    same_memory = ranking.find_case_winners(processes, "memory_allocated")
    assert {s.outcome for s in same_memory} == {ranking.SAME}


def test_energies_of_different_scopes_are_not_ranked(tmp_path):
    node = [
        dataclasses.replace(r, ranks=tuple((s, dataclasses.replace(m, energy_scope="node")) for s, m in r.ranks))
        for r in fake.campaign(fake.A100, CASES, first=500)
    ]
    content = two(tmp_path, CASES, [], node)
    assert ranking.find_case_winners(find_shared_cases(content).processes, "energy_per_image") == []
    assert len(ranking.find_case_winners(find_shared_cases(content).processes, "throughput")) == len(CASES)


def test_speedups_have_their_absolute_base_and_no_mean(tmp_path):
    content = two(tmp_path, repeats=3)
    shared, names = find_shared_cases(content), content.system_names
    table = tables_systems.speedups_table(shared.cases, shared.processes, names, next(iter(names)), {})
    assert len(table.rows) == len(CASES)
    for row in table.records():
        low, _, high = row["interval_1"].partition(" to ")
        assert float(low) <= row["speedup_1"] <= float(high)
        assert row["speedup_1"] == pytest.approx(1 / 2.1, rel=0.05)
        assert row["base"] > 0
    assert any("no mean over cases" in note for note in table.notes)


def test_without_repeats_a_speedup_has_no_interval_and_the_note_says_why(tmp_path):
    content = two(tmp_path)
    shared, names = find_shared_cases(content), content.system_names
    table = tables_systems.speedups_table(shared.cases, shared.processes, names, next(iter(names)), {})
    assert "interval_1" not in {c.key for c in table.columns}
    assert any("fewer than three processes" in note for note in table.notes)


def test_tables_over_systems_print_in_every_form(tmp_path):
    content = two(tmp_path)
    shared = find_shared_cases(content)
    for metric in ranking.ranking_metrics(shared.processes):
        table = tables_systems.metric_by_system_table(shared.cases, content.system_names, metric, shared.failed)
        assert "H200" in text_table(table)
        if metric != "share_of_measured_peak":
            assert len(csv_table(table).splitlines()) == len(CASES) + 1


def test_a_single_system_shares_nothing(tmp_path):
    content = read_content([fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES))])
    assert find_shared_cases(content).cases.empty
    assert [cell for row in unshared_cases_table(content).rows for cell in row[-1:]] == [
        "measured on no other system"
    ] * 4


def test_small_ratios_keep_their_digits_in_the_table_of_speedups(tmp_path):
    case = CASES[:1]
    fast = fake.store(tmp_path / "a", fake.campaign(fake.H200, case, repeats=3))
    slow = fake.store(tmp_path / "b", fake.campaign(fake.A100, case, repeats=3, first=500, slow=lambda host: 80.0))
    content = read_content([f"H200={fast}", f"A100={slow}"])
    shared, names = find_shared_cases(content), content.system_names
    base = content.baseline_id(names)
    table = tables_systems.speedups_table(shared.cases, shared.processes, names, base, shared.failed)
    (row,) = cell_texts(table)
    # 1 / (2.1 · 80) = 0.00595; "0.01" and "0.01 to 0.01" would say nothing.
    assert re.fullmatch(r"0\.00\d{3}", row[-2])
    assert re.fullmatch(r"0\.00\d{3} to 0\.00\d{3}", row[-1])
