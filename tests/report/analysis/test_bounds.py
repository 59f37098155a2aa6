"""Bounds by hand, roofs from the right device, and times that mean nothing."""

from __future__ import annotations

import dataclasses
import math
import os

import pandas as pd
import pytest

from dlbench.report.analysis import bounds
from dlbench.report.analysis.bounds import FLOP, MEMORY, DeviceRoofline, NetworkBound, least_time_and_bottleneck
from dlbench.report.chapters import bounds_tables
from dlbench.results.bounds_records import Ceiling, CeilingRun, DeviceIdentity, LayerTime, ProfileRun
from dlbench.results.bounds_schema import ceilings_frame, layers_frame, read_ceilings, write_ceilings
from dlbench.results.parts import SkippedPart
from dlbench.suites.case import Case
from dlbench.table import FORMATS, render

#: 100 FLOP/s and 10 B/s: ten FLOP per byte is the ridge.
ROOF = DeviceRoofline("fp32", 100.0, 10.0, "measured", "measured")
HERE = DeviceIdentity(
    "0123456789ab", "cpu", hostname="here", cpu_model="A CPU", torch_version="2.15.0", torch_threads=2
)
H200 = DeviceIdentity("fedcba987654", "cuda", "NVIDIA H200", torch_version="2.15.0", torch_threads=16)


def ceilings(where=HERE, run_id="a"):
    rows = (
        Ceiling("matmul", "fp32", "1 x 1 x 1", flop=100, bytes=1, time_s=(2.0, 1.0, 4.0)),
        Ceiling("matmul", "fp32", "2 x 2 x 2", flop=100, bytes=1, time_s=(3.0,)),
        Ceiling("conv", "fp32", "small", flop=300, bytes=1, time_s=(1.0, 2.0)),
        Ceiling("matmul", "amp_bf16", "1 x 1 x 1", flop=1000, bytes=1, time_s=(1.0,)),
        Ceiling("conv", "amp_fp16", "small", flop=10, error="left out"),
        Ceiling("copy", None, "1 MiB", bytes=20, time_s=(1.0,)),
        Ceiling("triad", None, "1 MiB", bytes=30, time_s=(1.0, 1.5)),
    )
    return CeilingRun(where, rows, run_id, "2026-11-23T06:00:00+00:00")


def layer(name="conv", forward_s=(1.0,), backward_s=(2.0,), **work):
    return LayerTime(name, "Conv2d", forward_s, backward_s, **work)


def test_the_bound_is_the_larger_of_both_times():
    assert least_time_and_bottleneck(500, 10, ROOF) == (5.0, FLOP)
    assert least_time_and_bottleneck(500, 100, ROOF) == (10.0, MEMORY)
    assert least_time_and_bottleneck(0, 10, ROOF) == (1.0, MEMORY)
    assert least_time_and_bottleneck(0, 0, ROOF) == (0.0, None)


@pytest.mark.parametrize("work", [(math.nan, 1), (1, math.nan), (-1, 1), (1, math.inf)])
def test_work_that_is_no_number_has_no_bound(work):
    assert least_time_and_bottleneck(*work, ROOF) == (None, None)


def test_without_a_rate_there_is_no_bound_for_what_needs_it():
    assert least_time_and_bottleneck(5, 5, DeviceRoofline("fp32", 100.0, None)) == (None, None)
    assert least_time_and_bottleneck(5, 0, DeviceRoofline("fp32", 100.0, None)) == (0.05, FLOP)


def test_a_layer_by_hand():
    work = {"forward_flop": 50, "forward_elements": 1, "backward_flop": 100, "backward_elements": 5}
    row = bounds.layer_bounds(layers_frame((layer(backward_fixed_bytes=10, **work),)), ROOF).iloc[0]
    assert (row["forward_bound_s"], row["forward_limit"]) == (0.5, FLOP)
    assert (row["backward_bytes"], row["backward_bound_s"], row["backward_limit"]) == (30.0, 3.0, MEMORY)
    assert (row["time_s"], row["bound_s"], row["limited_by"]) == (3.0, 3.5, MEMORY)
    assert (row["lost_s"], row["distance"]) == (-0.5, pytest.approx(3 / 3.5))
    assert row["note"] == "from cache"


