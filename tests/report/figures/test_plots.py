"""Figures: each drawn from made-up cases, empty ones explained, the same bytes for the same data."""

import re
from pathlib import Path

import pandas as pd
import pytest

from dlbench.report.analysis.case_selection import fastest_cases
from dlbench.report.analysis.content import read_content
from dlbench.report.analysis.labels import network_title
from dlbench.report.figures import (
    figure_style,
    log_axes,
    pdf_fonts,
    plots_batch,
    plots_pipeline,
    plots_rates,
    plots_samples,
    plots_time,
)
from dlbench.report.forms import html_page
from dlbench.suites.case import PRECISIONS, Case
from tests.fakes import records as fakes

_NAMES = {"step_time_box_plot": "distribution", "step_times_plot": "time_series", "power_trace_plot": "power"}
ALL = {
    _NAMES.get(draw.__name__, draw.__name__.removesuffix("_plot")): draw
    for draw in (
        *(plots_rates.throughput_plot, plots_rates.energy_plot, plots_batch.batch_curves, plots_rates.precisions_plot),
        *(plots_time.step_breakdown, plots_time.memory_plot, plots_time.flop_time_plot),
        *(plots_samples.step_time_box_plot, plots_samples.step_times_plot, plots_samples.power_trace_plot),
    )
}
#: The figures that a machine without meter, other batches and other precisions cannot have.
NEED_MORE = {"batch_curves", "precisions", "energy", "power"}


def cases_of(tmp_path, records):
    return read_content([fakes.fill(tmp_path / "store", records)]).shown


@pytest.fixture(scope="module")
def gpu_cases(tmp_path_factory):
    return cases_of(tmp_path_factory.mktemp("gpu"), fakes.classic())


@pytest.fixture
def only_svg(monkeypatch):
    """PNG and PDF take most of the time; one test of them is enough."""
    monkeypatch.setattr(figure_style, "FILE_FORMATS", {"svg": figure_style.FILE_FORMATS["svg"]})


@pytest.mark.usefixtures("only_svg")
@pytest.mark.parametrize("name", ALL)
def test_every_figure_is_drawn_from_a_gpu_campaign(name, gpu_cases, tmp_path):
    with figure_style.plot_style():
        plot = ALL[name](gpu_cases)
        svg = figure_style.save_figure(plot.figure, tmp_path, name)
    assert plot.name == name
    assert len(svg) < 300_000


@pytest.mark.parametrize("name", ALL)
def test_a_cpu_has_fewer_figures_and_says_why(name, tmp_path):
    with figure_style.plot_style():
        plot = ALL[name](cases_of(tmp_path, fakes.quick()))
    assert (plot.figure is None) == (name in NEED_MORE)
    assert plot.caption.endswith((".", "cases."))


@pytest.mark.parametrize("name", ALL)
def test_no_cases_give_a_sentence_and_no_figure(name, gpu_cases):
    with figure_style.plot_style():
        plot = ALL[name](gpu_cases.iloc[:0])
    assert plot.figure is None
    assert plot.caption.endswith(".")


def test_phases_of_too_few_steps_are_not_drawn(tmp_path):
    few = dict.fromkeys(("forward_s", "backward_s", "optimizer_s"), (1.0, 2.0, 3.0))
    made = [
        fakes.record(Case("vgg16", device="cpu"), fakes.CPU, 0, step_s=(3.0, 4.0, 9.0), **few),
        fakes.record(Case("lenet5", device="cpu"), fakes.CPU, 1),
    ]
    cases = cases_of(tmp_path, made)
    with figure_style.plot_style():
        plot = plots_time.step_breakdown(cases)
        alone = plots_time.step_breakdown(cases[cases["model"] == "vgg16"])
    assert "Not drawn because of fewer than 4 steps: VGG-16." in plot.caption
    assert [label.get_text() for label in plot.figure.axes[0].get_yticklabels()] == ["LeNet-5"]
    assert alone.figure is None
    assert "in 4 steps" in alone.caption


def test_without_a_meter_the_reason_is_given(tmp_path):
    plot = plots_rates.energy_plot(cases_of(tmp_path, fakes.quick()))
    assert plot.caption == "No energy meter on this system: RAPL is not readable in this virtual machine."


