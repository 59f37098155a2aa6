"""Ceilings: work counted by hand, samples by a clock that can be read beforehand, and what a device cannot do."""

from __future__ import annotations

import dataclasses
import math
import statistics

import pyarrow.parquet as pq
import pytest
import torch

from dlbench.errors import BadInput, DeviceUnavailable, UnknownName
from dlbench.report.analysis.bounds import find_device_roofline
from dlbench.report.chapters.bounds_tables import ceilings_table
from dlbench.results.bounds_records import Ceiling, CeilingRun, DeviceIdentity, parse_run_json, to_json
from dlbench.results.bounds_schema import CEILINGS_SCHEMA, ceilings_frame, read_ceilings, write_ceilings
from dlbench.worker.jobs import ceilings
from dlbench.worker.timing import HostClock

CPU = torch.device("cpu")
SUSTAINED = ("matmul_sustained", "copy_sustained")


class SteadyClock:
    """Every stamp is one second after the last, whatever happens in between."""

    name, runs_ahead = "fake", True

    def __init__(self):
        self.now_s, self.waited_for, self.released = 0.0, [], []

    def stamp(self):
        self.now_s += 1.0
        return self.now_s

    def wait_for_stamp(self, stamp):
        self.waited_for.append(stamp)

    def elapsed_s(self, start, end):
        return end - start

    def recycle_stamp(self, stamp):
        self.released.append(stamp)

    def synchronize(self):
        pass


@pytest.fixture
def few(monkeypatch):
    """A sweep that takes a second."""
    monkeypatch.setattr(ceilings, "MATMULS", {"cpu": ((64, 64, 64), (31, 33, 65))})
    monkeypatch.setattr(ceilings, "CONVS", (ceilings.ConvShape(3, 16, 8, 3, 2),))
    monkeypatch.setattr(ceilings, "MIN_ARRAY_BYTES", 2**20)
    monkeypatch.setattr(ceilings, "last_level_cache_bytes", lambda: 0)
    monkeypatch.setattr(ceilings, "supported_precisions", lambda device: ["fp32", "amp_bf16"])


@pytest.mark.parametrize(
    ("cores", "expected"), [({0}, 32 * 2**20), ({0, 1}, 32 * 2**20), ({0, 1, 2}, 64 * 2**20), ({7}, 0)]
)
def test_arrays_are_beyond_the_last_caches_of_all_usable_cores_together(tmp_path, monkeypatch, cores, expected):
    for core, sharing in ((0, "0-1"), (1, "0-1"), (2, "2-3")):
        for index, (size, shared) in enumerate((("48K", str(core)), ("1024K", str(core)), ("32768K", sharing))):
            folder = tmp_path / f"cpu{core}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            (folder / "size").write_text(f"{size}\n")
            (folder / "shared_cpu_list").write_text(f"{shared}\n")
    monkeypatch.setattr(ceilings, "CPU_FOLDER", tmp_path)
    monkeypatch.setattr(ceilings, "allowed_cores", lambda: frozenset(cores))
    assert ceilings.last_level_cache_bytes() == expected


def test_ceilings_of_a_busy_host_say_so_and_those_of_older_files_nothing(few, tmp_path):
    run = dataclasses.replace(ceilings.measure_ceilings("cpu", 1.0), run_id="r", started_at="2026-11-20T08:00:00+00:00")
    assert 0 <= run.busy_share <= 1
    file = write_ceilings(tmp_path, dataclasses.replace(run, busy_share=0.49))
    (note,) = [n for n in ceilings_table(read_ceilings(tmp_path)).notes if n.startswith("Busy host")]
    assert "49 %" in note
    pq.write_table(pq.read_table(file).drop_columns(["busy_share"]), file)
    rows = read_ceilings(tmp_path)
    assert rows["busy_share"].isna().all()
    assert not any("Busy host" in n for n in ceilings_table(rows).notes)


def test_without_memory_the_arrays_are_small_and_not_nothing(monkeypatch):
    monkeypatch.setattr(ceilings, "allocatable_bytes", lambda: 1000)
    assert ceilings.array_sizes(torch.device("cpu")) == [2**20]


def test_a_sustained_ceiling_repeats_the_best_shape_of_its_kind_and_bounds_nothing(few):
    run = ceilings.measure_ceilings("cpu", 1.0, ["fp32"])
    sustained = {c.kind: c for c in run.ceilings if c.kind in SUSTAINED}
    products = [c for c in run.ceilings if c.kind == "matmul" and c.time_s]
    assert sustained["matmul_sustained"].shape == max(products, key=lambda c: c.flop / min(c.time_s)).shape
    assert len(sustained["copy_sustained"].time_s) >= ceilings.MIN_SAMPLES
    frame = ceilings_frame(dataclasses.replace(run, run_id="r", started_at="2026-11-20T08:00:00+00:00"))
    roof = find_device_roofline(frame, run.where, "fp32")
    assert roof.flop_per_s == frame.loc[frame["kind"].isin(["matmul", "conv"]), "best_flop_per_s"].max()
    shown = {row["kind"].split()[0]: row for row in ceilings_table(frame).records()}
    assert shown["matmul_sustained"]["best"] == shown["matmul_sustained"]["median"]


