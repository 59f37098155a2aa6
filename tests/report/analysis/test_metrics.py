"""Metrics against values worked out by hand."""

import csv
import dataclasses
import io
import math
import re

import pandas as pd
import pytest

from dlbench import stats, units
from dlbench.__main__ import main
from dlbench.report import export
from dlbench.report.analysis import case_warnings, derived_metrics
from dlbench.report.analysis.content import read_content
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.chapters import tables
from dlbench.report.chapters.tables import energy_table
from dlbench.report.figures import plots_time
from dlbench.report.loading import sample_statistics
from dlbench.results.schema import SCHEMA, to_table
from dlbench.suites.case import Case
from tests.fakes import dispersion
from tests.fakes import records as fakes


def tidy(*records):
    return derived_metrics.attempts_from_rows(to_table(list(records)).to_pandas())


def only(*records):
    cases = tidy(*records)
    assert len(cases) == 1
    return cases.iloc[0]


PLAIN = {"step_s": (0.1, 0.2, 0.4), "window_s": 0.8, "device_window_s": 0.7, "energy_window_s": 0.8}


def training(**changes):
    case = Case("alexnet", precision="tf32", batch_size=10, device="cuda")
    return fakes.record(case, **(PLAIN | changes))


def test_every_metric_has_a_unit_and_a_description():
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.unit
        assert metric.better in ("higher", "lower", "none")
        assert len(metric.title) > 3
        assert metric.description.endswith(".")
        assert metric.derivation


def test_the_tidy_frame_holds_every_metric_and_nothing_undocumented():
    columns = set(tidy(training()).columns)
    assert set(METRICS) <= columns
    assert columns - set(METRICS) - set(derived_metrics.IDENTITY_COLUMNS) - set(derived_metrics.AXES) == {
        "samples",
        *sample_statistics.LIMIT_COLUMNS,
    }


def test_throughput_is_the_global_batch_over_the_median_step():
    case = only(training())
    assert case["step_time"] == 0.2
    assert case["throughput"] == 10 / 0.2
    assert case["sustained_throughput"] == pytest.approx(10 * 3 / 0.8)


def test_flop_of_training_is_forward_and_backward_and_of_inference_forward_alone():
    work = {"forward_flop": 1_000_000, "backward_flop": 1_900_000}
    case = only(training(**work))
    assert case["flop_per_image"] == 2_900_000
    assert case["flop_per_step"] == 29_000_000
    assert case["flop_rate"] == pytest.approx(29_000_000 / 0.2)
    inference = only(fakes.record(Case("alexnet", "inference", batch_size=10, device="cuda"), forward_flop=1_000_000))
    assert inference["flop_per_image"] == 1_000_000


def test_share_of_peak_and_distance_to_the_bound_are_reciprocal():
    case = only(training(forward_flop=10**12, backward_flop=2 * 10**12))
    assert case["device_peak"] == 494.5e12
    assert case["time_bound"] == pytest.approx(30e12 / 494.5e12)
    assert case["mfu"] == pytest.approx(30e12 / 0.2 / 494.5e12)
    assert case["distance_to_bound"] * case["mfu"] == pytest.approx(1)


def test_work_that_is_done_again_is_in_the_share_of_the_hardware_alone():
    work = {"forward_flop": 10**12, "backward_flop": 2 * 10**12}
    case = only(training(**work, executed_flop=4 * 10**12))
    assert (case["flop_per_image"], case["executed_flop_per_image"]) == (3e12, 4e12)
    assert case["mfu"] == pytest.approx(30e12 / 0.2 / 494.5e12)
    assert case["hfu"] == pytest.approx(40e12 / 0.2 / 494.5e12)
    # Where nothing is done again there is one share; records from before do not say.
    for executed in (3 * 10**12, None):
        assert math.isnan(only(training(**work, executed_flop=executed))["hfu"])


