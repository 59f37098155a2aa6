"""The brief of a choice between three made-up systems: who is best for what, and what is not known."""

import pytest

from dlbench.report.analysis import verdicts
from dlbench.report.analysis.content import read_content
from dlbench.report.analysis.workload_mix import WorkShare
from dlbench.report.chapters import brief
from dlbench.report.figures import figure_style
from tests.fakes import decision


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
    return {row["work"]: row for block in blocks if block.table for row in block.table.records()}


def test_the_first_sentence_names_the_fastest_per_precision_and_mode(blocks):
    words = blocks[0].words
    assert "Birch is fastest in amp_bf16 training (1.25 × Alder, ±" in words
    assert "Alder is fastest in fp32 training (1.22 × Birch, ±" in words
    assert "In amp_bf16 inference Birch against Alder is not decided (needs " in words
    assert "fastest in every precision" not in words
    assert words.count("at 95 %") == 1 < words.count("±")


def test_the_sentence_names_the_least_energy_and_the_lowest_cost(blocks):
    words = blocks[0].words
    assert "Alder needs the least energy per image in every precision and mode" in words
    assert "Cedar costs the least per image in every precision and mode" in words


def test_a_network_that_goes_the_other_way_is_named_at_once_and_in_the_table(blocks):
    assert "AlexNet: Alder 1.10 × Birch" in table_of(blocks)["amp_bf16 training"]["but"]
    assert "The opposite holds in amp_bf16 training for AlexNet: Alder 1.10 × Birch." in blocks[0].words
    points = next(block.points for block in blocks if block.points)
    assert 0 < len(points) <= brief.MAX_CAUTIONS


def test_each_system_has_a_card_whose_headline_hides_no_reversal(blocks):
    cards = {card.label: card for block in blocks for card in block.figures}
    assert list(cards) == ["Alder", "Birch", "Cedar"]
    assert cards["Birch"].value == "0.819 to 1.25 ×"
    lines = dict(cards["Cedar"].lines)
    assert {"Energy per image", "Peak memory", "Cost per image", "Warnings"} <= set(lines)
    assert lines["Peak memory"] == "1.00 ×"
    base = dict(cards["Alder"].lines)
    assert "its ResNet-50" in cards["Alder"].note
    assert base["fp32 training"].endswith(" img/s")
    assert base["Energy per image"].endswith(" mJ/img")
    assert " to " in base["Peak memory"]
    assert base["Cost per million images"].endswith(" EUR")


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
    assert found[0].words.count("not decided (needs 1 more run)") == 4


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
    assert points[0] == "Your mix contains vit_b_16, inference, which was not measured on all systems."


def test_ratios_of_equal_logarithms_have_no_interval_and_no_verdict():
    logs = {(1, "a"): [0.0] * 3, (1, "b"): [0.1] * 3}
    found = verdicts.mean_ratio(logs, "a", "b", [1])
    assert found.interval is None
    assert not found.decided


def test_a_mix_is_not_decided_where_its_interval_holds_one():
    logs = {(1, "a"): [0.0, 0.03, -0.03], (1, "b"): [0.05, 0.08, 0.02]}
    logs |= {(2, "a"): [0.0, 0.001, -0.001], (2, "b"): [-0.05, -0.051, -0.049]}
    found = verdicts.mix_ratio(logs, "a", "b", {1: 0.5, 2: 0.5})
    assert found.value == pytest.approx((2.718281828**0.05 + 2.718281828**-0.05) / 2)
    assert found.interval[0] < 1 < found.interval[1]
    assert not found.decided


def test_the_interval_of_a_mean_over_cases_follows_from_their_processes():
    logs = {}
    for case in (1, 2):
        logs[case, "a"] = [0.0, 0.02, -0.02]
        logs[case, "b"] = [0.1, 0.12, 0.08]
    found = verdicts.mean_ratio(logs, "a", "b", [1, 2])
    # Standard error of each case √(2 · 0.02² / 3), of the mean of two that over √2, times 2; 8 degrees of freedom.
    assert found.comparison.standard_error == pytest.approx(2 * (2 * 0.02**2 / 3) ** 0.5 / 2**0.5)
    assert found.value == pytest.approx(2.718281828**0.1)
    assert found.interval[0] == pytest.approx(
        found.value / 2.718281828 ** (2.306 * found.comparison.standard_error), rel=1e-4
    )
    assert found.invert().interval == pytest.approx((1 / found.interval[1], 1 / found.interval[0]))
