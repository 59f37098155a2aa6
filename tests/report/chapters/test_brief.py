"""The brief of a choice between three made-up systems: who is best for what, and what is not known."""

import dataclasses
import re

import pytest

from dlbench.report.analysis import verdicts
from dlbench.report.analysis.content import read_content
from dlbench.report.analysis.workload_mix import WorkShare
from dlbench.report.chapters import brief
from dlbench.report.figures import figure_style
from dlbench.suites.case import Case
from dlbench.table import cell_texts
from tests.fakes import decision
from tests.fakes import records as fakes
from tests.fakes import systems as fake


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return decision.fill(tmp_path_factory.mktemp("decision"))


@pytest.fixture(scope="module")
def content(sources):
    return read_content(sources, prices=decision.PRICES)


@pytest.fixture(scope="module")
def blocks(content):
    with figure_style.plot_style():
        return brief.brief_blocks(content)


def table_of(blocks):
    return {
        row["work"]: row for block in blocks if block.heading.startswith("Best system") for row in block.table.records()
    }


def test_the_first_sentence_names_the_fastest_per_precision_and_mode(blocks):
    words = blocks[0].words
    assert "Birch is fastest in amp_bf16 training (1.25 × Alder, ±" in words
    assert "Alder is fastest in fp32 training (1.22 × Birch, ±" in words
    assert "Birch against Alder in amp_bf16 inference: not decided (needs " in words
    assert "fastest in every precision" not in words
    assert words.count("at 95 %") == 1 < words.count("±")


def test_the_sentence_names_the_least_energy_and_the_lowest_cost(blocks):
    words = blocks[0].words
    assert "Alder needs the least energy per image in every precision and mode" in words
    assert "Cedar costs the least per image in every precision and mode" in words


def test_a_network_that_goes_the_other_way_is_named_at_once_and_in_the_table(blocks):
    assert "AlexNet: Alder 1.10 × Birch" in table_of(blocks)["amp_bf16 training"]["but"]
    assert (
        "With some networks in amp_bf16 training, the system ranked second is faster: AlexNet: Alder 1.10 × Birch."
        in blocks[0].words
    )
    points = next(block.points for block in blocks if block.points)
    assert 0 < len(points) <= brief.MAX_CAUTIONS


def systems_of(blocks):
    """The table of systems, as raw values by column and as texts."""
    table = next(block.table for block in blocks if block.heading.startswith("Systems by speed"))
    texts = [dict(zip((c.key for c in table.columns), row, strict=True)) for row in cell_texts(table)]
    return table, {row["system"]: row for row in table.records()}, {row["system"]: row for row in texts}


def test_every_system_has_a_row_of_its_ratios_the_fastest_first(blocks):
    assert "Systems by speed, energy and cost" in [block.heading for block in blocks]
    table, rows, texts = systems_of(blocks)
    keys = [*_SPEEDS, "energy", "cost", "cases", "warnings"]
    assert [c.key for c in table.columns] == ["system", *keys]
    assert list(rows) == sorted(rows, key=lambda name: -rows[name][_SPEEDS[0]]) == ["Alder", "Birch", "Cedar"]
    assert [texts["Alder"][key] for key in keys[:7]] == [*["1 (baseline)"] * 6, "48 of 48"]
    assert rows["Cedar"]["cost"] == pytest.approx(0.63, abs=0.02)
    assert f"Sorted by {_SPEEDS[0]}." in table.notes[0]


#: Birch is slower than Alder in fp32 and faster in amp_bf16, so no column is a mean of both.
_SPEEDS = ["fp32 training speed", "amp_bf16 training speed", "fp32 inference speed", "amp_bf16 inference speed"]


def test_a_mean_ratio_hides_no_reversal_and_none_stands_without_an_absolute_value(blocks):
    table, _, texts = systems_of(blocks)
    assert re.fullmatch(r"1\.25\n\[[\d., ]+\]\n0\.9\d+ to 1\.39", texts["Birch"]["amp_bf16 training speed"])
    assert re.fullmatch(r"0\.8\d+\n\[[\d., ]+\]", texts["Birch"]["fp32 training speed"])
    note = table.notes[1]
    assert note.startswith("Absolute values of Alder with ResNet-50 at its fastest batch size: ")
    for words in (" img/s in fp32 training, ", " mJ/img, ", "cost per million images ", " EUR, ", "peak memory "):
        assert words in note


def test_ratios_of_the_table_are_those_of_the_brief(blocks, content):
    _, rows, _ = systems_of(blocks)
    found = verdicts.compare_systems(content)
    ids = {name: system for system, name in found.names.items()}
    numbers = [n for group in found.groups if group.name == "fp32 inference" for n in group.numbers]
    ratio = found.ratio("time", found.base, ids["Cedar"], numbers)
    assert rows["Cedar"]["fp32 inference speed"] == 1 / ratio.value