def test_mixed_precision_halves_the_elements_and_nothing_else():
    rows = layers_frame((layer(forward_elements=100, forward_fixed_bytes=8),))
    half = bounds.layer_bounds(rows, dataclasses.replace(ROOF, precision="amp_bf16")).iloc[0]
    assert half["forward_bytes"] == 208


def test_layers_come_by_time_lost():
    rows = layers_frame(
        (layer("near", forward_flop=290), layer("far", forward_flop=10), layer("long", (9.0,), forward_flop=900))
    )
    frame = bounds.layer_bounds(rows, ROOF)
    assert list(frame["layer"]) == ["far", "long", "near"]
    assert frame["lost_s"].tolist() == pytest.approx([2.9, 2.0, 0.1])


@pytest.mark.parametrize("samples", [(), (0.0, 0.0), (math.nan,), (None, None), (-1.0, math.inf)])
def test_times_that_mean_nothing_are_missing_and_flagged(samples):
    rows = layers_frame((layer("bad", samples, samples, forward_flop=100, forward_elements=1, backward_elements=1),))
    row = bounds.layer_bounds(rows, ROOF).iloc[0]
    assert row[["forward_s", "backward_s", "time_s", "lost_s", "distance"]].isna().all()
    assert "no usable" in row["note"]


def test_a_layer_says_what_is_not_in_its_flop():
    rows = (layer("mix", forward_flop=100, note="not counted: _fft_r2c"), layer("fc", forward_flop=1000))
    frame = bounds.layer_bounds(layers_frame(rows), ROOF).set_index("layer")
    assert frame["note"].to_dict() == {"mix": "not counted: _fft_r2c", "fc": "above the measured peak"}
    run = ProfileRun(HERE, Case("mixer").to_dict(), rows, step_s=(4.0,), hooked_step_s=(4.0,))
    text = render(bounds_tables.profile_table(run, ROOF), "text")
    assert "FLOP and bounds are not exact for mix (not counted: _fft_r2c)" in text


def test_the_median_leaves_out_what_is_no_time():
    assert bounds.median_usable_time((0.0, 2.0, math.nan, 4.0, None, 3.0)) == 3.0


def test_a_network_is_the_sum_of_its_layers_and_its_optimizer():
    rows = (
        layer("flop", forward_flop=200, forward_elements=1, backward_flop=400),  # 2 s + 4 s
        layer("memory", forward_elements=10, backward_flop=100, backward_elements=5),  # 4 s + max(1, 2) s
    )
    frame = bounds.layer_bounds(layers_frame(rows), ROOF)
    found = bounds.time_bound_of_network(frame, ROOF, (20.0, 30.0, 25.0), optimizer_bytes=10)
    assert found == NetworkBound(flop_s=7.0, memory_s=5.0, optimizer_s=1.0, step_s=25.0)
    assert (found.bound_s, found.ratio_to_bound) == (13.0, pytest.approx(25 / 13))


def test_a_network_without_roof_or_step_has_no_distance():
    frame = bounds.layer_bounds(layers_frame((layer(forward_flop=1, forward_elements=1),)), DeviceRoofline("fp32"))
    assert bounds.time_bound_of_network(frame, DeviceRoofline("fp32"), (1.0,), 0).ratio_to_bound is None
    known = bounds.layer_bounds(layers_frame((layer(forward_flop=1),)), ROOF)
    assert bounds.time_bound_of_network(known, ROOF, (0.0, math.nan), 0).ratio_to_bound is None
    assert bounds.time_bound_of_network(known.iloc[:0], ROOF, (1.0,), 0).bound_s is None


