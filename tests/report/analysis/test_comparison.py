import dataclasses
import json

import pytest

from dlbench.errors import BadInput, UnknownName
from dlbench.report.analysis.comparison import compare_ab_sides, find_regressions, why_regression_undecided
from dlbench.report.analysis.comparison_matching import ComparisonRules, select_attempts_of_sides
from dlbench.report.chapters.comparison_tables import comparison_tables, summary_line
from dlbench.results import store
from dlbench.results.schema import to_table
from dlbench.suites.case import Case, Protocol
from dlbench.table import FORMATS, format_tables
from tests.fakes import records as fake
from tests.report.comparing import compare_stores

#: What processes of one case differ by, as a factor of the median: a standard deviation of 0.2 %.
SPREAD = (1.0, 1.002, 0.998, 1.001, 0.999)


def rows(*made):
    """The rows of the records, as `dlbench.load` gives them."""
    return to_table([record for group in made for record in group]).to_pandas()


def processes(case, factor=1.0, count=4, system=fake.CPU, side="a", **changes):
    """Records of fresh processes of one case, with medians around 10 ms times `factor`."""
    made = []
    for repeat in range(count):
        one = dataclasses.replace(case, repeat=repeat)
        steps = fake.noisy_steps(0.010 * factor * SPREAD[repeat % len(SPREAD)], 60, repeat)
        name = f"{side}-{one.id}-{repeat}"
        made.append(fake.record(one, system, repeat, **{"attempt_id": name, "step_s": steps} | changes))
    return made


CASE = Case("lenet5", batch_size=8)
OTHER = Case("alexnet", batch_size=8)


def lines_of(base, target, **rules):
    return compare_stores(rows(*base), rows(*target), ComparisonRules(**rules)).lines


def note_of(found):
    """The last cell of the first case."""
    return comparison_tables(found)[1].rows[0][-1]


def test_repeats_are_processes_of_one_case_and_the_ratio_is_that_of_target_over_base():
    (line,) = lines_of([processes(CASE)], [processes(CASE, 1.05, side="b")])
    assert line.verdict == "slower"
    assert line.comparison.ratio == pytest.approx(1.05, rel=1e-3)
    assert line.comparison.low < 1.05 < line.comparison.high
    assert (line.comparison.num_processes_a, line.comparison.num_processes_b) == (4, 4)
    assert line.base == pytest.approx(0.010, rel=5e-3)
    assert line.comparison.chance_b_slower == 1.0


def test_faster_same_and_slower_are_told_apart_and_counted():
    third = Case("vgg16", batch_size=8)
    base = [processes(c) for c in (CASE, OTHER, third)]
    target = [processes(CASE, 0.9, side="b"), processes(OTHER, side="b"), processes(third, 1.1, side="b")]
    found = compare_stores(rows(*base), rows(*target))
    assert {line.setting["model"]: line.verdict for line in found.lines} == {
        "lenet5": "faster",
        "alexnet": "same",
        "vgg16": "slower",
    }
    assert summary_line(found) == "3 compared: 1 slower, 1 faster, 1 same, 0 not decided"


def test_small_ratios_are_printed_with_their_digits():
    found = compare_stores(rows(processes(CASE)), rows(processes(CASE, 1 / 1200, side="b")))
    texts = {
        c.key: c.show(cell)
        for c, cell in zip(comparison_tables(found)[1].columns, comparison_tables(found)[1].rows[0], strict=True)
        if c.show
    }
    assert all(texts[key].startswith("0.0008") and len(texts[key]) == 9 for key in ("ratio", "ratio_low", "ratio_high"))


def test_verdicts_are_corrected_for_the_number_of_comparisons():
    base = [processes(CASE, count=3)]
    target = [processes(CASE, 1.012, count=3, side="b")]
    (alone,) = lines_of(base, target, margin=0.0)
    assert alone.verdict == "slower"
    others = [Case("alexnet", batch_size=b) for b in range(1, 11)]
    many = lines_of(
        base + [processes(c, count=3) for c in others],
        target + [processes(c, count=3, side="b") for c in others],
        margin=0.0,
    )
    assert next(line for line in many if line.setting["model"] == "lenet5").verdict == "not decided"