def test_a_partial_count_is_named_wherever_its_figures_are(tmp_path):
    warned = {"flop_partial": "_fft_r2c", "warnings": ("flop_partial: not counted: _fft_r2c; the FLOP are ...",)}
    varying = {"flop_varies": True, "warnings": ("flop_varies: the work differs between steps, ...",)}
    parted = fakes.record(Case("alexnet", device="cuda"), number=1, **warned)
    mean = fakes.record(Case("vgg16", device="cuda"), number=2, **varying)
    sound = fakes.record(Case("resnet50", device="cuda"), number=3)
    content = read_content([fakes.fill(tmp_path / "store", [parted, mean, sound])])
    warned = {row["model"]: row["warnings"] for row in tables.case_metrics_table(content.shown, {}).records()}
    assert "partial FLOP" in warned["AlexNet"]
    assert "varying FLOP" in warned["VGG-16"]
    assert "FLOP" not in warned["ResNet-50"]
    rows = list(csv.DictReader(io.StringIO("".join(export.tidy_csv_chunks(content.attempts)))))
    assert sorted(row["flop_partial"] for row in rows) == ["", "", "_fft_r2c"]
    assert "1 of 3 with a partial FLOP count" in case_warnings.summarize_warnings(content.shown, with_energy=False)
    assert "per flop" in " ".join(energy_table(content.shown, content.system_names).notes).lower()
    assert "count is partial" in plots_time.flop_time_plot(content.shown).caption


def by_ranks(number, *changes):
    """An attempt whose ranks differ by `changes`, one for each rank."""
    case = Case("alexnet", batch_size=10, device="cuda", devices_per_node=len(changes))
    made = fakes.record(case, number=number)
    ranks = zip(made.ranks, changes, strict=True)
    return dataclasses.replace(made, ranks=tuple((s, dataclasses.replace(m, **own)) for (s, m), own in ranks))


def test_what_any_rank_has_to_say_against_an_attempt_is_kept():
    late = {"warnings": ("b: 1.", "c: 1."), "throttle_reasons": ("sw_power_cap",), "other_processes": 2}
    flagged, fine, alone, unknown = tidy(
        by_ranks(1, {"warnings": ("a: 1.", "b: 1."), "other_processes": 0}, late | {"steady": False}),
        by_ranks(2, {}, {}),
        by_ranks(3, {"warnings": ("d: 1.",), "steady": False}),
        by_ranks(4, {"steady": None}, {"steady": True}, {"throttle_reasons": ("hw_slowdown", "hw_power_brake")}),
    ).to_dict("records")
    assert list(flagged["warnings"]) == ["a: 1.", "b: 1.", "c: 1."]
    assert list(flagged["throttle_reasons"]) == ["sw_power_cap"]
    assert (flagged["other_processes"], flagged["steady"]) == (2, False)
    assert (len(fine["warnings"]), len(fine["throttle_reasons"]), fine["steady"]) == (0, 0, True)
    assert (list(alone["warnings"]), alone["steady"]) == (["d: 1."], False)
    assert pd.isna(unknown["steady"])
    assert list(unknown["throttle_reasons"]) == ["hw_slowdown", "hw_power_brake"]


@pytest.mark.parametrize("bad", [0.0, -3.0, math.inf, -math.inf, math.nan])
def test_a_window_that_cannot_be_is_unknown_and_so_is_what_follows_from_it(bad):
    case = only(training(window_s=bad, energy_j=160.0, energy_module_j=200.0))
    for name in ("sustained_throughput", "clock_gap", "energy_per_image", "module_energy_per_image"):
        assert math.isnan(case[name]), name
    assert math.isnan(only(training(device_window_s=bad))["clock_gap"])
    assert case["throughput"] == 10 / 0.2


@pytest.mark.parametrize("bad", [0.0, -3.0, math.inf])
def test_an_energy_whose_window_cannot_be_is_not_that_of_another_window(bad):
    assert math.isnan(only(training(energy_j=160.0, energy_window_s=bad))["average_power"])
    assert only(training(energy_j=160.0, energy_window_s=None))["average_power"] == pytest.approx(200)


@pytest.mark.parametrize("bad", [0.0, -3.0, math.inf, math.nan])
def test_energies_that_cannot_be_are_unknown(bad):
    case = only(training(energy_j=bad, energy_module_j=bad, idle_power_w=bad))
    for name in ("average_power", "idle_power", "energy_per_image", "module_energy_per_image", "images_per_wh"):
        assert math.isnan(case[name]), name
    for name in ("energy_counter_j", "energy_integral_j"):
        assert math.isnan(only(training(**{name: bad}))["energy_disagreement"]), name