def test_a_rate_above_the_datasheet_is_flagged():
    where = DeviceIdentity("key", "cuda", "NVIDIA H100 80GB HBM3", torch_version="2.14")
    run = CeilingRun(
        where, (Ceiling("copy", None, "1024 MiB", bytes=2**31, time_s=(2**31 / 3.6e12,) * 9),), "r", "2026-11-20"
    )
    (note,) = [n for n in ceilings_table(ceilings_frame(run)).notes if n.startswith("Faster than the datasheet")]
    assert note == (
        "Faster than the datasheet allows: copy [B/s]. The device or its clock differs from the datasheet's, or the "
        "datasheet is wrong."
    )


def test_all_kinds_are_measured_and_survive_parquet(few, tmp_path):
    run = parse_run_json(CeilingRun, to_json(ceilings.measure_ceilings("cpu", 2.0)))
    assert len(run.ceilings) == 2 * 2 + 2 * (2 + 2) + 3  # one copy and two products again, for longer
    # On a machine busy with something else a shape may be left out, but no kind.
    assert {c.kind for c in run.ceilings if c.time_s} == {"matmul", "conv", "copy", "triad", *SUSTAINED}
    assert all(bool(c.time_s) != bool(c.error) for c in run.ceilings)
    assert run.where.device_kind == "cpu"
    assert len(run.where.system_key) == 12
    write_ceilings(tmp_path, run)
    rows = read_ceilings(tmp_path)
    assert list(rows.columns) == CEILINGS_SCHEMA.names
    first = rows.iloc[0]
    times = [t for t in run.ceilings[0].time_s if t >= statistics.median(run.ceilings[0].time_s) / 2]
    assert first["best_bytes_per_s"] == pytest.approx(run.ceilings[0].bytes / min(times))


def test_work_is_what_a_person_counts(few):
    by_shape = {
        (t.ceiling.kind, t.ceiling.precision, t.ceiling.shape): t.ceiling
        for t in ceilings.microbenchmarks(CPU, ceilings.supported_precisions(CPU))
    }
    product = by_shape["matmul", "fp32", "31 x 33 x 65"]
    assert product.flop == 2 * 31 * 33 * 65
    assert product.bytes == 4 * (31 * 65 + 65 * 33 + 31 * 33)
    assert by_shape["matmul", "amp_bf16", "31 x 33 x 65"].bytes == product.bytes // 2
    # 16x16, 3x3 filter, padding 1, stride 2: 8x8 positions.
    conv = by_shape["conv", "fp32", "4 3 16 16 -> 8, 3x3/2, channels_last"]
    assert conv.flop == 2 * 4 * (8 * 8) * 8 * (3 * 3 * 3)
    assert conv.bytes == 4 * (4 * 3 * 16 * 16 + 8 * 3 * 3 * 3 + 4 * 8 * 8 * 8)
    assert by_shape["copy", None, "1 MiB"].bytes == 2 * 2**20
    assert by_shape["triad", None, "2 MiB"].bytes == 3 * 2 * 2**20


def test_convolutions_have_the_shape_that_their_work_is_counted_for(few):
    conv = next(
        t for t in ceilings.microbenchmarks(CPU, ceilings.supported_precisions(CPU)) if t.ceiling.kind == "conv"
    )
    assert conv.prepare()().shape == (4, 8, 8, 8)


def test_random_operands(few):
    microbenchmark = next(
        t for t in ceilings.microbenchmarks(CPU, ceilings.supported_precisions(CPU)) if t.ceiling.kind == "triad"
    )
    result = microbenchmark.prepare()()
    # b + 3 c of standard normals: variance 10.
    assert float(result.var()) == pytest.approx(10, rel=0.05)


def test_samples_are_queued_and_waited_for_once():
    clock = SteadyClock()
    times, calls = ceilings.sample_call_times(lambda: None, clock, sample_s=1e-9, share_s=10.0)
    assert calls == 1
    assert times == (1.0,) * ceilings.MAX_SAMPLES
    assert len(clock.waited_for) == 1
    assert len(clock.released) == ceilings.MAX_SAMPLES + 1


def test_a_shape_too_large_for_its_share_is_a_row_with_the_reason():
    done = [Ceiling("matmul", "fp32", "small", flop=1000, time_s=(1.0, 1.0, 1.0))]
    microbenchmark = ceilings.Microbenchmark(
        Ceiling("matmul", "fp32", "large", flop=10_000), lambda: pytest.fail("ran")
    )
    left_out = ceilings._measure_ceiling(microbenchmark, CPU, HostClock(), 1.0, 2.0, done)
    assert left_out.time_s == ()
    assert left_out.error == "skipped: one call takes about 10 s, but only 2 s are available"


