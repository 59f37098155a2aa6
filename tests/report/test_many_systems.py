"""The report of several systems: its chapters and figures, whatever the systems have in common."""

import dataclasses
import functools
import re

import pandas as pd
import pytest

from dlbench.report import build
from dlbench.report.analysis.content import read_content
from dlbench.report.analysis.projection import Prices
from dlbench.report.analysis.side_by_side import add_case_numbers, cases_by_batch_size, summarize_processes
from dlbench.report.chapters import sections
from dlbench.report.chapters.anchors import published_throughputs_table
from dlbench.report.chapters.projection_section import projection_section
from dlbench.report.chapters.provenance import provenance_section
from dlbench.report.chapters.sections import SECTIONS
from dlbench.report.chapters.summary import summary_section
from dlbench.report.chapters.systems_section import systems_section
from dlbench.report.figures import figure_style, plots_batch, plots_systems
from dlbench.report.figures.plots_batch import KNEE_SHARE, find_knee
from dlbench.suites.case import Case
from tests.fakes import records as fakes
from tests.fakes import systems as fake
from tests.fakes.reports import build_report


@pytest.fixture(autouse=True)
def only_svg(monkeypatch):
    """PNG and PDF take most of the time; `test_plots.py` looks at them."""
    monkeypatch.setattr(figure_style, "FILE_FORMATS", {"svg": figure_style.FILE_FORMATS["svg"]})


CASES = fake.classic_cases(("alexnet", "resnet50"), (16, 64, 256))


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """What `read_content` gives of three systems, by number of repeats and by its options; made once for all tests."""

    @functools.cache
    def stores(repeats):
        folder = tmp_path_factory.mktemp("three")
        systems = {"H200": (fake.H200, CASES, 0), "A100": (fake.A100, CASES, 500), "L40S": (fake.L40S, CASES[:6], 1500)}
        return [
            f"{name}={fake.store(folder / name, fake.campaign(system, cases, first=first, repeats=repeats))}"
            for name, (system, cases, first) in systems.items()
        ]

    plain = functools.cache(lambda repeats: read_content(stores(repeats)))
    return lambda repeats=1, **options: read_content(stores(repeats), **options) if options else plain(repeats)


def words_of(section):
    parts = (part for block in section.blocks for part in (block.heading, block.words, *block.points))
    return " ".join([section.finding, *parts])


def every_section(content):
    with figure_style.plot_style():
        return {section.id: section for section in (make(content) for make in SECTIONS)}


def plots_of(section):
    return {block.plot.name: block.plot for block in section.blocks if block.plot}


def test_systems_beyond_those_that_are_drawn_are_named_with_the_way_to_their_figures(three, monkeypatch):
    monkeypatch.setattr(sections, "MAX_SYSTEMS", 2)
    with figure_style.plot_style():
        section = sections.memory_section(three())
    assert set(plots_of(section)) == {"memory-1", "memory-2"}
    words = words_of(section)
    assert (
        "Figures show at most 2 systems. Only the tables and metrics.csv contain: L40S. For the missing figures, build a "
        "report of only those results"
    ) in words


def test_the_chapter_of_systems_names_the_best_with_margin_and_interval(three):
    section = systems_section(three(repeats=3))
    assert "Throughput: H200 is better in 4 of 4 cases." in words_of(section)
    table = next(block.table for block in section.blocks if block.table)
    for row in table.records():
        assert re.fullmatch(r"H200\n\+\d+ % \[\+\d+, \+\d+\] against (A100|L40S)", row["throughput"])
        assert re.match(r"(H200|A100|L40S)(, .*: not decided.*)?\n−[\d.]+ %", row["energy_per_image"])


def systems_with_threads(tmp_path, *threads):
    """A report of one system for each number of threads, or of one whose cases ran with several of them."""
    stores = []
    for number, counts in enumerate(threads):
        made = []
        for i, count in enumerate(counts):
            system = dataclasses.replace(fakes.CPU, cpu_model=f"CPU {number}", torch_threads=count, job_threads=4)
            case = Case("lenet5", batch_size=4 + i, threads=count if len(counts) > 1 else 0)
            made.append(fakes.record(case, system, 10 * number + i, system_key=f"key {number}"))
        stores.append(f"S{number}={fake.store(tmp_path / str(number), made)}")
    return read_content(stores)