def test_meters_are_apart_by_a_share_of_the_counter():
    case = only(training(energy_counter_j=100.0, energy_integral_j=80.0))
    assert case["energy_disagreement"] == pytest.approx(0.2)


IMPOSSIBLE = {
    "window_0": {"window_s": 0.0},
    "window_negative": {"window_s": -3.0, "device_window_s": -3.0},
    "energy_window_0": {"energy_window_s": 0.0},
    "integral_0": {"energy_integral_j": 0.0},
    "infinite": dict.fromkeys(("energy_j", "energy_counter_j", "energy_integral_j", "energy_module_j"), math.inf),
    "phases": {"forward_s": (-1.0,) * 30, "optimizer_s": (math.nan,) * 30, "step_s": fakes.noisy_steps(0.1, 30, 1)},
}


def test_records_with_impossible_values_can_be_reported_shown_exported_and_projected(tmp_path, capsys):
    records = [
        fakes.record(
            Case("alexnet", precision="tf32", batch_size=10 + number, device="cuda"), number=number,
            **(PLAIN | {"step_s": fakes.noisy_steps(0.1, 30, 1)} | values),
        )
        for number, values in enumerate(IMPOSSIBLE.values())
    ]  # fmt: skip
    store = str(fakes.fill(tmp_path / "store", records))
    shown = [["show", record.attempt_id, "--results", store, *form] for record in records for form in ((), _JSON)]
    for command in (
        ["report", store, "-o", str(tmp_path / "page")],
        *shown,
        ["export", store, "--format", "csv"],
        ["project", store, "--images", "1000", "--epochs", "1"],
    ):
        assert main(command) == 0, command
        said = capsys.readouterr().out
        assert "inf" not in re.findall(r"[a-z]+", said.partition("Measured")[0]), command


_JSON = ("--format", "json")


@pytest.mark.parametrize("power", [0.0, -1.0])
def test_a_meter_that_stood_still_is_no_energy_of_zero(power):
    case = only(training(energy_j=power, idle_power_w=power))
    for name in ("average_power", "idle_power", "energy_per_image", "energy_per_gflop", "images_per_wh"):
        assert math.isnan(case[name]), name


def test_the_energy_of_a_superchip_s_module_is_a_metric_of_its_own():
    case = only(training(energy_j=160.0, energy_module_j=240.0))
    assert case["module_energy_per_image"] == pytest.approx(240 / 30)
    assert case["energy_per_image"] == pytest.approx(160 / 30)
    assert math.isnan(only(training())["module_energy_per_image"])
    rank = {"energy_j": 60.0, "energy_module_j": 90.0}
    devices = only(by_ranks(1, rank, rank))
    assert devices["module_energy_per_image"] == pytest.approx(1.5 * devices["energy_per_image"])
    assert math.isnan(only(by_ranks(1, rank, rank | {"energy_module_j": None}))["module_energy_per_image"])


@pytest.mark.parametrize("module_j", [None, 5000.0])
def test_the_table_of_all_cases_has_the_module_where_there_is_one(tmp_path, module_j):
    record = fakes.record(Case("alexnet", device="cuda"), energy_module_j=module_j)
    content = read_content([fakes.fill(tmp_path / "store", [record])])
    table = tables.case_metrics_table(content.shown, content.system_names)
    assert ("module_energy_per_image" in [c.key for c in table.columns]) == (module_j is not None)
    assert not any("module" in note for note in table.notes)


def test_settings_that_were_measured_in_turns_are_told_apart(tmp_path):
    made = [
        fakes.record(Case("lenet5", device="cuda"), number=i, label=f"{side} (seed 0): env.X={i}", suite=f"ab-{side}")
        for i, side in enumerate("ab")
    ]
    content = read_content([fakes.fill(tmp_path / "store", made)])
    rows = tables.case_metrics_table(content.shown, {}).records()
    assert sorted(row["label"] for row in rows) == ["a (seed 0): env.X=0", "b (seed 0): env.X=1"]


def test_of_busy_processes_the_worst_is_named():
    busy = pd.Series(["busy host 12 %, uneven steps", "", "busy host 50 %", "busy host 7 %"])
    assert case_warnings._join_distinct_warnings(busy) == "busy host 50 %, uneven steps"