def test_the_same_data_give_the_same_bytes(gpu_cases, tmp_path):
    for folder in ("a", "b"):
        with figure_style.plot_style():
            figure_style.save_figure(plots_rates.throughput_plot(gpu_cases).figure, tmp_path / folder, "throughput")
    assert {p.suffix for p in (tmp_path / "a").iterdir()} == {".svg", ".png", ".pdf"}
    for one in sorted((tmp_path / "a").iterdir()):
        assert one.read_bytes() == (tmp_path / "b" / one.name).read_bytes(), one.name


@pytest.mark.usefixtures("only_svg")
def test_names_that_are_long_odd_or_formulas_are_drawn_as_texts(tmp_path):
    names = ["my.package:" + "very_long_name_" * 8, "$\\frac{1}", "网络", fakes.HOSTILE, "a\nb\tc"]
    records = [fakes.record(Case(name, device="cuda"), number=i) for i, name in enumerate(names)]
    cases = cases_of(tmp_path, records)
    with figure_style.plot_style():
        for name, draw in ALL.items():
            plot = draw(cases)
            if plot.figure:
                svg = figure_style.save_figure(plot.figure, tmp_path / "figures", name)
                assert "<script" not in svg
                assert "<img" not in svg


@pytest.mark.usefixtures("only_svg")
def test_a_figure_for_the_page_has_its_own_ids_and_no_address(gpu_cases, tmp_path):
    with figure_style.plot_style():
        svg = figure_style.save_figure(plots_rates.throughput_plot(gpu_cases).figure, tmp_path, "throughput")
    inline = figure_style.adapt_svg_for_page(svg, "throughput", "what it shows")
    assert inline.startswith('<svg viewBox="')
    assert 'aria-label="what it shows"' in inline
    assert "http" not in inline
    ids = set(re.findall(r' id="([^"]*)"', inline))
    assert ids
    assert all(one.startswith("throughput-") for one in ids)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', inline)) <= ids
    assert len(inline) < 0.85 * len(svg)


def test_many_cases_are_limited_and_the_caption_says_so(gpu_cases):
    with figure_style.plot_style():
        plot = plots_time.memory_plot(gpu_cases)
    assert "The table contains all" in plot.caption


def test_parts_that_exceed_the_peak_are_explained(tmp_path):
    case = fakes.record(Case("vgg16", device="cuda"), memory_allocated_peak_bytes=2**20)
    with figure_style.plot_style():
        assert (
            "exceeds the measured peak for VGG-16 training"
            in plots_time.memory_plot(cases_of(tmp_path, [case])).caption
        )


def test_one_case_with_huge_outliers_leaves_the_others_readable(tmp_path):
    wild = (1.0,) * 40 + (90.0,) * 10
    records = [fakes.record(Case("vgg16", device="cpu"), fakes.CPU, step_s=wild), *fakes.quick()]
    with figure_style.plot_style():
        axes = plots_samples.step_time_box_plot(cases_of(tmp_path, records)).figure.axes[0]
    assert axes.get_xlim()[0] == -100
    assert axes.get_xscale() == "symlog"


def test_the_ticks_of_a_throughput_figure_span_its_points(tmp_path):
    records = [
        fakes.record(Case(n, device="cpu", batch_size=1), fakes.CPU, i, step_s=(t,) * 30)
        for i, (n, t) in enumerate((("vgg16", 2.6), ("alexnet", 1.1)))
    ]
    with figure_style.plot_style():
        axes = plots_rates.throughput_plot(cases_of(tmp_path, records)).figure.axes[0]
        labels = [axes.xaxis.get_major_formatter()(tick, None) for tick in axes.get_xticks()]
    assert labels[0] == "0.4"
    assert len(labels) >= 3
    assert axes.get_xticks()[-1] >= 0.8


@pytest.mark.parametrize("draw", [plots_rates.throughput_plot, plots_time.flop_time_plot])
def test_the_axes_hold_the_intervals_whole(tmp_path, draw):
    steps = [t for pair in zip((0.01,) * 15, (0.2,) * 15, strict=True) for t in pair]
    records = [
        fakes.record(Case(n, device="cpu"), fakes.CPU, i, step_s=steps[i:] + steps[:i])
        for i, n in enumerate(("vgg16", "alexnet"))
    ]
    cases = cases_of(tmp_path, records)
    metric = "throughput" if draw is plots_rates.throughput_plot else "step_time"
    assert cases[f"{metric}_high"].max() > 10 * cases[f"{metric}_low"].min()
    with figure_style.plot_style():
        axes = draw(cases).figure.axes[0]
    low, high = axes.get_xlim() if draw is plots_rates.throughput_plot else axes.get_ylim()
    assert low <= cases[f"{metric}_low"].min()
    assert high >= cases[f"{metric}_high"].max()