@pytest.mark.parametrize(
    ("changes", "reason", "ratio"),
    [
        ({"precision": "amp_bf16"}, "precision is fp32 in BASE and amp_bf16 in TARGET", 1.05),
        (
            {"memory_format": "channels_last"},
            "memory_format is channels_first in BASE and channels_last in TARGET",
            1.05,
        ),
        ({"protocol": Protocol(min_time_s=1.0)}, "protocol.min_time_s is 5.0 in BASE and 1.0 in TARGET", 1.05),
        # Steps of twice the work are compared per sample.
        ({"batch_size": 16}, "batch_size is 8 in BASE and 16 in TARGET", 1.05 / 2),
        ({"devices_per_node": 2}, "devices_per_node is 1 in BASE and 2 in TARGET", 1.05 / 2),
        # Strong scaling: the same work on two devices.
        ({"devices_per_node": 2, "batch_size": 4}, "batch_size is 8 in BASE and 4 in TARGET; ", 1.05),
    ],
)
def test_what_is_not_the_same_case_is_refused_with_the_reason_unless_asked(changes, reason, ratio):
    other = dataclasses.replace(CASE, **changes)
    base, target = [processes(CASE), processes(OTHER)], [processes(other, 1.05, side="b"), processes(OTHER, side="b")]
    by_model = {line.setting["model"]: line for line in lines_of(base, target)}
    assert by_model["lenet5"].verdict == "refused"
    assert by_model["lenet5"].note.startswith(reason)
    assert by_model["lenet5"].comparison is None
    assert by_model["alexnet"].verdict == "same"
    asked = lines_of(base, target, ignore=frozenset(changes))
    verdict = "slower" if ratio > 1 else "faster"
    assert {line.setting["model"]: line.verdict for line in asked} == {"lenet5": verdict, "alexnet": "same"}
    lenet5 = next(line for line in asked if line.setting["model"] == "lenet5")
    assert lenet5.comparison.ratio == pytest.approx(ratio, rel=0.01)
    assert lenet5.target / lenet5.base == pytest.approx(ratio, rel=0.01)
    assert ("times are per sample, because a step has 8 samples in BASE and 16 in TARGET" in lenet5.note) == (ratio < 1)


def test_another_version_of_the_suite_is_refused_even_where_nothing_else_is_left():
    with pytest.raises(BadInput, match=r"suite_version is 1 in BASE and 2 in TARGET; `--ignore suite_version`"):
        lines_of([processes(CASE)], [processes(CASE, side="b", suite_version=2)])
    (line,) = lines_of(
        [processes(CASE)], [processes(CASE, side="b", suite_version=2)], ignore=frozenset({"suite_version"})
    )
    assert line.verdict == "same"


def test_a_time_limit_is_no_difference():
    other = dataclasses.replace(CASE, protocol=Protocol(timeout_s=10.0))
    (line,) = lines_of([processes(CASE)], [processes(other, side="b")])
    assert line.verdict == "same"


def test_stores_without_a_common_case_are_one_clear_line():
    with pytest.raises(BadInput, match="no network was measured in the same mode in both BASE and TARGET"):
        lines_of([processes(CASE)], [processes(OTHER, side="b")])


def test_a_process_is_never_compared_with_itself():
    with pytest.raises(BadInput, match="share 4 attempts"):
        lines_of([processes(CASE)], [processes(CASE)])


def test_cases_of_one_side_alone_are_listed():
    lines = lines_of([processes(CASE), processes(OTHER)], [processes(CASE, side="b")])
    assert {x.setting["model"]: (x.verdict, x.note) for x in lines} == {
        "lenet5": ("same", ""),
        "alexnet": ("missing", "only in BASE"),
    }


def test_two_precisions_within_one_side_are_not_mixed_even_when_they_may_differ():
    bf16 = dataclasses.replace(CASE, precision="amp_bf16")
    base, target = [processes(CASE), processes(bf16)], [processes(CASE, side="b")]
    with pytest.raises(
        BadInput, match=r"BASE mixes several values of precision: .*; choose with --base-where precision="
    ):
        lines_of(base, target, ignore=frozenset({"precision"}))
    found = compare_stores(
        rows(*base), rows(*target), ComparisonRules(ignore=frozenset({"precision"})), base_where=["precision=amp_bf16"]
    )
    assert [line.setting["precision"] for line in found.lines] == ["amp_bf16 → fp32"]