def test_the_systems_are_told_apart_by_their_threads(tmp_path):
    content = systems_with_threads(tmp_path, (4,), (1, 2, 4))
    assert "differ in PyTorch threads: 4 threads on S0, 1, 2 or 4 threads on S1." in words_of(systems_section(content))
    points = next(block.points for block in summary_section(content).blocks if block.heading == "Systems")
    assert [", 4 threads, " in points[0], ", 1, 2 or 4 threads, " in points[1]] == [True, True]


def test_threads_that_differ_by_case_alone_are_told_and_equal_ones_are_not(tmp_path):
    by_case = systems_with_threads(tmp_path / "by case", (1, 2), (1, 2))
    assert "PyTorch ran with 1 or 2 threads, depending on the case." in words_of(systems_section(by_case))
    assert "threads" not in words_of(systems_section(systems_with_threads(tmp_path / "equal", (2,), (2,))))
    one = systems_with_threads(tmp_path / "one", (1, 2))
    assert any(", 1 or 2 threads, " in block.words for block in summary_section(one).blocks)


def test_without_repeats_the_summary_does_not_claim_a_winner(three):
    content = three()
    said = words_of(systems_section(content))
    assert "Throughput: not decided in 4 of 4 cases." in said
    assert "the spread between processes is then unknown" in said
    brief = words_of(summary_section(content))
    assert "not decided (needs 2 more processes)" in brief
    assert "fastest" not in brief


def test_the_tables_of_systems_are_there_for_each_metric(three):
    section = systems_section(three())
    headings = [block.heading for block in section.blocks if block.table]
    assert headings == [
        "The best system, per network", "Throughput", "Speedup over H200", "Energy per image", "Peak memory, allocated", "Share of peak",
        "Each system at its fastest setting",
    ]  # fmt: skip
    throughput = next(block.table for block in section.blocks if block.heading == "Throughput")
    assert [c.heading for c in throughput.columns if c.key.startswith("system_")] == [
        "H200 [img/s]", "A100 [img/s]", "L40S [img/s]",
    ]  # fmt: skip


def test_the_baseline_is_the_users(three):
    headings = [block.heading for block in systems_section(three(baseline="A100")).blocks]
    assert "Speedup over A100" in headings


def test_a_single_system_has_none_of_the_chapters_of_several(tmp_path):
    content = read_content([fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES))])
    sections = every_section(content)
    assert not sections["systems"].blocks
    assert set(plots_of(sections["throughput"])) == {"throughput", "batch_curves", "precisions"}
    assert "Differences between the systems" not in words_of(sections["provenance"])


def test_systems_without_a_common_case_are_told_so_and_still_drawn(tmp_path):
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES[:6]))
    b = fake.store(tmp_path / "b", fake.campaign(fake.A100, CASES[6:12], first=500))
    sections = every_section(read_content([a, b]))
    assert "The systems have no case in common." in words_of(sections["systems"])
    assert "No case was measured on two systems" in words_of(sections["summary"])
    assert set(plots_of(sections["throughput"])) >= {"throughput-1", "throughput-2"}


def test_figures_over_systems_show_every_system_once_per_network(three):
    content = three()
    with figure_style.plot_style():
        plots = plots_of(every_section(content)["throughput"])
        panels = plots["throughput"].figure.axes
    assert [axes.get_title(loc="left") for axes in panels] == ["Training · amp_bf16", "Inference · amp_bf16"]
    # AlexNet in training on three systems, ResNet-50 on two.
    assert len([line for line in panels[0].lines if line.get_marker() in "os^"]) == 5
    legend = panels[0].get_figure().legends[0]
    assert [entry.get_text() for entry in legend.get_texts()] == ["H200", "A100", "L40S"]
    assert plots["throughput"].records


def test_the_knee_is_the_smallest_batch_near_the_best():
    curve = over_knee([100, 180, 195, 200])
    assert find_knee(curve)["batch_size"] == 4
    assert curve["throughput"].max() * KNEE_SHARE <= 195


def test_a_curve_that_still_rises_has_no_knee():
    assert find_knee(over_knee([100, 150, 180, 200])) is None


