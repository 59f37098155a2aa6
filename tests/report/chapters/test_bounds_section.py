"""The chapter on bounds, and the metrics that need ceilings: from stores with and without them."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex

import pytest

from dlbench.__main__ import main
from dlbench.report.analysis import content
from dlbench.report.chapters import bounds_section
from dlbench.report.figures import figure_style, plots_time
from dlbench.results.bounds_records import (
    AllReduce,
    AllReduceRun,
    Ceiling,
    CeilingRun,
    DeviceIdentity,
    LayerTime,
    ProfileRun,
)
from dlbench.results.bounds_schema import write_all_reduces, write_ceilings
from dlbench.suites.case import Case
from tests.fakes import records as fakes
from tests.fakes.bounds import write_profile
from tests.fakes.reports import build_report

CASE = Case("lenet5", mode="inference", batch_size=64, device="cpu")


@pytest.fixture
def store(tmp_path):
    return fakes.fill(tmp_path / "store", fakes.quick()[:4])


def here(system=fakes.CPU, **change):
    key = fakes.record(CASE, system).system_key
    where = DeviceIdentity(
        key, system.device_kind, system.device_name, cpu_model=system.cpu_model, torch_version="2.15.0"
    )
    return dataclasses.replace(where, **({"torch_threads": system.torch_threads} | change))


def add_ceilings(store, where=None, run_id="a", flop_per_s=100e9):
    rows = (
        Ceiling("matmul", "fp32", "64 x 64 x 64", flop=int(flop_per_s), bytes=1, time_s=(1.0, 1.5)),
        Ceiling("copy", None, "64 MiB", bytes=10**10, time_s=(1.0,)),
    )
    write_ceilings(store, CeilingRun(where or here(), rows, run_id, "2026-11-23T06:00:00+00:00"))


def add_profile(store, case=CASE, name="p", where=None, network_key=""):
    layers = (
        LayerTime("conv1", "Conv2d", (0.004, 0.004), (), forward_flop=10**8, forward_elements=10**4),
        LayerTime("tanh", "Tanh", (0.001, 0.002), (), forward_elements=10**6),
    )
    run = ProfileRun(
        where or here(), case.to_dict(), layers, {}, 0, (0.005,), (0.006, 0.007), run_id=name, network_key=network_key
    )
    write_profile(store, run)


def words_of(section):
    return " ".join(block.words + block.heading for block in section.blocks)


def section_of(store):
    with figure_style.plot_style():
        return bounds_section.bounds_section(content.read_content([store]))


def test_without_ceilings_the_chapter_is_the_command_that_measures_them(store):
    section = section_of(store)
    assert len(section.blocks) == 1
    assert f"`dlbench ceilings --results {store}`" in section.blocks[0].words


def test_the_command_of_a_profile_names_a_case_of_the_results(tmp_path, capsys):
    case = Case("lenet5", memory_format="channels_last", batch_size=2, repeat=1)
    records = [
        fakes.record(Case("lenet5", batch_size=4), fakes.CPU, status="crashed"),
        fakes.record(case, fakes.CPU, 1),
    ]
    store = fakes.fill(tmp_path / "a store", records)
    found = re.findall(r"`(dlbench profile [^`]*)`", words_of(section_of(store)))
    assert found == [
        "dlbench profile lenet5 -P mode=training -P precision=fp32 -P memory_format=channels_last -P batch_size=2 "
        f"-P device=cpu --results '{store}'"
    ]
    assert main([*shlex.split(found[0])[1:], "--time", "0.1s", "--trace-steps", "0"]) == 0
    assert "dlbench profile" not in words_of(section_of(store))


def test_ceilings_stand_in_a_table_named_as_the_report_names_the_system(store):
    add_ceilings(store)
    section = section_of(store)
    table = next(block for block in section.blocks if block.table)
    assert table.heading == "Ceilings: AMD EPYC 7B13, 2 threads"
    assert table.table.records()[0]["best"] == 100e9
    profile = "`dlbench profile alexnet -P mode=training -P precision=fp32 -P batch_size=4 -P device=cpu"
    assert f"{profile} --results {store}`" in words_of(section)


def test_a_profile_gives_both_figures_and_its_layers(store):
    add_ceilings(store)
    add_profile(store)
    plots = {block.plot.name: block.plot for block in section_of(store).blocks if block.plot}
    assert set(plots) == {"where_time_goes", "roofline-inference-fp32"}
    assert all(plot.figure is not None for plot in plots.values())
    layers = next(block for block in section_of(store).blocks if block.folded)
    assert layers.heading.startswith("Layers by time above their bound: LeNet-5, inference, fp32, batch 64")
    # 10^8 FLOP at 100 GFLOP/s; 10^6 elements of 4 bytes at 10 GB/s.
    bound_s = {row["layer"]: row["bound_s"] for row in layers.table.records()}
    assert bound_s == {"conv1": pytest.approx(1e-3), "tanh": pytest.approx(4e-4)}


def test_devices_beyond_those_that_are_drawn_keep_their_tables(store, monkeypatch):
    monkeypatch.setattr(bounds_section, "MAX_DEVICES", 1)
    for number in range(3):
        where = here(torch_threads=number + 1)
        add_ceilings(store, where, run_id=f"c{number}")
        add_profile(store, name=f"p{number}", where=where)
    section = section_of(store)
    assert sum(block.plot is not None for block in section.blocks) == 2
    assert sum(block.heading.startswith("Ceilings: ") for block in section.blocks) == 3
    assert sum(block.heading.startswith("Layers by time above their bound: ") for block in section.blocks) == 3
    assert "Figures show only the first 1 device. Without figures: AMD EPYC 7B13, 2 threads, AMD" in words_of(section)


def test_of_two_profiles_of_a_case_the_later_counts(store):
    add_profile(store, name="1")
    add_profile(store, name="2")
    assert sum(block.folded for block in section_of(store).blocks) == 1


def test_profiles_of_two_definitions_of_one_name_stay_apart(store):
    add_ceilings(store)
    add_profile(store, name="1", network_key="one")
    add_profile(store, name="2", network_key="two")
    assert sum(block.folded for block in section_of(store).blocks) == 2
    # The cases are of the catalogue's network.
    assert content.read_content([store]).shown["layer_bound"].isna().all()


def test_every_case_stands_beside_the_measured_peak_of_its_system(store):
    add_ceilings(store)
    shown = content.read_content([store]).shown
    assert set(shown["measured_peak"]) == {100e9}
    assert shown["share_of_measured_peak"].tolist() == pytest.approx((shown["flop_rate"] / 100e9).tolist())
    assert shown["layer_bound"].isna().all()
    with figure_style.plot_style():
        plot = plots_time.flop_time_plot(shown)
    assert "The dashed line is the peak" in plot.caption
    for axes in plot.figure.axes:
        flop, time_s = next(line for line in axes.lines if line.get_linestyle() == "--").get_data()
        assert time_s == pytest.approx(flop / 100e9)


def test_rooflines_of_training_and_inference_stay_apart(store):
    add_ceilings(store)
    add_profile(store)
    add_profile(store, dataclasses.replace(CASE, mode="training"), "t")
    plots = {block.plot.name: block.plot for block in section_of(store).blocks if block.plot}
    assert set(plots) == {"where_time_goes", "roofline-training-fp32", "roofline-inference-fp32"}
    assert "t" in plots["roofline-training-fp32"].runs
    assert "p" not in plots["roofline-training-fp32"].runs


@pytest.mark.parametrize("change", [{"system_key": "another"}, {"torch_threads": 1}, {"device_kind": "cuda"}])
def test_the_peak_of_another_system_says_nothing(store, change):
    add_ceilings(store, here(**change))
    assert content.read_content([store]).shown["measured_peak"].isna().all()


def test_the_bound_with_memory_is_that_of_the_profiled_layers(store):
    add_ceilings(store)
    add_profile(store)
    shown = content.read_content([store]).shown.set_index(["model", "mode"])
    assert shown.loc[("lenet5", "inference"), "layer_bound"] == pytest.approx(1.4e-3)
    assert math.isnan(shown.loc[("lenet5", "training"), "layer_bound"])
    distance = shown.loc[("lenet5", "inference"), "step_time"] / 1.4e-3
    assert shown.loc[("lenet5", "inference"), "distance_to_layer_bound"] == pytest.approx(distance)
    one = shown.loc[("lenet5", "inference")]
    assert one["distance_to_layer_bound_low"] == pytest.approx(one["step_time_low"] / 1.4e-3)
    assert one["share_of_measured_peak_high"] == pytest.approx(one["flop_rate_high"] / one["measured_peak"])


def test_a_compiled_case_has_no_bound_from_eager_bytes(tmp_path):
    compiled = dataclasses.replace(CASE, compile="default")
    store = fakes.fill(tmp_path / "store", [fakes.record(compiled, fakes.CPU)])
    add_ceilings(store)
    add_profile(store)
    shown = content.read_content([store]).shown
    assert shown["measured_peak"].notna().all()
    assert shown["layer_bound"].isna().all()


def test_several_devices_share_of_the_peak_counts_all_of_them(tmp_path):
    case = Case("vgg16", device="cuda", devices_per_node=4)
    store = fakes.fill(tmp_path / "store", [fakes.record(case)])
    key = fakes.record(case).system_key
    add_ceilings(store, DeviceIdentity(key, "cuda", "NVIDIA H200", torch_version="2.15.0"), flop_per_s=50e12)
    one = content.read_content([store]).shown.iloc[0]
    assert one["share_of_measured_peak"] == pytest.approx(one["flop_rate"] / (4 * 50e12))
    assert one["mfu"] == pytest.approx(one["flop_rate"] / (4 * 67e12))


def test_cases_above_the_measured_peak_are_told(store):
    add_ceilings(store, flop_per_s=1000)
    assert "4 cases reached more FLOP/s than the measured peak of the device" in words_of(section_of(store))


def test_all_reduces_are_drawn_and_tabled(store):
    sizes = (AllReduce(4096, (1e-4, 2e-4, 3e-4)), AllReduce(2**20, (1e-3, math.nan)), AllReduce(2**24, (math.nan,)))
    run = AllReduceRun(here(), 1, 4, "gloo", "sockets", sizes, run_id="a", started_at="2026-11-23T06:00:00+00:00")
    write_all_reduces(store, run)
    blocks = [block for block in section_of(store).blocks if "All-reduce" in block.heading]
    assert blocks[0].plot.figure is not None
    first, _, lost = blocks[1].table.records()
    assert (first["ranks"], first["backend"], first["median_s"]) == (4, "gloo over sockets", 2e-4)
    assert first["bus_bytes_per_s"] == pytest.approx(4096 / 2e-4 * 1.5)
    assert lost["bus_bytes_per_s"] is None


def test_what_cannot_be_read_is_named_and_the_rest_is_shown(store):
    add_ceilings(store)
    (store / "ceilings" / "ceilings-broken.parquet").write_bytes(b"PAR1 no")
    (store / "profiles" / "half").mkdir(parents=True)
    (store / "profiles" / "half" / "profile.json").write_text('{"where"')
    found = content.read_content([store])
    assert len(found.skipped) == 2
    assert any("ceilings-broken.parquet" in words for words in found.skipped)
    assert found.shown["measured_peak"].notna().all()


def test_the_folders_of_a_store_named_one_by_one_give_no_false_problems(store):
    add_ceilings(store)
    add_profile(store)
    (store / "profiles" / "p" / "layers.parquet").write_bytes(b"no cases")
    (store / "attempts").mkdir()
    for sources in (sorted(store.iterdir()), [f"{store}/*"], [f"{store}/**/*.parquet"]):
        found = content.read_content(sources)
        assert found.skipped == ()
        assert len(found.shown) == 4
        assert found.shown["measured_peak"].notna().all()


@pytest.mark.parametrize("pattern", ["{}", "{}/*.parquet", "{}/merged-fake.parquet", "{}/.."])
def test_ceilings_are_found_whatever_names_the_store(store, pattern):
    add_ceilings(store)
    assert content.read_content([pattern.format(store)]).shown["measured_peak"].notna().all()


def test_the_whole_report_holds_the_chapter_and_hostile_names_do_no_harm(store, tmp_path):
    add_ceilings(store, here(hostname=fakes.HOSTILE, cpu_model=fakes.HOSTILE), run_id="b")
    elsewhere = DeviceIdentity("other", "cpu", cpu_model=fakes.HOSTILE, torch_threads=1)
    add_profile(store, dataclasses.replace(CASE, model=fakes.HOSTILE), where=elsewhere)
    build_report([store], tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    assert 'id="bounds"' in text
    assert "<script>alert" not in text
    assert (tmp_path / "report" / "figures" / "roofline-inference-fp32-2.svg").exists()