def test_two_systems_within_one_side_are_not_mixed():
    elsewhere = processes(CASE, side="x", system_key="elsewhere")
    with pytest.raises(BadInput, match="BASE has this case on 2 systems; choose with --base-where system_key="):
        lines_of([processes(CASE), elsewhere], [processes(CASE, side="b")])


def test_repeats_with_different_numbers_of_threads_are_not_mixed_on_a_cpu():
    one, two = (dataclasses.replace(fake.CPU, torch_threads=count) for count in (1, 2))
    same = {"system_key": "k"}
    base = [*processes(CASE, system=two, **same)[:3], processes(CASE, system=one, **same)[3]]
    # With a repeat that crashed before its system was known, the column holds floats.
    base = [*base, processes(CASE, count=5, status="crashed", **same)[4]]
    target = processes(CASE, side="b", system=two, **same)
    with pytest.raises(BadInput, match=r"1 and 2 threads; choose with --base-where system_torch_threads=1$"):
        lines_of([base], [target])
    (line,) = compare_stores(rows(base), rows(target), base_where=["system_torch_threads=2"]).lines
    assert line.comparison.num_processes_a == 3


@pytest.mark.parametrize("count", [1, 2])
def test_few_processes_give_no_interval_and_no_verdict(count):
    found = compare_stores(rows(processes(CASE)), rows(processes(CASE, 1.5, count, side="b")))
    (line,) = found.lines
    assert line.verdict == "not decided"
    assert line.comparison.ratio == pytest.approx(1.5, rel=5e-3)
    assert (line.comparison.low, line.comparison.high, line.comparison.p_value) == (None, None, None)
    assert f"4 against {count} processes are too few" in note_of(found)


def test_a_spread_that_the_user_states_gives_an_interval_and_says_so():
    base, target = rows(processes(CASE)), rows(processes(CASE, 1.5, 1, side="b"))
    found = compare_stores(base, target, ComparisonRules(between_processes=0.01))
    assert found.lines[0].verdict == "slower"
    assert "the value of --between-processes" in note_of(found)


@pytest.mark.parametrize("steps", [(0.0, 0.0), (float("nan"), 0.01), (-1.0, 0.01), ()])
def test_times_that_cannot_be_are_flagged_and_never_counted(steps):
    broken = processes(CASE, count=1, side="b", step_s=steps)
    (line,) = lines_of([processes(CASE)], [broken])
    assert line.verdict == "failed"
    assert "its step times cannot be used" in line.note
    assert line.comparison is None
    good = [dataclasses.replace(r, attempt_id=f"{r.attempt_id}-good") for r in processes(CASE, count=4, side="b")[1:]]
    (line,) = lines_of([processes(CASE)], [broken, good])
    assert line.verdict == "same"
    assert line.comparison.num_processes_b == 3
    assert "TARGET: 1 attempt not used" in line.note


def test_a_failed_case_says_why_and_is_a_regression_where_base_has_it():
    broken = processes(CASE, count=1, side="b", status="oom")
    found = compare_stores(
        rows(processes(CASE), processes(OTHER)), rows(broken, processes(OTHER, side="b")), ComparisonRules(margin=0.05)
    )
    line = next(line for line in found.lines if line.setting["model"] == "lenet5")
    assert line.verdict == "failed"
    assert "oom: out of memory" in line.note
    assert find_regressions(found, 5.0) == [line]
    assert summary_line(found) == "1 compared: 0 slower, 0 faster, 1 same, 0 not decided; 1 not compared: 1 failed"