def over_knee(rates):
    return pd.DataFrame({"batch_size": [2**i for i in range(len(rates))], "throughput": rates})


def test_batch_curves_of_systems_are_of_one_setting(three):
    content = three()
    cases = cases_by_batch_size(content)
    assert (
        set(cases["precision"]) == {"amp_bf16"} or cases.groupby(["model", "mode"])["precision"].nunique().eq(1).all()
    )
    with figure_style.plot_style():
        plot = plots_batch.batch_curves_of_systems(cases, content.system_names)
    titles = [axes.get_title(loc="left") for axes in plot.figure.axes]
    assert len(set(titles)) == 4  # AlexNet and ResNet-50, training and inference
    assert all("amp_bf16" in title for title in titles)
    rows = plots_batch.knees_table(cases, content.system_names).records()
    assert {row["system"] for row in rows} == {"H200", "A100", "L40S"}


def test_no_point_beats_the_pareto_front_and_each_of_it_beats_its_neighbour(three):
    cases = summarize_processes(add_case_numbers(three().shown))
    for (model, mode), front in plots_systems.pareto_fronts(cases):
        same = cases[(cases["model"] == model) & (cases["mode"] == mode)]
        for point in front.to_dict("records"):
            faster = same["throughput"] > point["throughput"]
            assert not (faster & (same["energy_per_image"] <= point["energy_per_image"])).any()
        assert front["throughput"].is_monotonic_decreasing
        assert front["energy_per_image"].is_monotonic_decreasing


def test_anchors_stand_beside_our_nearest_case_with_what_differs(three):
    content = three()
    # Published results are of v1.5, whose strides differ: the paper's network takes 6 % less FLOP, and has none.
    assert not [
        row
        for row in published_throughputs_table(content.shown, content.system_names)[0].records()
        if "ResNet" in row["model"]
    ]
    newer = content.shown.assign(model=content.shown["model"].replace("resnet50", "resnet50_v1_5"))
    table, num_others = published_throughputs_table(newer, content.system_names)
    rows = table.records()
    ours = next(row for row in rows if row["source"].startswith("milabench") and row["device"] == "H200 SXM")
    assert ours["system"] == "H200"
    assert ours["ratio"] == pytest.approx(ours["ours"] / ours["published"])
    assert ours["differs"] == "precision: amp_fp16+tf32 published, amp_bf16 here"
    # Another device is another question.
    assert not [row for row in rows if row["device"] == "Titan X"]
    assert num_others > 3


def test_the_projection_has_a_row_per_network_and_system_and_its_assumptions(three):
    section = projection_section(three(prices=Prices("EUR", per_kwh=0.2, per_device_hour=2.0)))
    [table] = [block.table for block in section.blocks if block.table]
    rows = table.records()
    assert [(row["model"], row["system"]) for row in rows] == [
        ("AlexNet", "H200"), ("AlexNet", "A100"), ("AlexNet", "L40S"), ("ResNet-50", "H200"), ("ResNet-50", "A100"),
    ]  # fmt: skip
    for row in rows:
        assert row["cost"] == pytest.approx(0.2 * row["energy_kwh"] + 2.0 * row["device_hours"])
    said = words_of(section)
    assert "No training was run to its end" in said
    assert "Validation, checkpoints, start-up and interruptions are not included." in said


def test_each_system_costs_what_its_own_prices_say(three):
    own = {"H200": Prices("EUR", per_device_hour=5.0), "L40S": Prices("EUR", per_device_hour=1.0)}
    section = projection_section(three(prices=Prices("EUR", systems=own)))
    [table] = [block.table for block in section.blocks if block.table]
    for row in table.records():
        rate = own[row["system"]].per_device_hour if row["system"] in own else None
        assert row["cost"] == (None if rate is None else pytest.approx(rate * row["device_hours"]))
    assert "H200: A device costs 5 EUR per hour" in words_of(section)
    assert "L40S: A device costs 1 EUR per hour" in words_of(section)


def test_provenance_puts_differences_first_and_folds_the_rest(three):
    blocks = provenance_section(three()).blocks
    different = next(block for block in blocks if block.heading == "Differences between the systems")
    same = next(block for block in blocks if block.heading.startswith("Properties equal on all systems"))
    names = {row["property"] for row in different.table.records()}
    assert {"Accelerator", "Driver", "Read from"} <= names
    assert {row["property"] for row in same.table.records()} >= {"PyTorch", "Python"}
    assert same.folded
    assert not different.folded


