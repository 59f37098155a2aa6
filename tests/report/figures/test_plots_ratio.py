"""The figure of ratios: what lies beyond its axis is marked with its value."""

import math

import pandas as pd

from dlbench.report.analysis.verdicts import PrecisionModeGroup, SystemComparison
from dlbench.report.figures import figure_style
from dlbench.report.figures.plots_ratio import ratio_plot


def plot_of(ratios, spread=0.01):
    """The figure of system "b" over "a", by case: `ratios` are throughputs, in which processes differ by `spread`."""
    noise = (-spread, 0.0, spread)
    models = ("lenet5", "alexnet", "vgg16", "resnet50")[: len(ratios)]
    cases = pd.DataFrame({"number": range(len(ratios)), "model": models, "mode": "training", "precision": "fp32"})
    logs = {(i, "a"): noise for i in range(len(ratios))}
    logs |= {(i, "b"): [-math.log(ratio) + one for one in noise] for i, ratio in enumerate(ratios)}
    groups = [PrecisionModeGroup("training", "fp32", tuple(range(len(ratios))))]
    attempts = {key: [f"{key}"] for key in logs}
    with figure_style.plot_style():
        return ratio_plot(SystemComparison({"a": "A", "b": "B"}, "a", groups, cases, {"time": logs}, attempts))


def axis_of(plot):
    (axes,) = plot.figure.axes
    return axes, [text.get_text() for text in axes.texts if text.get_text() != "Training"]


def arrows(axes):
    return [str(line.get_marker()) for line in axes.lines if line.get_marker() in ("<", ">")]


def test_a_value_beyond_the_axis_stands_at_its_edge_behind_an_arrow():
    plot = plot_of((1 / 120, 300.0, 1.2, 1e-9))
    axes, texts = axis_of(plot)
    assert sorted(texts) == ["300 →", "← 0.00833", "← < 0.0001"]
    low, high = axes.get_xlim()
    assert (low, high) == (1 / 64, 64)
    assert "An arrow marks a value or an interval that continues beyond the axis." in plot.caption
    assert "B: 0.00833 times A" in next(iter(plot.marks.values())).text


def test_an_interval_beyond_the_axis_ends_in_an_arrow():
    axes, texts = axis_of(plot_of((1.0,), spread=2.0))
    assert (texts, sorted(arrows(axes))) == ([], ["<", ">"])


def test_an_axis_that_holds_everything_has_no_arrows():
    plot = plot_of((1 / 50, 40.0))
    axes, texts = axis_of(plot)
    assert (texts, arrows(axes)) == ([], [])
    assert "An arrow" not in plot.caption


def test_the_ticks_of_a_wide_axis_are_few_and_readable(tmp_path):
    plot = plot_of((1 / 120, 300.0))
    axes, _ = axis_of(plot)
    with figure_style.plot_style():
        figure_style.save_figure(plot.figure, tmp_path, "ratios")
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["0.0156", "0.0625", "0.25", "1", "4", "16", "64"]