def test_repeats_that_crash_in_target_alone_are_a_regression_although_the_others_are_as_fast():
    some = [*processes(CASE, count=3, side="b"), processes(CASE, side="c", status="crashed")[3]]
    found = compare_stores(rows(processes(CASE)), rows(some))
    (line,) = found.lines
    assert (line.verdict, line.comparison.num_processes_b) == ("same", 3)
    assert find_regressions(found, 5.0) == [line]
    assert why_regression_undecided(line, 5.0) is None
    assert "TARGET: 1 attempt not used (crashed: worker ended by signal 11" in line.note
    # A case that fails at times in BASE as well has not become worse by that.
    flaky = [*processes(CASE, count=3), processes(CASE, side="d", status="crashed")[3]]
    assert find_regressions(compare_stores(rows(flaky), rows(some)), 5.0) == []
    gone = processes(CASE, side="b", status="crashed")
    assert len(find_regressions(compare_stores(rows(flaky), rows(gone)), 5.0)) == 1


def test_a_crash_among_preempted_repeats_is_what_is_said():
    some = [processes(CASE, side="b", status=status)[i] for i, status in enumerate(("crashed", "preempted"))]
    found = compare_stores(rows(processes(CASE)), rows(some))
    assert len(find_regressions(found, 5.0)) == 1
    assert found.lines[0].note.startswith("TARGET: crashed: ")


def test_what_was_preempted_or_had_no_meter_is_undecided_and_no_regression():
    base, ended = processes(CASE), processes(CASE, side="b", status="preempted")
    found = compare_stores(rows(base), rows(ended))
    assert find_regressions(found, 5.0) == []
    assert why_regression_undecided(found.lines[0], 5.0) == "TARGET: preempted: job ended by SIGTERM"
    on_gpu = dataclasses.replace(CASE, device="cuda")
    blind = {"energy_j": None, "energy_source": "none", "energy_scope": None, "energy_note": "the meter was lost"}
    found = compare_stores(
        rows(processes(on_gpu, system=fake.GPU)),
        rows(processes(on_gpu, system=fake.GPU, side="b", **blind)),
        ComparisonRules(metric="energy_per_image"),
    )
    assert find_regressions(found, 5.0) == []
    assert why_regression_undecided(found.lines[0], 5.0) == "TARGET: no energy was measured (the meter was lost)"


def test_a_regression_is_slower_for_certain_and_by_more_than_allowed():
    found = compare_stores(rows(processes(CASE)), rows(processes(CASE, 1.05, side="b")))
    assert len(find_regressions(found, 4.0)) == 1
    assert find_regressions(found, 6.0) == []
    unsure = compare_stores(rows(processes(CASE)), rows(processes(CASE, 1.5, 1, side="b")))
    assert find_regressions(unsure, 4.0) == []
    assert why_regression_undecided(unsure.lines[0], 4.0) == "because there are too few processes"


def test_a_certain_slowdown_that_may_be_beyond_the_gate_is_not_known_to_pass():
    found = compare_stores(rows(processes(CASE)), rows(processes(CASE, 1.05, side="b")))
    (line,) = found.lines
    assert line.verdict == "slower"
    gate = 100 * ((line.comparison.ratio + line.comparison.high) / 2 - 1)
    assert find_regressions(found, gate) == []
    assert why_regression_undecided(line, gate) == f"because the interval includes an increase of more than {gate:g} %"
    assert why_regression_undecided(line, 4.0) is None  # it fails
    assert why_regression_undecided(line, 30.0) is None


def test_of_a_case_whose_interval_reaches_beyond_the_gate_it_is_not_known():
    unlike = [
        fake.record(dataclasses.replace(CASE, repeat=i), fake.CPU, i, step_s=fake.noisy_steps(0.010 * factor, 60, i))
        for i, factor in enumerate((0.95, 1.0, 1.02, 1.06))
    ]
    (line,) = lines_of([processes(CASE)], [unlike])
    assert line.verdict == "not decided"
    assert 1.03 < line.comparison.high < 1.2
    assert why_regression_undecided(line, 3.0) == "because the interval includes an increase of more than 3 %"
    assert why_regression_undecided(line, 20.0) is None
    assert find_regressions(compare_stores(rows(processes(CASE)), rows(unlike)), 3.0) == []


def test_what_differs_between_the_systems_is_listed_and_nothing_else():
    newer = dataclasses.replace(fake.CPU, torch_version="2.16.0+cpu", kernel="6.1")
    same_key = {"system_key": "k"}
    found = compare_stores(rows(processes(CASE, **same_key)), rows(processes(CASE, side="b", system=newer, **same_key)))
    assert found.differences == [
        ("kernel", "5.14.0-570.el9.x86_64", "6.1"),
        ("torch", "2.15.0+cpu", "2.16.0+cpu"),
    ]
    shown = format_tables(comparison_tables(found), "text")
    assert shown.index("2.16.0+cpu") < shown.index("Verdict")