def test_the_roof_is_the_best_measured_of_the_same_system():
    roof = bounds.find_device_roofline(ceilings_frame(ceilings()), HERE, "fp32")
    assert roof == DeviceRoofline("fp32", 300.0, 30.0, "measured", "measured")
    assert bounds.find_device_roofline(ceilings_frame(ceilings()), HERE, "amp_bf16").flop_per_s == 1000.0


@pytest.mark.parametrize("change", [{"system_key": "x"}, {"device_kind": "cuda"}, {"torch_threads": 1}])
def test_another_system_has_another_roof(change):
    other = dataclasses.replace(HERE, **change)
    assert bounds.find_device_roofline(ceilings_frame(ceilings()), other, "fp32") == DeviceRoofline("fp32")


def test_a_gpu_without_ceilings_has_its_datasheet():
    roof = bounds.find_device_roofline(None, H200, "amp_bf16")
    assert roof == DeviceRoofline("amp_bf16", 989e12, 4.8e12, "datasheet", "datasheet")
    assert "989 TFLOP/s (datasheet)" in roof.describe()


def test_what_was_not_measured_on_a_gpu_comes_from_the_datasheet():
    roof = bounds.find_device_roofline(ceilings_frame(ceilings(H200)), H200, "tf32")
    assert (roof.flop_source, roof.bytes_source) == ("datasheet", "measured")


def test_no_ceilings_in_the_store_is_no_error_and_says_what_to_do(tmp_path):
    found = read_ceilings(tmp_path)
    assert found.empty
    assert "run `dlbench ceilings` to measure the peak" in bounds.find_device_roofline(found, HERE, "fp32").describe()


def test_a_corrupt_part_is_named_and_passed_over(tmp_path):
    write_ceilings(tmp_path, ceilings())
    whole = read_ceilings(tmp_path)
    (tmp_path / "ceilings" / "ceilings-x.parquet").write_bytes(b"no parquet")
    os.mkfifo(tmp_path / "ceilings" / "ceilings-y.parquet")
    with pytest.warns(SkippedPart, match=r"ceilings-[xy]\.parquet") as caught:
        assert read_ceilings(tmp_path).equals(whole)
    assert any("ceilings-y.parquet: it is not a file" in str(w.message) for w in caught)


def test_the_best_run_counts_where_there_are_several(tmp_path):
    write_ceilings(tmp_path, ceilings(run_id="a"))
    slower = tuple(dataclasses.replace(c, time_s=tuple(9 * t for t in c.time_s)) for c in ceilings().ceilings)
    write_ceilings(tmp_path, dataclasses.replace(ceilings(run_id="b"), ceilings=slower))
    rows = read_ceilings(tmp_path)
    assert len(rows) == 14
    assert bounds.find_device_roofline(rows, HERE, "fp32").flop_per_s == 300.0


def test_the_table_of_ceilings_has_the_best_of_each_kind():
    table = bounds_tables.ceilings_table(ceilings_frame(ceilings()))
    rows = {(r["kind"], r["precision"]): r for r in table.records()}
    assert rows["matmul [FLOP/s]", "fp32"]["best"] == 100.0
    assert rows["matmul [FLOP/s]", "fp32"]["shape"] == "1 x 1 x 1"
    assert rows["conv [FLOP/s]", "amp_fp16"]["best"] is None
    assert rows["triad [B/s]", None]["best"] == 30.0
    assert [r["kind"].split()[0] for r in table.records()[-2:]] == ["copy", "triad"]
    assert table.title == "Ceilings of A CPU, 2 threads (PyTorch 2.15.0)"
    assert "1 of 7 operand shapes were not measured" in table.notes[-1]


def test_a_gpu_stands_beside_its_datasheet():
    table = bounds_tables.ceilings_table(ceilings_frame(ceilings(H200)), every_shape=True)
    assert len(table.rows) == 7
    row = next(r for r in table.records() if r["precision"] == "amp_bf16")
    assert (row["datasheet"], row["of_datasheet"]) == (989e12, pytest.approx(1000 / 989e12))
    assert next(r for r in table.records() if r["kind"] == "copy [B/s]")["datasheet"] == 4.8e12