def test_networks_with_alike_work_have_labels_apart(tmp_path):
    records = [
        fakes.record(Case(n, device="cpu", batch_size=1), fakes.CPU, i, step_s=(1.0 + i / 100,) * 30)
        for i, n in enumerate(("googlenet", "overfeat_fast", "vgg16", "resnet50", "alexnet"))
    ]
    with figure_style.plot_style():
        figure = plots_time.flop_time_plot(cases_of(tmp_path, records)).figure
        figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 6  # five networks, and the line
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_bound_lines_are_the_datasheet_or_else_the_best_that_was_reached(gpu_cases, tmp_path):
    with figure_style.plot_style():
        assert "datasheet peak" in plots_time.flop_time_plot(gpu_cases).caption
        assert "No peak of this device is known" in plots_time.flop_time_plot(cases_of(tmp_path, fakes.quick())).caption


def test_the_fastest_of_each_group_in_the_order_of_history():
    cases = pd.DataFrame(
        {"model": ["vgg16", "alexnet", "alexnet"], "mode": "training", "throughput": [3.0, 1.0, 2.0], "id": [0, 1, 2]}
    )
    assert list(fastest_cases(cases, ["model"])["id"]) == [2, 0]


@pytest.mark.parametrize(
    ("draw", "metric"), [(plots_batch.batch_curves, "throughput"), (plots_time.flop_time_plot, "step_time")]
)
def test_the_points_of_curves_have_their_intervals(gpu_cases, draw, metric):
    with figure_style.plot_style():
        plot = draw(gpu_cases)
    bars = [bar for axes in plot.figure.axes for c in axes.collections for bar in getattr(c, "get_segments", list)()]
    ends = {tuple(bar[:, 1]) for bar in bars}
    known = set(zip(gpu_cases[f"{metric}_low"], gpu_cases[f"{metric}_high"], strict=True))
    assert len(ends & known) > 50
    assert "the interval of its median step" in plot.caption


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (2.0, 4.5, ["2", "3", "4"]),
        (0.7, 6.0, ["1", "2", "5"]),
        (900.0, 4e5, ["1000", "10\u202f000", "100\u202f000"]),
        (2000.0, 2100.0, ["2000"]),
    ],
)
def test_a_logarithmic_axis_has_ticks_however_little_it_spans(low, high, labels):
    axes = figure_style.new_figure(3.0).subplots()
    log_axes.make_log_axis(axes, "y")
    axes.set_ylim(low, high)
    shown = [axes.yaxis.get_major_formatter()(tick, None) for tick in axes.get_yticks() if low <= tick <= high]
    assert shown == labels


@pytest.mark.parametrize(
    ("values", "unit", "name", "ticks"),
    [
        ([5e-3, 0.2], "J/img", "mJ/img", {0.005: "5", 0.2: "200"}),
        ([1e-3, 1.0], "s", "ms", {1e-3: "1", 1.0: "1000"}),
        ([1e10, 1e14], "FLOP", "TFLOP", {1e10: "0.01", 1e14: "100"}),
        ([900.0, 4e6], "img/s", "img/s", {900.0: "900", 1e6: "1\u202f000\u202f000"}),
        ([], "s", "s", {1.0: "1"}),
    ],
)
def test_an_axis_has_one_unit_which_its_label_names(values, unit, name, ticks):
    found = log_axes.choose_axis_unit(values, unit)
    assert found.axis_label("Title") == f"Title [{name}]"
    assert {value: found.format_tick(value) for value in ticks} == ticks


@pytest.mark.parametrize("name", ALL)
def test_every_panel_names_its_precision_and_one_mode(name, gpu_cases):
    with figure_style.plot_style():
        panels = [axes for axes in ALL[name](gpu_cases).figure.axes if axes.get_visible()]
    for title in (axes.get_title(loc="left").lower() for axes in panels):
        assert ("training" in title) != ("inference" in title), title
        assert any(precision in title for precision in PRECISIONS), title