def test_hardware_is_compared_across_devices_and_said_so():
    on_gpu = dataclasses.replace(CASE, device="cuda")
    found = compare_stores(rows(processes(CASE)), rows(processes(on_gpu, 0.1, system=fake.GPU, side="b")))
    assert [line.verdict for line in found.lines] == ["faster"]
    assert "This compares hardware: cpu in BASE, cuda in TARGET." in found.remarks
    assert ("device", "–", "NVIDIA H200") in found.differences


def test_energy_is_compared_where_both_measured_it_with_the_same_scope():
    def side(name, factor, **more):
        return [
            fake.record(
                dataclasses.replace(CASE, device="cuda", repeat=r), fake.GPU, r, attempt_id=f"{name}{r}",
                step_s=(0.01 * SPREAD[r],) * 50, window_s=0.5, device_window_s=0.5, energy_window_s=0.5,
                energy_j=100 * factor * SPREAD[r], **more,
            )
            for r in range(4)
        ]  # fmt: skip

    (line,) = lines_of([side("a", 1.0)], [side("b", 1.1)], metric="energy_per_image")
    assert (line.verdict, round(line.comparison.ratio, 3)) == ("more", 1.1)
    with pytest.raises(BadInput, match=r"energy_scope differs: device in BASE, module in TARGET$"):
        lines_of([side("a", 1.0)], [side("b", 1.1, energy_scope="module")], metric="energy_per_image")
    (line,) = lines_of([side("a", 1.0)], [side("b", 1.0)], metric="step_time")
    assert line.verdict == "same"


def test_energies_of_different_meters_are_refused_when_measured_in_turns_too():
    on_gpu = dataclasses.replace(CASE, device="cuda")
    made = [
        fake.record(
            dataclasses.replace(on_gpu, repeat=r), fake.GPU, 2 * r + half, attempt_id=f"{suite}{r}", suite=suite,
            energy_source=source,
        )
        for r in range(4)
        for half, suite, source in ((0, "x-a", "nvml_counter"), (1, "x-b", "rapl"))
    ]  # fmt: skip
    cases, sides = select_attempts_of_sides(rows(made), ("x-a", "x-b")), ("x-a", "x-b")
    found = {
        metric: compare_ab_sides(cases, sides, [(on_gpu, on_gpu)], 4, ComparisonRules(metric=metric)).lines[0]
        for metric in ("energy_per_image", "step_time")
    }
    assert found["energy_per_image"].verdict == "refused"
    assert found["energy_per_image"].note == "energy_source differs: nvml_counter in A, rapl in B"
    assert found["step_time"].comparison.num_processes_a == 4


def test_a_stated_spread_gives_an_interval_to_energies_of_one_process_a_side():
    on_gpu = dataclasses.replace(CASE, device="cuda")
    base, target = (
        processes(on_gpu, count=1, system=fake.GPU, side=side, energy_j=energy)
        for side, energy in (("a", 1000.0), ("b", 1200.0))
    )
    (line,) = lines_of([base], [target], metric="energy_per_image", between_processes=0.01)
    assert line.verdict == "more"
    assert line.comparison.low < 1.2 < line.comparison.high


def test_energy_that_nobody_measured_is_said_to_be_missing():
    quiet = {"energy_note": "RAPL is not readable"}
    (line,) = lines_of([processes(CASE, **quiet)], [processes(CASE, side="b", **quiet)], metric="energy_per_image")
    assert line.verdict == "failed"
    assert "no energy was measured (RAPL is not readable)" in line.note


def test_a_later_attempt_replaces_an_earlier_one_unless_all_are_asked_for():
    base, first, again = processes(CASE), processes(CASE, side="b"), processes(CASE, 1.2, side="c")
    again = [dataclasses.replace(r, started_at="2026-11-21T00:00:00+00:00") for r in again]
    found = compare_stores(rows(base), rows(first, again))
    assert found.lines[0].comparison.num_processes_b == 4
    assert found.lines[0].comparison.ratio == pytest.approx(1.2, rel=5e-3)
    found = compare_stores(rows(base), rows(first, again), every_attempt=True)
    assert found.lines[0].comparison.num_processes_b == 8


