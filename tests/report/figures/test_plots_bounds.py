"""Figures of bounds: drawn from plain frames, the same bytes for the same data, a sentence where there is nothing."""

from __future__ import annotations

import dataclasses
import math

import pytest
from matplotlib.text import Text

from dlbench.report.analysis.bounds import DeviceRoofline, layer_bounds
from dlbench.report.figures import figure_style, plots_bounds
from dlbench.results.bounds_schema import layers_frame
from tests.report.analysis.test_bounds import ROOF, layer, profile

LAYERS = (
    layer("conv1", (1.0,), (2.0,), forward_flop=50, forward_elements=1, backward_flop=100, backward_elements=20),
    layer("a.very.long.path.to.some.block.$conv", (3.0,), (), forward_flop=90, forward_elements=9),
    layer("relu", (0.1,), (0.3,), forward_elements=1, backward_elements=2),
    layer("lost", (math.nan,), (0.0,), forward_flop=5, forward_elements=1),
)


def frame(roof=ROOF, layers=LAYERS):
    return layer_bounds(layers_frame(layers), roof)


def draw(plot, folder):
    with figure_style.plot_style():
        made = plot()
        return made, figure_style.save_figure(made.figure, folder, made.name)


@pytest.mark.parametrize(
    "roof", [ROOF, DeviceRoofline("fp32"), DeviceRoofline("fp32", 100.0), DeviceRoofline("fp32", None, 10.0)]
)
def test_the_roofline_is_drawn_with_whatever_roof_is_known(roof, tmp_path):
    plot, svg = draw(lambda: plots_bounds.roofline(frame(roof), roof, "Training · fp32"), tmp_path)
    assert plot.name == "roofline"
    assert "conv1" in svg
    assert ("measured" in plot.caption) == (roof is ROOF)
    assert {p.suffix for p in tmp_path.iterdir()} >= {".svg", ".png"}


def test_points_lie_where_a_person_puts_them():
    with figure_style.plot_style():
        left, right = plots_bounds.roofline(frame(), ROOF, "Training · fp32").figure.axes
    points = {line.get_marker(): line.get_xydata() for line in left.lines if line.get_marker() in ("o", "^")}
    # conv1 forward: 50 FLOP over 4 bytes in 1 s; backward: 100 FLOP over 80 bytes in 2 s.
    assert sorted(map(tuple, points["o"])) == [(2.5, 30.0), (12.5, 50.0)]
    assert [tuple(p) for p in points["^"]] == [(1.25, 50.0)]
    roof = left.lines[0].get_xydata()
    assert roof[-1][1] == 100.0
    assert roof[0][1] == pytest.approx(10 * roof[0][0])
    moving = [y for line in right.lines if line.get_marker() in ("o", "^") for y in line.get_ydata()]
    assert moving == pytest.approx([4 / 0.1, 8 / 0.3])


def test_names_of_layers_that_lie_close_cover_neither_points_nor_each_other():
    alike = [
        layer(f"features.{i}.conv", (1.0 + 0.01 * i,), (2.0,), forward_flop=50 + i, forward_elements=1,
              backward_flop=100, backward_elements=20 + i) for i in range(30)
    ]  # fmt: skip
    with figure_style.plot_style():
        left = plots_bounds.roofline(frame(layers=alike), ROOF, "Training · fp32").figure.axes[0]
        figure_style.compute_layout(left.figure)
    names = [text for text in left.texts if text.get_text().startswith("features")]
    assert names
    for text in left.texts:
        text.get_window_extent()  # puts it in its place
    boxes = [Text.get_window_extent(text) for text in left.texts]  # without the line that leads to the point
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    marks = [line for line in left.lines if line.get_marker() in ("o", "^")]
    points = [point for line in marks for point in left.transData.transform(line.get_xydata())]
    assert not [box for text, box in zip(left.texts, boxes, strict=True) if text in names
                for point in points if box.contains(*point)]  # fmt: skip