def test_what_the_device_cannot_do_is_a_row_with_the_reason():
    def prepare():
        raise RuntimeError('"addmm" not implemented for "Half"\nmore')

    failed = ceilings._measure_ceiling(
        ceilings.Microbenchmark(Ceiling("matmul", "amp_fp16", "x"), prepare), CPU, HostClock(), 1.0, 1.0, []
    )
    assert failed.error == 'RuntimeError: "addmm" not implemented for "Half"'


@pytest.mark.parametrize("time_s", [(), (0.0,), (math.nan, -1.0, math.inf), (None,)])
def test_times_that_mean_nothing_give_no_rate(time_s, few):
    run = ceilings.measure_ceilings("cpu", 0.01)
    row = Ceiling("matmul", "fp32", "x", flop=10, bytes=10, time_s=time_s)
    bad = ceilings_frame(type(run)(run.where, (row,))).iloc[0]
    assert math.isnan(float(bad["best_flop_per_s"] or math.nan))
    assert bad["error"] == "no usable sample"


def test_median_best_and_spread_by_hand(few):
    run = ceilings.measure_ceilings("cpu", 0.01)
    row = Ceiling("matmul", "fp32", "x", flop=120, time_s=(1.5, 2.0, 3.0, 4.0, 6.0))
    good = ceilings_frame(type(run)(run.where, (row,))).iloc[0]
    assert (good["best_flop_per_s"], good["median_flop_per_s"]) == (80.0, 40.0)
    assert good["spread"] == pytest.approx((4 - 2) / 3)


def test_a_glitch_of_the_clock_is_no_peak_and_stays_among_the_samples():
    times = (2.5e-3,) * 19 + (2.4e-3, 1e-9)
    run = CeilingRun(
        DeviceIdentity("0123456789ab", "cpu"), (Ceiling("matmul", "fp32", "x", flop=12, bytes=24, time_s=times),)
    )
    row = ceilings_frame(run).iloc[0]
    assert row["best_flop_per_s"] == pytest.approx(12 / 2.4e-3)
    assert row["best_bytes_per_s"] == pytest.approx(24 / 2.4e-3)
    assert tuple(row["time_s"]) == times


def test_an_unknown_device_is_named():
    with pytest.raises(UnknownName, match=r"unknown device 'cudo'; did you mean 'cuda'\?"):
        ceilings.measure_ceilings("cudo", 1.0)


def test_only_the_precisions_asked_for(few):
    run = ceilings.measure_ceilings("cpu", 0.05, ["amp_bf16"])
    assert {c.precision for c in run.ceilings if c.flop} == {"amp_bf16"}
    with pytest.raises(UnknownName, match="unknown precision 'fp64'"):
        ceilings.measure_ceilings("cpu", 0.05, ["fp64"])


def test_slow_small_shapes_do_not_keep_large_ones_from_being_tried(few, monkeypatch):
    asked = []
    monkeypatch.setattr(ceilings, "_measure_ceiling", lambda *a: asked.append(a[3:5]) or a[0].ceiling)
    ceilings.measure_ceilings("cpu", 1000.0)
    share_s, most_s = asked[0]
    assert most_s == pytest.approx(100.0, rel=0.01)
    assert most_s > share_s


@pytest.mark.parametrize("budget_s", [0.0, -1.0, math.nan, math.inf])
def test_no_time_is_refused(budget_s):
    with pytest.raises(BadInput, match="time budget"):
        ceilings.measure_ceilings("cpu", budget_s)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_said():
    with pytest.raises(DeviceUnavailable, match="'cuda' was requested"):
        ceilings.measure_ceilings("cuda", 1.0)


class TestOnAGpu:
    """The parts that differ there, against a device that only answers."""

    @pytest.fixture(autouse=True)
    def gpu(self, monkeypatch):
        self.capability = (9, 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: self.capability)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (80 * 2**30, 80 * 2**30))
        monkeypatch.setattr(ceilings, "cuda_device_properties", lambda _: {"l2_cache_bytes": 60 * 2**20})

    def test_hopper_has_all_four_precisions(self):
        assert ceilings.supported_precisions(torch.device("cuda")) == ["fp32", "tf32", "amp_bf16", "amp_fp16"]

    def test_volta_has_neither_tf32_nor_its_own_bf16(self):
        self.capability = (7, 0)
        assert ceilings.supported_precisions(torch.device("cuda")) == ["fp32", "amp_fp16"]

    def test_arrays_are_beyond_the_cache(self):
        assert ceilings.array_sizes(torch.device("cuda")) == [960 * 2**20, 3840 * 2**20]

    def test_the_sweep_has_square_skinny_and_odd_products(self):
        shapes = {t.ceiling.shape for t in ceilings.microbenchmarks(torch.device("cuda"), ["amp_bf16"])}
        assert {"8192 x 8192 x 8192", "8191 x 8191 x 8191", "128 x 8192 x 8192", "8192 x 8192 x 128"} <= shapes