def test_unstable_and_throttled_processes_are_flagged():
    hot = processes(CASE, side="b", status="unstable", throttle_reasons=("hw_thermal",))
    (line,) = lines_of([processes(CASE)], [hot])
    assert line.note == "TARGET: 4 of 4 unstable, 4 of 4 throttled"


def test_a_busy_host_is_flagged_and_of_a_single_process_no_number_is_said():
    busy = processes(CASE, count=1, warnings=("busy_host: other processes took 80% of this process's 2 cores.",))
    (line,) = lines_of([busy], [processes(CASE, side="b")])
    assert line.note == "BASE: on a busy host"


def test_clocks_that_lie_apart_and_a_host_that_limits_are_flagged():
    odd = processes(CASE, side="b", window_s=0.63, device_window_s=0.61, warnings=("host_bound: the device waited.",))
    (line,) = lines_of([processes(CASE)], [odd])
    assert line.note == "TARGET: 4 of 4 limited by the host, 4 of 4 with clocks apart"


def test_energies_that_deserve_no_trust_are_flagged_where_energy_is_compared():
    on_gpu = dataclasses.replace(CASE, device="cuda")
    said = ("energy_mismatch: the integral differs by -99 %.", "short_energy_window: 2.10 s; from 5 s on it is.")
    base = processes(on_gpu, system=fake.GPU)
    target = processes(on_gpu, system=fake.GPU, side="b", warnings=said)
    (line,) = lines_of([base], [target], metric="energy_per_image")
    assert line.note == "TARGET: 4 of 4 with meters that disagree, 4 of 4 with a short energy window"
    (line,) = lines_of([base], [target])
    assert line.note == ""


def test_processes_without_any_spread_are_no_certainty():
    base, target = (processes(CASE, side=side, step_s=(time_s,) * 30) for side, time_s in (("a", 0.100), ("b", 0.102)))
    found = compare_stores(rows(base), rows(target))
    (line,) = found.lines
    assert (line.verdict, line.comparison.low) == ("not decided", None)
    assert "the clock is too coarse, or the step times are copies" in note_of(found)
    assert why_regression_undecided(line, 5.0) == "because all processes have the same value"


def test_what_holds_for_all_cases_is_said_once():
    base, target = ([processes(case, count=1, side=side) for case in (CASE, OTHER)] for side in "ab")
    found = compare_stores(rows(*base), rows(*target))
    (_, table) = comparison_tables(found)
    assert [row[-1] for row in table.rows] == ["", ""]
    assert sum("1 against 1 processes are too few" in note for note in table.notes) == 1


def test_every_format_has_the_ratio_and_json_the_differences_too():
    found = compare_stores(rows(processes(CASE)), rows(processes(CASE, 1.05, side="b")))
    for form in FORMATS:
        assert "1.05" in format_tables(comparison_tables(found), form)
    systems, compared = json.loads(format_tables(comparison_tables(found), "json"))
    assert systems["rows"] == []
    assert compared["rows"][0]["verdict"] == "slower"
    assert compared["notes"][-1] == summary_line(found)


def test_columns_of_the_result_have_distinct_keys():
    found = compare_stores(rows(processes(CASE)), rows(processes(CASE, 1.05, side="b")))
    keys = [column.key for column in comparison_tables(found)[1].columns]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", ["model", "mode"])
def test_work_itself_may_not_differ(name):
    with pytest.raises(BadInput, match="different work"):
        ComparisonRules(ignore=frozenset({name}))
    with pytest.raises(UnknownName, match="did you mean 'precision'"):
        ComparisonRules(ignore=frozenset({"precison"}))


def test_parts_from_before_the_label_existed_are_read(tmp_path):
    fake.fill(tmp_path, processes(CASE))
    assert store.load(tmp_path)["label"].isna().all()
    assert compare_stores(store.load(tmp_path), rows(processes(CASE, side="b"))).num_compared == 1