def test_what_is_no_known_part_of_the_memory_is_no_workspace():
    case = Case("alexnet", device="cuda", compile="default")
    assert math.isnan(only(fakes.record(case, activation_bytes=None))["memory_workspace"])
    assert only(fakes.record(case))["memory_workspace"] > 0


def test_what_makes_a_case_doubtful_stands_beside_its_figure(tmp_path):
    doubtful = {
        "vgg16": {"throttle_reasons": ("hw_thermal",), "steady": False},
        "googlenet": {"throttle_reasons": ("sw_power_cap", "applications_clocks")},
        "alexnet": {"warnings": ("busy_host: other processes took 80% of this process's 2 cores.",)},
        "lenet5": {"window_s": 0.52, "device_window_s": 0.50, "warnings": ("host_bound: the device waited.",)},
        "overfeat_fast": {"warnings": ("energy_mismatch: by +9 %.", "short_energy_window: 2.10 s; from 5 s on it is.")},
        # Somebody chose a lower clock: known, and no throttling.
        "resnet50": {"throttle_reasons": ("applications_clocks",)},
    }
    made = [
        fakes.record(Case(name, device="cuda"), number=i, **more) for i, (name, more) in enumerate(doubtful.items())
    ]
    content = read_content([fakes.fill(tmp_path / "store", made)])
    found = {row["model"]: row["warnings"] for row in tables.case_metrics_table(content.shown, {}).records()}
    assert found == {
        "VGG-16": "throttled, not warmed up",
        "GoogLeNet": "power limit",
        "AlexNet": "busy host (others: 80 % CPU)",
        "LeNet-5": "host-bound, clocks apart",
        "OverFeat fast": "meters disagree, short energy window",
        "ResNet-50": "",
    }
    without = content.shown[content.shown["model"] == "resnet50"]
    assert "warnings" not in [column.key for column in tables.case_metrics_table(without, {}).columns]


def test_a_window_too_short_for_any_energy_leaves_none_to_doubt(tmp_path):
    none = {"energy_j": None, "energy_source": "none", "energy_scope": None}
    short = fakes.record(Case("alexnet", device="cuda"), warnings=("short_energy_window: 0.12 s is under 20.",), **none)
    content = read_content([fakes.fill(tmp_path / "store", [short])])
    assert "warnings" not in [column.key for column in tables.case_metrics_table(content.shown, {}).columns]


def test_energy_per_image_is_power_over_sustained_throughput():
    case = only(training(energy_j=160.0, forward_flop=10**9, backward_flop=10**9))
    assert case["average_power"] == pytest.approx(200)
    assert case["energy_per_image"] == pytest.approx(160 / 30)
    assert case["energy_per_gflop"] == pytest.approx(160 / 30 / 2)
    assert case["images_per_wh"] == pytest.approx(3600 / (160 / 30))


def test_over_ranks_time_and_memory_are_the_maximum_and_energy_the_sum():
    case = Case("alexnet", precision="tf32", batch_size=10, device="cuda", devices_per_node=2)
    one = fakes.record(case, step_s=(0.1, 0.3), forward_s=(0.01, 0.03), window_s=0.4, energy_window_s=0.4)
    (system, a), (_, b) = one.ranks
    a = dataclasses.replace(a, energy_j=40.0, memory_allocated_peak_bytes=100)
    b = dataclasses.replace(
        b, step_s=(0.2, 0.2), forward_s=(0.05, 0.05), window_s=0.5, energy_window_s=0.5, energy_j=100.0,
        memory_allocated_peak_bytes=70,
    )  # fmt: skip
    found = only(dataclasses.replace(one, ranks=((system, a), (system, b))))
    assert list(found["samples"]) == [0.2, 0.3]
    assert found["step_time"] == 0.25
    assert found["forward_time"] == pytest.approx((0.05 + 0.03) / 2)
    assert found["throughput"] == 20 / 0.25
    assert found["sustained_throughput"] == pytest.approx(40 / 0.5)
    assert found["average_power"] == pytest.approx(100 + 200)
    assert found["memory_allocated"] == 100