def profile(**change):
    rows = (
        layer("conv", (1.0, 3.0), (2.0, 4.0), forward_flop=50, forward_elements=1, backward_flop=100),
        LayerTime("relu", "ReLU", (0.5, 0.5), (), forward_elements=1),
    )
    values = {
        "where": HERE,
        "case": Case("lenet5", batch_size=2).to_dict(),
        "layers": rows,
        "parts_s": {"loss": (0.5, 0.5)},
        "optimizer_bytes": 10,
        "step_s": (4.0, 5.0, 6.0),
        "hooked_step_s": (4.5, 8.5),
    }
    return ProfileRun(**(values | change))


def test_coverage_and_the_cost_of_hooks_by_hand():
    run = profile()
    assert bounds.share_of_time_in_layers(run) == pytest.approx((1 + 3 + 2 + 4 + 1) / 13)
    assert bounds.profiling_overhead(run) == pytest.approx(6.5 / 5 - 1)
    table = bounds_tables.profile_table(run, ROOF)
    assert any("Layers take 85 %" in note for note in table.notes)
    assert any("30 % more than without" in note for note in table.notes)
    assert any("Step 5.00 s, bound 2.90 s" in note and "1.72 × the bound" in note for note in table.notes)
    first = table.records()[0]
    assert (first["layer"], first["lost_s"], first["share"]) == ("conv", 3.5, pytest.approx(5 / 6.5))


def test_interrupted_steps_are_said_where_the_medians_do_not_add_up():
    quiet, stalled = [0.1] * 3, [0.1, 0.1, 5.0]
    rows = (LayerTime("a", "Conv2d", tuple(stalled)), LayerTime("b", "Conv2d", tuple(stalled[::-1])))
    run = profile(layers=rows, parts_s={"loss": (0.1, 5.0, 0.1)}, hooked_step_s=(5.2, 5.2, 5.2))
    notes = " ".join(bounds_tables.profile_table(run, ROOF).notes)
    assert "median times above add up to only 5.8 % of the median step" in notes
    rows = (LayerTime("a", "Conv2d", tuple(quiet)), LayerTime("b", "Conv2d", tuple(quiet)))
    run = profile(layers=rows, parts_s={"loss": (0.1, 0.1, 0.1)}, hooked_step_s=(0.3, 0.3, 0.3))
    assert "interrupted" not in " ".join(bounds_tables.profile_table(run, ROOF).notes)


def test_without_a_roof_the_slowest_layer_comes_first():
    rows = (LayerTime("flatten", "Flatten", (0.1,)), layer("conv", (2.0,), forward_flop=5, forward_elements=1))
    frame = bounds.layer_bounds(layers_frame(rows), DeviceRoofline("fp32"))
    assert list(frame["layer"]) == ["conv", "flatten"]


@pytest.mark.parametrize("form", FORMATS)
def test_the_table_prints_in_every_format(form):
    assert "conv" in render(bounds_tables.profile_table(profile(), ROOF, limit=1), form)
    assert "Not shown: 1 layer," in " ".join(bounds_tables.profile_table(profile(), ROOF, limit=1).notes)


def test_a_profile_of_nothing_but_zeros_says_so_and_invents_nothing():
    run = profile(step_s=(0.0,), hooked_step_s=(0.0, None), layers=(layer("x", (0.0, 0.0), (0.0,), forward_flop=5),))
    table = bounds_tables.profile_table(run, DeviceRoofline("fp32"))
    assert table.records()[0]["lost_s"] is None
    assert any("unknown" in note for note in table.notes)
    assert bounds.share_of_time_in_layers(run) is None


def test_frames_have_numbers_even_where_all_are_missing():
    frame = bounds.layer_bounds(layers_frame((layer(forward_flop=1),)), DeviceRoofline("fp32"))
    assert frame["bound_s"].dtype == float
    assert isinstance(frame, pd.DataFrame)
