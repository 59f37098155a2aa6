"""Curves of made-up clusters, and predictions for sizes that were not measured, where the truth is known."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from dlbench.process_statistics import interval_over_processes
from dlbench.report.analysis.content import read_content
from dlbench.report.analysis.scaling_curves import find_scaling_curves
from dlbench.report.analysis.scaling_model import HOPS, ScalingModel, ScalingSample, fit_scaling_model
from dlbench.report.analysis.side_by_side import process_values_with_intervals
from dlbench.report.chapters.scaling import scaling_model_sentence, scaling_section, scaling_table
from dlbench.report.chapters.tables_systems import UNKNOWN_SPREAD
from dlbench.report.figures import figure_style
from dlbench.report.figures.figure_parts import INTERVAL_CAPTION
from dlbench.report.figures.plots_scaling import _error_bars, scaling_plots
from dlbench.suites.case import Case
from tests.fakes import records as fakes

FITTED = (1, 2, 4, 8, 16)
STRONG_BATCH = 4096


def truth(algorithm: str, latency_s: float, transfer_s: float, overlap: float) -> ScalingModel:
    return ScalingModel(0.005, 0.001, transfer_s, latency_s, overlap, algorithm, ())


def total_s(model: ScalingModel, devices: int) -> float:
    hops = float(HOPS[model.algorithm](np.array([float(devices)]))[0])
    return model.transfer_s * (devices - 1) / devices + model.latency_s * hops


def measured(model: ScalingModel, kind: str, seed: int = 1, noise: float = 0.001) -> list[ScalingSample]:
    rng = np.random.default_rng(seed)

    def read(time_s: float) -> float:
        return time_s * (1 + rng.normal(0, noise))

    return [
        ScalingSample(
            n, b, read(model.step_s(n, b)), read(model.compute_s(b)), read(total_s(model, n)) if n > 1 else None
        )
        for n in FITTED
        for b in [64 if kind == "weak" else STRONG_BATCH // n]
    ]


@pytest.mark.parametrize("kind", ["weak", "strong"])
@pytest.mark.parametrize("algorithm", HOPS)
@pytest.mark.parametrize(
    ("latency_s", "transfer_s", "overlap"),
    [(5e-6, 0.02, 0.0), (2e-5, 0.1, 0.0), (1e-4, 0.02, 0.0), (2e-5, 0.2, 0.3), (1e-4, 0.3, 0.5), (5e-6, 0.002, 0.0)],
)
def test_eight_times_the_largest_fitted_size_is_predicted_within_5_percent(
    kind, algorithm, latency_s, transfer_s, overlap
):
    model = truth(algorithm, latency_s, transfer_s, overlap)
    found = fit_scaling_model(measured(model, kind))
    devices = 8 * FITTED[-1]
    batch = 64 if kind == "weak" else STRONG_BATCH // devices
    assert found.overlap_known
    assert found.step_s(devices, batch) == pytest.approx(model.step_s(devices, batch), rel=0.05)


# A strong curve goes on to an eighth of the smallest batch that was measured: noise counts for more there.
@pytest.mark.parametrize(("kind", "noise"), [("weak", 0.005), ("weak", 0.01), ("strong", 0.005)])
@pytest.mark.parametrize("algorithm", HOPS)
@pytest.mark.parametrize(
    ("latency_s", "transfer_s", "overlap", "visible"),
    [
        (2e-5, 0.1, 0.0, True),
        (5e-6, 0.02, 0.0, True),
        (1e-4, 0.02, 0.0, True),
        (2e-5, 0.2, 0.3, True),
        (2e-5, 0.02, 0.5, False),
        (1e-4, 0.01, 0.5, False),
    ],
)
def test_noise_is_not_taken_for_communication_and_the_usual_prediction_stays_within_5_percent(
    kind, algorithm, latency_s, transfer_s, overlap, visible, noise
):
    model = truth(algorithm, latency_s, transfer_s, overlap)
    devices = 8 * FITTED[-1]
    batch = 64 if kind == "weak" else STRONG_BATCH // devices
    found = [fit_scaling_model(measured(model, kind, seed, noise)) for seed in range(20)]
    right = [f for f in found if f.overlap_known == visible]
    assert len(right) >= 16
    true_s = model.step_s(devices, batch)
    if visible:
        assert np.median([abs(f.step_s(devices, batch) / true_s - 1) for f in found]) < 0.05
    else:
        # Nothing was seen of communication that hides: only limits can be given.
        within = [f.minimum_step_s(devices, batch) * 0.95 <= true_s <= f.step_s(devices, batch) * 1.05 for f in right]
        assert np.mean(within) >= 0.8


def test_communication_that_was_all_hidden_gives_limits_only():
    model = truth("ring", 1e-6, 0.002, 0.5)
    found = fit_scaling_model(measured(model, "weak"))
    assert not found.overlap_known
    assert found.minimum_step_s(128, 64) <= model.step_s(128, 64) * 1.01 <= found.step_s(128, 64) * 1.02


def test_the_error_at_left_out_points_is_small_where_the_model_holds_and_large_where_it_does_not():
    model = truth("ring", 1e-4, 0.1, 0.0)
    samples = measured(model, "weak")
    assert fit_scaling_model(samples).left_out_error < 0.02
    broken = [dataclasses.replace(s, step_s=s.step_s * (3 if s.devices == 16 else 1)) for s in samples]
    assert fit_scaling_model(broken).left_out_error > 0.3


def test_two_sizes_are_too_few_for_a_model():
    assert fit_scaling_model(measured(truth("ring", 1e-4, 0.1, 0.0), "weak")[:2]) is None


def cluster(kind: str, sizes=((1, 1), (1, 2), (1, 4), (1, 8)), repeats: int = 1, overlap: float = 0.0) -> list:
    """Records of a made-up cluster: 10 ms of computation for 16 images, and communication that grows.

    Args:
        sizes: nodes, and devices on each; between nodes communication takes ten times as long.
        overlap: the share of the computation that hides communication.
    """
    made = []
    for number, (nodes, per_node, repeat) in enumerate((*size, r) for size in sizes for r in range(repeats)):
        devices = nodes * per_node
        batch = 16 if kind == "weak" else 64 // devices
        compute = 0.01 * batch / 16
        total = 0.002 * (devices - 1) / devices * (10 if nodes > 1 else 1)
        step = (compute + max(0.0, total - overlap * compute)) * (1 + 0.01 * repeat)
        case = Case("lenet5", batch_size=batch, device="cuda", nodes=nodes, devices_per_node=per_node, repeat=repeat)
        made.append(
            fakes.record(
                case,
                fakes.GPU,
                number + (50 if kind == "strong" else 0),
                step_s=fakes.noisy_steps(step, 200, number),
                forward_s=(),
                backward_s=(),
                optimizer_s=(),
                unsynced_step_s=fakes.noisy_steps(compute, 50, number) if devices > 1 else (),
                gradient_allreduce_s=total if devices > 1 else None,
            )
        )
    return made


def content(tmp_path, records):
    return read_content([fakes.fill(tmp_path / "s", records)]).shown


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_a_curve_has_speedup_efficiency_and_the_share_of_communication(tmp_path, kind):
    (curve,) = [c for c in find_scaling_curves(content(tmp_path, cluster(kind))) if len(c.points) == 4]
    assert curve.kind == kind
    assert [p.devices for p in curve.points] == [1, 2, 4, 8]
    one, *_, eight = curve.points
    assert one.speedup == 1
    compute = 0.01 if kind == "weak" else 0.005
    ideal = 8 * 0.01 / (compute + 0.00175) if kind == "weak" else 0.04 / (0.005 + 0.00175)
    assert eight.speedup == pytest.approx(ideal, rel=0.02)
    # One process of each size says nothing of how processes differ.
    assert (eight.speedup_low, eight.speedup_high) == (None, None)
    assert eight.throughput_low < eight.throughput < eight.throughput_high
    (row,) = [r for r in scaling_table([curve]).records() if r["devices"] == 8 and r["origin"] == "measured"]
    assert row["speedup_interval"] is None
    assert UNKNOWN_SPREAD in scaling_table([curve]).notes
    assert eight.efficiency == pytest.approx(ideal / 8, rel=0.02)
    assert eight.communication_share == pytest.approx(0.00175 / (compute + 0.00175), rel=0.1)


def test_weak_and_strong_are_told_apart(tmp_path):
    found = find_scaling_curves(content(tmp_path, cluster("weak") + cluster("strong")[:2] + cluster("strong")[3:]))
    assert {c.kind for c in found if len(c.points) >= 3} == {"weak", "strong"}


def test_without_a_single_device_there_is_no_speedup_but_the_absolute_figure(tmp_path):
    (curve,) = find_scaling_curves(content(tmp_path, cluster("weak")[1:]))
    assert curve.points[0].speedup is None
    assert curve.points[0].throughput > 0


def test_what_is_predicted_is_marked_and_goes_to_eight_times_the_measured(tmp_path):
    found = find_scaling_curves(content(tmp_path, cluster("weak")))
    records = scaling_table(found).records()
    assert [r["devices"] for r in records if r["origin"] == "predicted"] == [16, 32, 64]
    assert all(r["single_device_img_per_s"] for r in records)
    assert "larger sizes are predictions" in scaling_model_sentence(found[0])
    assert "points left out of the fit" in scaling_model_sentence(found[0])


GRID = ((1, 1), (1, 2), (2, 1), (1, 4), (2, 2), (4, 1))


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_no_measured_size_is_dropped_where_a_number_of_devices_was_reached_in_several_ways(tmp_path, kind):
    found = [c for c in find_scaling_curves(content(tmp_path, cluster(kind, GRID))) if c.kind == kind]
    sizes = {c.name.split(", ")[-1]: [(p.nodes, p.devices // p.nodes) for p in c.points] for c in found}
    assert sizes == {
        "in one node": [(1, 1), (1, 2), (1, 4)],
        "1 on each node": [(1, 1), (2, 1), (4, 1)],
        "2 on each node": [(1, 1), (1, 2), (2, 2)],
    }
    steps = {c.name.split(", ")[-1]: c.points[1].exposed_s for c in found}
    assert steps["1 on each node"] == pytest.approx(10 * steps["in one node"], rel=0.1)


def test_nodes_that_are_full_make_one_curve(tmp_path):
    (curve,) = find_scaling_curves(content(tmp_path, cluster("weak", ((1, 1), (1, 2), (1, 4), (2, 4), (4, 4)))))
    assert [(p.nodes, p.devices) for p in curve.points] == [(1, 1), (1, 2), (1, 4), (2, 8), (4, 16)]


def test_repeats_of_a_size_are_one_point_with_their_median_and_range(tmp_path):
    once = find_scaling_curves(content(tmp_path / "once", cluster("weak")))
    (curve,) = find_scaling_curves(content(tmp_path / "thrice", cluster("weak", repeats=3)))
    assert [p.devices for p in curve.points] == [1, 2, 4, 8]
    for point, single in zip(curve.points, once[0].points, strict=True):
        assert len(set(point.attempts)) == 3
        # The second of three repeats takes 1 % longer, the third 2 %.
        assert point.step_s == pytest.approx(1.01 * single.step_s, rel=0.003)
        assert point.throughput_low < 0.993 * point.throughput < point.throughput < 0.993 * point.throughput_high
    eight = curve.points[-1]
    assert eight.speedup_low < eight.speedup < eight.speedup_high
    assert scaling_table([curve]).notes == []


def test_the_share_of_communication_is_as_unsure_as_each_process_is_of_its_computation(tmp_path):
    # The medians of their steps without communication lie 0.1 % apart, each of them is unsure of much more.
    wide = np.random.default_rng(1).lognormal(0.0, 0.3, 60)
    made = [
        fakes.record(
            Case("lenet5", device="cuda", devices_per_node=n, repeat=repeat),
            fakes.GPU,
            number=10 * n + repeat,
            step_s=fakes.noisy_steps(0.01, 200, repeat),
            unsynced_step_s=tuple((0.008 * (1 + 0.001 * repeat) * wide).tolist()) if n > 1 else (),
        )
        for n in (1, 2)
        for repeat in range(3)
    ]
    shown = content(tmp_path, made)
    (curve,) = [c for c in find_scaling_curves(shown) if c.kind == "weak"]
    two, shown = curve.points[-1], shown[shown["devices_per_node"] == 2]
    step = interval_over_processes(process_values_with_intervals(shown))
    low_s = step.low - shown["unsynced_high"].max()
    assert shown["unsynced_high"].max() > shown["unsynced"].max()
    assert two.exposed_low_s == pytest.approx(max(0.0, low_s))
    assert two.exposed_high_s == pytest.approx(step.high - shown["unsynced_low"].min())


def test_sizes_of_too_few_steps_have_no_interval_and_no_bar(tmp_path):
    made = [
        fakes.record(Case("lenet5", devices_per_node=n), fakes.CPU, i, step_s=(0.01,), window_s=0.01)
        for i, n in enumerate((1, 2, 4))
    ]
    (curve,) = find_scaling_curves(content(tmp_path, made))
    for row in scaling_table([curve]).records():
        assert row["origin"] != "measured" or row["half_width"] is None
    for name in ("throughput", "speedup", "efficiency"):
        bars = _error_bars(list(curve.points)[1:], name)
        assert np.isnan(bars).all()
    with figure_style.plot_style():
        captions = [plot.caption for plot in scaling_plots([curve])]
    assert all(INTERVAL_CAPTION in caption for caption in captions)


def test_a_prediction_of_unknown_overlap_is_a_range_in_the_table_and_a_band_in_the_figure(tmp_path):
    found = find_scaling_curves(content(tmp_path, cluster("weak", overlap=0.5)))
    assert not found[0].model.overlap_known
    rows = [r for r in scaling_table(found).records() if r["origin"] == "predicted"]
    assert [r["devices"] for r in rows] == [16, 32, 64]
    for row, prediction in zip(rows, found[0].predictions(), strict=True):
        assert prediction.low < prediction.high
        assert row["throughput_img_per_s"] is None
        assert " to " in row["predicted_limits"]
        assert " to " in row["speedup_interval"]
    assert "given as a range" in scaling_model_sentence(found[0])
    with figure_style.plot_style():
        (plot,) = scaling_plots(found)
        bands = [
            axes.get_title(loc="left")
            for axes in plot.figure.axes
            if any("Fill" in type(c).__name__ for c in axes.collections)
        ]
    titles = ("Throughput [img/s]", "Speedup over one device", "Efficiency [%]")
    assert bands == [f"{title}\nTraining · fp32" for title in titles]
    assert "only a lower and an upper limit of the prediction are known" in plot.caption


def slow_single_device(repeats: int = 3):
    """A weak curve whose single-device case took 1.3 times as long as it should."""
    made = cluster("weak", repeats=repeats)
    for number, record in enumerate(made):
        if record.case["devices_per_node"] == 1:
            case = Case.from_dict(record.case)
            steps = fakes.noisy_steps(0.013 * (1 + 0.01 * case.repeat), 200, number)
            made[number] = fakes.record(case, fakes.GPU, number, step_s=steps)
    return made


def test_an_efficiency_above_100_percent_by_more_than_its_interval_gets_a_caution(tmp_path):
    section = scaling_section(read_content([fakes.fill(tmp_path / "slow", slow_single_device())]))
    words = section.finding
    assert re.match(r"Efficiency above 100 % \(LeNet-5, 16 per device: 1\d\d\.\d % on 2 devices\) rarely", words)
    assert "single-device case was slowed by other work" in words
    assert scaling_section(read_content([fakes.fill(tmp_path / "usual", cluster("weak", repeats=3))])).finding == ""
    # One process of each size does not show how far it can be trusted.
    once = read_content([fakes.fill(tmp_path / "once", slow_single_device(repeats=1))])
    assert scaling_section(once).finding == ""


def test_axis_and_table_give_efficiency_and_communication_in_percent(tmp_path):
    found = find_scaling_curves(content(tmp_path, cluster("weak")))
    with figure_style.plot_style():
        (plot,) = scaling_plots(found)
    panels = {axes.get_title(loc="left").split("\n")[0]: axes for axes in plot.figure.axes}
    for title in ("Efficiency [%]", "Communication, share of step [%]"):
        show = panels[title].yaxis.get_major_formatter()
        assert [show(value, 0) for value in (0.25, 1.0)] == ["25", "100"]
    texts = {c.key: c.show for c in scaling_table(found).columns}
    assert [texts[key](0.25) for key in ("efficiency", "communication_share")] == ["25.0 %", "25.0 %"]


def test_each_kind_has_its_figure(tmp_path):
    found = find_scaling_curves(content(tmp_path, cluster("weak") + cluster("strong")))
    with figure_style.plot_style():
        drawn = scaling_plots([*found, dataclasses.replace(found[0], mode="inference")])
        names = [p.name for p in drawn]
        svg = figure_style.save_figure(drawn[0].figure, tmp_path, drawn[0].name)
    assert names == ["scaling_weak", "scaling_weak_inference", "scaling_strong"]
    assert "Efficiency" in svg
    assert "on one device" in drawn[0].caption


def test_the_command_for_several_sizes_names_a_network_of_the_results(tmp_path):
    records = [fakes.record(Case("lenet5"), fakes.CPU), fakes.record(Case("vgg16"), fakes.CPU, 1)]
    (block,) = scaling_section(read_content([fakes.fill(tmp_path / "store", records)])).blocks
    assert block.words.endswith("run `dlbench run scaling_weak -P model=vgg16`.")