def test_the_energy_of_ranks_whose_rows_are_missing_is_not_left_out():
    whole = fakes.record(Case("alexnet", device="cuda", devices_per_node=2))
    found = only(dataclasses.replace(whole, ranks=whole.ranks[:1]))
    for name in ("average_power", "idle_power", "energy_per_image"):
        assert math.isnan(found[name]), name
        assert only(whole)[name] > 0, name


def test_ranks_that_the_store_lacks_are_named_beside_the_figure():
    whole = fakes.record(Case("alexnet", device="cuda", devices_per_node=2))
    found = only(dataclasses.replace(whole, ranks=whole.ranks[:1]))
    assert "missing_ranks: the results contain 1 of 2 ranks; the slowest rank may be missing." in found["warnings"]
    assert "ranks missing" in case_warnings.warnings_per_process(pd.DataFrame([found]))[0]
    assert not [warning for warning in only(whole)["warnings"] if warning.startswith("missing_ranks")]


def test_the_reason_is_that_of_the_first_rank_without_energy():
    lost = {"energy_j": None, "energy_source": "none", "energy_scope": None}
    here, later = lost | {"energy_note": "went backwards"}, lost | {"energy_note": "too short"}
    found = tidy(by_ranks(1, {"energy_note": "fine"}, here, later), by_ranks(2, {"energy_note": "fine"}, {}))
    assert found["energy_note"].tolist() == ["went backwards", "fine"]
    assert found["energy_source"].tolist() == ["none", "nvml_counter"]
    assert [scope for scope in found["energy_scope"] if not pd.isna(scope)] == ["device"]


def test_what_is_left_of_a_step_is_unknown_where_a_phase_is():
    phases = {"forward_s": (0.03,) * 3, "backward_s": (0.06,) * 3, "optimizer_s": (0.01,) * 3}
    assert only(training(**phases))["rest_time"] == pytest.approx(0.1)
    assert math.isnan(only(training(**phases | {"forward_s": (0.03, math.nan, 0.03)}))["rest_time"])


def test_a_meter_that_ranks_share_is_counted_once_and_a_missing_one_gives_no_energy():
    case = Case("alexnet", batch_size=10, device="cuda", devices_per_node=2)
    shared = only(fakes.record(case, energy_scope="node", energy_j=100.0, energy_window_s=1.0))
    assert shared["average_power"] == pytest.approx(100)
    half = fakes.record(case)
    (system, a), (_, b) = half.ranks
    half = dataclasses.replace(half, ranks=((system, a), (system, dataclasses.replace(b, energy_j=None))))
    assert math.isnan(only(half)["energy_per_image"])


def test_dispersion_is_what_dlbench_stats_says():
    steps = fakes.noisy_steps(0.1, 200, seed=1)
    case = only(training(step_s=steps))
    assert case["cv"] == pytest.approx(dispersion.coefficient_of_variation(steps))
    assert case["iqr"] == pytest.approx(stats.relative_iqr(steps))
    assert case["autocorrelation"] == pytest.approx(dispersion.autocorrelation(steps))
    assert case["outliers"] == dispersion.count_outliers(steps)
    assert math.isnan(only(training(step_s=(0.1,) * 30))["autocorrelation"])


def test_outliers_are_counted_and_stay_in_the_samples():
    case = only(training(step_s=tuple([0.0098, 0.0099, 0.0100, 0.0101, 0.0102] * 20 + [0.05, 0.001])))
    assert (case["outliers"], case["steps"]) == (2, 102)


def test_latency_is_for_inference_only():
    assert math.isnan(only(training())["latency_p99"])
    inference = only(fakes.record(Case("alexnet", "inference"), fakes.CPU, step_s=tuple(range(1, 102))))
    assert (inference["latency_p50"], inference["latency_p95"], inference["latency_p99"]) == (51, 96, 100)


def test_clock_gap_and_start_up():
    case = only(training(import_s=2.0, build_s=0.5, first_step_s=1.0))
    assert case["clock_gap"] == pytest.approx(0.1 / 0.8)
    assert case["time_to_first_step"] == 3.5


def test_what_is_missing_is_nan_and_never_zero():
    case = only(fakes.record(Case("alexnet"), status="crashed"))
    for name in METRICS:
        assert math.isnan(case[name]), name
    cpu = only(fakes.record(Case("alexnet"), fakes.CPU))
    for name in ("mfu", "device_peak", "energy_per_image", "average_power", "memory_allocated", "sm_clock_min"):
        assert math.isnan(cpu[name]), name