def test_layers_with_a_partial_count_are_named_and_are_no_layers_without_arithmetic():
    mixing = layer("mix", (1.0,), (), forward_elements=4, note="not counted: _fft_r2c")
    with figure_style.plot_style():
        plot = plots_bounds.roofline(frame(layers=(*LAYERS, mixing)), ROOF, "Training · fp32")
    assert plot.caption.endswith("The count is partial for mix.")
    moving = [y for line in plot.figure.axes[1].lines if line.get_marker() in ("o", "^") for y in line.get_ydata()]
    assert moving == pytest.approx([4 / 0.1, 8 / 0.3])
    labels = plots_bounds.network_bounds_frame([(profile(layers=(mixing,)), ROOF), (profile(), ROOF)])["label"]
    assert [label.endswith("(partial FLOP)") for label in labels] == [True, False]


def test_the_same_data_give_the_same_bytes(tmp_path):
    first = draw(lambda: plots_bounds.roofline(frame(), ROOF, "Training · fp32"), tmp_path / "a")[1]
    assert draw(lambda: plots_bounds.roofline(frame(), ROOF, "Training · fp32"), tmp_path / "b")[1] == first


def test_where_the_time_goes_sums_to_the_step(tmp_path):
    networks = plots_bounds.network_bounds_frame([(profile(), ROOF)])
    assert networks.to_dict("records") == [
        {
            "label": "LeNet-5 · fp32 2",
            "mode": "training",
            "precision": "fp32",
            "flop_s": 1.5,
            "memory_s": pytest.approx(0.4),
            "optimizer_s": 1.0,
            "step_s": 5.0,
        }
    ]
    plot, svg = draw(lambda: plots_bounds.overhead_breakdown(networks), tmp_path)
    assert "1.72 × bound" in svg
    widths = [bar.get_width() for bar in plot.figure.axes[0].patches]
    assert widths == pytest.approx([1.5, 0.4, 1.0, 2.1])
    assert sum(bar.get_width() for bar in plot.figure.axes[1].patches) == pytest.approx(100)


def test_training_and_inference_stand_in_panels_of_their_own():
    inference = dataclasses.replace(profile(), case=profile().case | {"mode": "inference"})
    with figure_style.plot_style():
        plot = plots_bounds.overhead_breakdown(
            plots_bounds.network_bounds_frame([(profile(), ROOF), (inference, ROOF)])
        )
    assert [axes.get_title(loc="left") for axes in plot.figure.axes] == [
        *("Training · fp32", "Training · fp32", "Inference · fp32", "Inference · fp32"),
    ]


def test_a_step_below_its_bound_has_no_overhead(tmp_path):
    networks = plots_bounds.network_bounds_frame([(profile(step_s=(1.0,)), ROOF)])
    plot, _ = draw(lambda: plots_bounds.overhead_breakdown(networks), tmp_path)
    assert plot.figure.axes[0].patches[-1].get_width() == 0


@pytest.mark.parametrize("step_s", [(), (0.0,), (math.nan,)])
def test_without_a_step_a_sentence(step_s):
    plot = plots_bounds.overhead_breakdown(plots_bounds.network_bounds_frame([(profile(step_s=step_s), ROOF)]))
    assert plot.figure is None
    assert plot.caption.endswith(".")


def test_nothing_to_draw_gives_a_sentence():
    assert plots_bounds.roofline(frame(layers=LAYERS[2:]), ROOF, "Training · fp32").figure is None
    assert plots_bounds.roofline(frame(layers=()), ROOF, "Training · fp32").figure is None
    assert plots_bounds.overhead_breakdown(plots_bounds.network_bounds_frame([])).figure is None


def test_a_profile_without_roof_still_gets_its_roofline(tmp_path):
    plots = plots_bounds.write_profile_figures(tmp_path, profile(), DeviceRoofline("fp32"))
    assert [p.figure is not None for p in plots] == [True, False]
    assert (tmp_path / "roofline.svg").exists()
    assert not (tmp_path / "where_time_goes.svg").exists()