def test_the_input_pipeline_has_a_panel_per_network_mode_and_precision():
    keys = [("resnet50", "training", "fp32"), ("resnet50", "training", "amp_bf16"), ("alexnet", "training", "fp32")]
    rows = [(*key, workers, 90.0 * workers, 400.0, 85.0 * workers, "a") for key in keys for workers in (1, 4)]
    columns = ["model", "mode", "precision", "loader_workers", "loader_throughput", "device_throughput", "throughput"]
    with figure_style.plot_style():
        figure = plots_pipeline.pipeline_plot(pd.DataFrame(rows, columns=[*columns, "attempt_id"])).figure
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.get_visible()]
    assert titles == ["AlexNet\nTraining · fp32", "ResNet-50\nTraining · fp32", "ResNet-50\nTraining · amp_bf16"]


def test_a_batch_curve_keeps_to_one_setting(gpu_cases):
    faster = gpu_cases.assign(memory_format="channels_last", throughput=2 * gpu_cases["throughput"])
    both = pd.concat([gpu_cases, faster[faster["batch_size"] > 16]], ignore_index=True)
    shown = plots_batch._select_setting_per_curve(both)
    assert shown.groupby(["model", "mode", "precision"])["memory_format"].nunique().max() == 1
    assert set(shown["batch_size"]) == set(gpu_cases["batch_size"])


@pytest.mark.parametrize("name", ["throughput", "energy", "flop_time"])
def test_no_label_covers_a_point(name, gpu_cases):
    with figure_style.plot_style():
        figure = ALL[name](gpu_cases).figure
        figure_style.compute_layout(figure)
    for axes in figure.axes:
        dots = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
        points = [axes.transData.transform(line.get_xydata()[0]) for line in dots]
        assert points
        for text in axes.texts:
            box = text.get_window_extent()
            assert not [point for point in points if box.contains(*point)], text.get_text()


@pytest.mark.parametrize("name", ["throughput", "batch_curves", "step_breakdown", "memory", "flop_time"])
def test_parts_of_figures_tell_their_value_and_lead_to_a_record(name, gpu_cases, tmp_path):
    cases = gpu_cases.assign(records=gpu_cases["attempt_id"].map(lambda attempt: (attempt,)))
    with figure_style.plot_style():
        plot = ALL[name](cases)
        svg = figure_style.save_figure(plot.figure, tmp_path, name)
    assert all(f'id="{gid}"' in svg for gid in plot.marks)
    assert {mark.record for mark in plot.marks.values()} <= set(cases["attempt_id"])
    assert any("VGG-16, training" in mark.text for mark in plot.marks.values())


@pytest.mark.parametrize("draw", [plots_samples.step_times_plot, plots_samples.power_trace_plot])
def test_every_case_without_a_panel_is_named(draw, gpu_cases, monkeypatch):
    monkeypatch.setattr(plots_samples, "MAX_PANELS", 2)
    with figure_style.plot_style():
        plot = draw(gpu_cases)
    drawn = " ".join(axes.get_title(loc="left") for axes in plot.figure.axes)
    for model, mode in set(zip(gpu_cases["model"], gpu_cases["mode"], strict=True)):
        panel = f"{network_title(model)}\n{mode}" in drawn
        assert panel != (f"{network_title(model)} {mode}" in plot.caption)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_forward_and_backward_differ_in_brightness_whatever_colours_one_sees(scheme):
    css = (Path(html_page.__file__).parent / "page.css").read_text()
    part = css.split("@media (prefers-color-scheme: dark)")[scheme == "dark"]
    sky, blue, paper = (luminance(re.search(rf"--figure-{name}: #(\w+)", part)[1]) for name in ("sky", "blue", "paper"))
    assert contrast(sky, blue) > 2
    assert contrast(blue, paper) > 2


def luminance(colour):
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_figures_in_pdf_share_their_fonts_and_keep_unusual_characters(gpu_cases, tmp_path, monkeypatch):
    monkeypatch.setattr(pdf_fonts, "_subset_cache", {})
    with figure_style.plot_style():
        for number, title in enumerate(("plain", "efficient", "Ωμέγα"), 1):
            figure = plots_rates.throughput_plot(gpu_cases).figure
            figure.axes[0].set_title(title)
            figure_style.save_figure(figure, tmp_path, title)
            pypdf = pytest.importorskip("pypdf")
            assert title in pypdf.PdfReader(tmp_path / f"{title}.pdf").pages[0].extract_text()
            assert len(pdf_fonts._subset_cache) == (2 if number < 3 else 3)