def test_training_and_inference_share_a_column_where_they_agree_and_memory_has_one_where_it_differs(tmp_path):
    cases = fake.classic_cases(("alexnet", "resnet50"), (16,))
    stores = []
    for i, (name, memory) in enumerate({"X": 4, "Y": 2}.items()):
        system = dataclasses.replace(fake.H200, cpu_model=name)
        made = fake.campaign(
            system, cases, repeats=3, first=500 * i, times=lambda device, case: 1 + 0.001 * case.repeat, power=1.0
        )
        used = [
            dataclasses.replace(
                record,
                ranks=tuple(
                    (s, dataclasses.replace(m, memory_allocated_peak_bytes=memory * 2**30)) for s, m in record.ranks
                ),
            )
            for record in made
        ]
        stores.append(f"{name}={fake.store(tmp_path / name, used)}")
    with figure_style.plot_style():
        table, _, texts = systems_of(brief.brief_blocks(read_content(stores)))
    assert [c.key for c in table.columns][1:4] == ["speed", "energy", "memory"]
    assert texts["Y"]["memory"].startswith("0.500")
    assert "Sorted by speed." in table.notes[0]


def test_failed_cases_and_unshared_ones_stand_in_the_row_of_their_system(tmp_path):
    cases = fake.classic_cases(("alexnet",), (16, 64))
    more = fake.campaign(fake.H200, fake.classic_cases(("resnet50",), (16,)), first=900, repeats=3)
    oom = fakes.record(
        Case("vgg16", batch_size=999, device="cuda"), number=990, status="oom", system_key=more[0].system_key
    )
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, cases, repeats=3), [*more, oom])
    b = fake.store(tmp_path / "b", fake.campaign(fake.A100, cases, repeats=3, first=500))
    with figure_style.plot_style():
        _, _, texts = systems_of(brief.brief_blocks(read_content([f"A={a}", f"B={b}"])))
    assert [texts[name]["cases"] for name in "AB"] == ["8 of 12", "8 of 8"]
    assert texts["A"]["warnings"].startswith("1 failed; ")


def test_the_figure_has_a_panel_per_precision_and_marks_that_lead_to_records(blocks, content):
    plot = next(block.plot for block in blocks if block.plot)
    assert [axes.get_title(loc="left") for axes in plot.figure.axes] == ["fp32", "amp_bf16"]
    known = set(content.shown["attempt_id"])
    assert len(plot.marks) == 2 * 4 * 2 * 2  # systems, networks, modes, precisions
    for mark in plot.marks.values():
        assert mark.record in known
        assert "times Alder, 95 % interval" in mark.text


def test_with_two_runs_each_nothing_is_decided_and_the_number_of_runs_is_named(tmp_path):
    with figure_style.plot_style():
        found = brief.brief_blocks(read_content(decision.fill(tmp_path, repeats=2)))
    assert "fastest" not in found[0].words
    assert found[0].words.count("not decided (needs 1 more process)") == 4


def test_a_mix_is_judged_by_total_time_not_by_a_mean_of_ratios(sources):
    mix = (WorkShare("resnet50", 50, "training", "amp_bf16"), WorkShare("alexnet", 50, "training", "fp32"))
    with figure_style.plot_style():
        words = brief.brief_blocks(read_content(sources, mix=mix))[1].words
    # 1 / (0.5 · 0.72 + 0.5 · 1.22) = 1.03
    assert words.startswith("Your mix of work (6 cases, shares of the time on Alder): Birch is 1.03 [")


def test_work_of_a_mix_that_nobody_measured_is_named(sources):
    mix = (WorkShare("resnet50", 50), WorkShare("vit_b_16", 50, "inference"))
    with figure_style.plot_style():
        found = brief.brief_blocks(read_content(sources, mix=mix))
    points = next(block.points for block in found if block.points)
    assert points[0] == "The work mix has vit_b_16, inference, which was not measured on all systems."


def test_ratios_of_equal_logarithms_have_no_interval_and_no_verdict():
    logs = {(1, "a"): [0.0] * 3, (1, "b"): [0.1] * 3}
    found = verdicts.geometric_mean_ratio(logs, "a", "b", [1])
    assert found.interval is None
    assert not found.is_decided


def test_a_mix_is_not_decided_where_its_interval_holds_one():
    logs = {(1, "a"): [0.0, 0.03, -0.03], (1, "b"): [0.05, 0.08, 0.02]}
    logs |= {(2, "a"): [0.0, 0.001, -0.001], (2, "b"): [-0.05, -0.051, -0.049]}
    found = verdicts.workload_mix_ratio(logs, "a", "b", {1: 0.5, 2: 0.5})
    assert found.value == pytest.approx((2.718281828**0.05 + 2.718281828**-0.05) / 2)
    assert found.interval[0] < 1 < found.interval[1]
    assert not found.is_decided


def test_the_interval_of_a_mean_over_cases_follows_from_their_processes():
    logs = {}
    for case in (1, 2):
        logs[case, "a"] = [0.0, 0.02, -0.02]
        logs[case, "b"] = [0.1, 0.12, 0.08]
    found = verdicts.geometric_mean_ratio(logs, "a", "b", [1, 2])
    # Standard error of each case √(2 · 0.02² / 3), of the mean of two that over √2, times 2; 8 degrees of freedom.
    assert found.comparison.standard_error == pytest.approx(2 * (2 * 0.02**2 / 3) ** 0.5 / 2**0.5)
    assert found.value == pytest.approx(2.718281828**0.1)
    assert found.interval[0] == pytest.approx(
        found.value / 2.718281828 ** (2.306 * found.comparison.standard_error), rel=1e-4
    )
    assert found.swap_sides().interval == pytest.approx((1 / found.interval[1], 1 / found.interval[0]))