def test_failed_cases_only_on_several_systems_are_told(tmp_path):
    stores = []
    for i, system in enumerate((fake.H200, fake.A100)):
        done = fake.campaign(system, CASES[:1], first=100 * i)
        failed = [
            fakes.record(case, number=100 * i + 10 + j, status="oom", system_key=done[0].system_key)
            for j, case in enumerate(CASES[1:3])
        ]
        stores.append(fake.store(tmp_path / str(i), failed))
    for section in every_section(read_content(stores)).values():
        assert section.title


def test_hostile_names_reach_figures_and_tables_as_texts(tmp_path):
    hostile = dataclasses.replace(fake.H200, hostname=fakes.HOSTILE, device_name=fakes.HOSTILE)
    a = fake.store(tmp_path / "a", fake.campaign(hostile, [*CASES, Case("$x^2$", device="cuda")], repeats=2))
    b = fake.store(tmp_path / "b", fake.campaign(fake.A100, [*CASES, Case("$x^2$", device="cuda")], first=900))
    content = read_content([a, f"$\\frac{{1}}$={b}"])
    for section in every_section(content).values():
        for plot in plots_of(section).values():
            if plot.figure:
                with figure_style.plot_style():
                    assert "<script" not in figure_style.save_figure(plot.figure, tmp_path / "figures", plot.name)


def test_empty_stores_and_one_that_is_not_give_a_report_that_says_so(tmp_path):
    empty = fake.store(tmp_path / "empty", [])
    for section in every_section(read_content([f"a={empty}", f"b={empty}"])).values():
        assert section.title
    full = fake.store(tmp_path / "full", fake.campaign(fake.H200, CASES[:2]))
    content = read_content([f"a={empty}", f"b={full}"])
    assert list(content.system_names.values()) == ["b"]
    assert not every_section(content)["systems"].blocks


def test_a_metric_that_no_system_has_is_named_instead_of_shown(tmp_path):
    other = dataclasses.replace(fakes.CPU, cpu_model="Ampere Altra", hostname="altra")
    case = Case("vgg16", batch_size=4)
    stores = [
        fake.store(tmp_path / str(i), fake.campaign(system, [case], first=100 * i))
        for i, system in enumerate((fakes.CPU, other))
    ]
    sections = every_section(read_content(stores))
    missing = words_of(sections["summary"]) + words_of(sections["systems"])
    assert "Not compared, because fewer than two systems have a value: energy per image" in missing
    assert "Energy per image: no shared case has a value." in words_of(sections["systems"])
    assert plots_of(sections["energy"])["energy"].caption.startswith("No shared case has a value")


def test_two_reports_of_the_same_systems_are_the_same(tmp_path, monkeypatch):
    monkeypatch.delitem(build.FORMS, "report.pdf")
    sources = [
        f"{name}={fake.store(tmp_path / name, fake.campaign(system, CASES[:4], repeats=3, first=100 * i))}"
        for i, (name, system) in enumerate((("x", fake.H200), ("y", fake.A100)))
    ]
    for folder in ("1", "2"):
        build_report(sources, tmp_path / folder)
    for file in ("index.html", "report.md", "tables.tex", "comparison.csv"):
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()


def test_ten_systems_fit_one_figure_and_every_one_has_a_mark_of_its_own(tmp_path):
    sources = []
    for i in range(10):
        system = dataclasses.replace(fake.H200, device_name=f"Accelerator number {i} of a rather long name")
        sources.append(fake.store(tmp_path / str(i), fake.campaign(system, CASES[:2], first=100 * i)))
    content = read_content(sources)
    with figure_style.plot_style():
        plot = plots_of(every_section(content)["throughput"])["throughput"]
        plot.figure.canvas.draw()
        width = plot.figure.get_window_extent().width
        assert plot.figure.legends[0].get_window_extent().x1 <= width
    marks = [(line.get_color(), line.get_marker()) for line in plot.figure.axes[0].lines if line.get_marker() != "None"]
    assert len(set(marks)) == 10