@pytest.mark.parametrize("bad", [0.0, -0.1, math.nan, math.inf])
def test_a_time_that_cannot_be_gives_no_statistics(bad):
    assert math.isnan(only(training(step_s=(0.1, bad, 0.1)))["throughput"])


def test_the_interval_of_the_throughput_is_that_of_the_step_time():
    steps = fakes.noisy_steps(0.1, 300, seed=2)
    case = derived_metrics.add_metric_intervals(tidy(training(step_s=steps))).iloc[0]
    interval = stats.median_interval(steps, 0.95)
    assert case["step_time_low"] == interval.low
    assert case["throughput_low"] == pytest.approx(10 / interval.high)
    assert case["throughput_high"] == pytest.approx(10 / interval.low)
    assert case["step_time_half_width"] == pytest.approx(interval.relative_half_width)
    assert case["distance_to_bound_low"] == pytest.approx(case["distance_to_bound"] * interval.low / interval.value)
    few = derived_metrics.add_metric_intervals(tidy(training())).iloc[0]
    assert math.isnan(few["throughput_low"])


def test_the_latest_success_counts_and_else_the_latest_attempt():
    case = Case("alexnet", device="cuda")
    success, later = fakes.record(case, number=1), fakes.record(case, number=2)
    failure = fakes.record(case, number=3, status="timeout")
    assert list(derived_metrics.latest_attempts(tidy(success, later, failure))["attempt_id"]) == [later.attempt_id]
    first = fakes.record(case, number=0, status="crashed")
    assert list(derived_metrics.latest_attempts(tidy(first, failure))["attempt_id"]) == [failure.attempt_id]
    lost = fakes.record(case, number=4, status="crashed", system_key=None)
    assert list(derived_metrics.latest_attempts(tidy(success, lost))["attempt_id"]) == [success.attempt_id]


def test_an_empty_store_has_no_cases_but_all_columns():
    cases = derived_metrics.add_metric_intervals(
        derived_metrics.latest_attempts(derived_metrics.attempts_from_rows(SCHEMA.empty_table().to_pandas()))
    )
    assert len(cases) == 0
    assert set(METRICS) <= set(cases.columns)


def test_values_are_shown_with_their_units():
    shown = {
        "throughput": (5812.0, "5810 img/s"),
        "step_time": (0.0123, "12.3 ms"),
        "mfu": (0.41, "41 %"),
        "flop_rate": (4.1e14, "410 TFLOP/s"),
        "memory_allocated": (2**30, "1.00 GiB"),
        "energy_per_image": (0.0318, "31.8 mJ/img"),
        "autocorrelation": (0.25, "0.250"),
        "steps": (math.nan, "–"),
    }
    assert {name: METRICS[name].format(value) for name, (value, _) in shown.items()} == {
        name: text for name, (_, text) in shown.items()
    }


def test_a_hundred_thousand_rows_would_be_derived_in_seconds():
    rows = to_table([fakes.record(c, number=i) for i, c in enumerate([Case("alexnet")] * 200)]).to_pandas()
    many = pd.concat([rows.assign(attempt_id=rows["attempt_id"] + str(i)) for i in range(10)], ignore_index=True)
    import time

    start = time.process_time()
    assert len(derived_metrics.attempts_from_rows(many)) == 2000
    assert time.process_time() - start < 3


def test_fewer_than_four_steps_have_no_spread():
    assert math.isnan(only(training(step_s=(0.1, 0.1, 0.1)))["iqr"])
    assert only(training(step_s=(0.1,) * 4))["iqr"] == 0


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.386, "0.386 img/s"), (0.00042, "0.000420 img/s"), (38_600, "38\u202f600 img/s"), (0.0, "0 img/s")],
)
def test_a_rate_has_no_thousandths(value, words):
    assert units.rate_text(value, "img/s") == words


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("said", [units.number_text, units.percent_text, units.bytes_text])
def test_what_is_no_finite_number_is_shown_as_missing(said, value):
    assert said(value) == units.MISSING


def test_a_number_agrees_with_its_noun():
    assert (units.count_text(1, "case"), units.count_text(0, "case")) == ("1 case", "0 cases")
