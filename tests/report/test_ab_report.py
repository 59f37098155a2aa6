"""The report of `dlbench ab`: the settings are the systems, and its verdicts are those that the command printed."""

import dataclasses
import re

import pytest

from dlbench.campaign.experiment import compare_experiment
from dlbench.commands.comparison_options import print_comparison
from dlbench.launch import ab_experiment
from dlbench.launch.ab_experiment import parse_setting
from dlbench.report.analysis.ab_experiments import compare_experiments
from dlbench.report.analysis.comparison_matching import ComparisonRules
from dlbench.report.analysis.content import read_content
from dlbench.report.analysis.verdicts import compare_systems
from dlbench.report.chapters.comparison_tables import summary_line
from dlbench.report.chapters.provenance import provenance_section
from dlbench.report.chapters.sections import SECTIONS, comparison_section
from dlbench.report.chapters.summary import summary_section
from dlbench.report.chapters.systems_section import systems_section
from dlbench.report.figures import figure_style
from dlbench.suites.suite import load_suite
from dlbench.table import cell_texts
from tests.fakes import records as fakes
from tests.fakes import systems as fake
from tests.fakes.reports import build_report

SUITE = """
name = "pair"
[axes]
model = ["lenet5", "alexnet"]
mode = ["training", "inference"]
batch_size = [4]
"""
#: The keys of system and networks of both sides.
KEYS = (("sys", "sys"), ({}, {}))
#: By how much B's steps are longer, by network: one is slower, in the other nothing is decided.
FACTORS = {"lenet5": 1.2, "alexnet": 1.004}


@pytest.fixture
def suite_file(tmp_path):
    (tmp_path / "pair.toml").write_text(SUITE)
    return tmp_path / "pair.toml"


def experiment(file, a="", b="env.SLOW=1.2", seed=0):
    of_a, of_b = parse_setting([a], "--a"), parse_setting([b], "--b")
    suites = [load_suite(file, side.overrides) for side in (of_a, of_b)]
    return ab_experiment.plan_experiment(*suites, of_a, of_b, seed, "cpu")


def measured(what, pairs=6, first=0, factors=FACTORS, **changes):
    """Records of the experiment, one after the other; both halves of a pair drift together."""
    found = []
    for number, turn in enumerate(turn for pair in what.run_order(pairs) for turn in pair):
        drift = 1 + 0.3 * turn.pair
        noise = 1 + 0.004 * ((7 * number) % 5 - 2)
        slower = factors[turn.case.model] if turn.side == "b" else 1.0
        steps = fakes.noisy_steps(0.010 * drift * noise * slower * turn.case.batch_size / 4, 60, number)
        suite = what.suite_names["ab".index(turn.side)]
        values = {"suite": suite, "label": what.label_of_side(turn.side), "system_key": "sys", "step_s": steps}
        found.append(fakes.record(turn.case, fakes.CPU, first + number, **values | changes))
    return found


def report_of(root, *records, name=""):
    store = fake.store(root, *records)
    return read_content([f"{name}={store}" if name else store], with_sides=True)


def summary_blocks(content):
    with figure_style.plot_style():
        return summary_section(content).blocks


def verdict_tables(blocks):
    return [block for block in blocks if block.heading.startswith("Verdict per case")]


def test_the_settings_are_the_systems_and_a_is_the_baseline(suite_file, tmp_path):
    content = report_of(tmp_path / "r", measured(experiment(suite_file)))
    assert list(content.system_names.values()) == ["A", "B"]
    found = compare_systems(content)
    assert (found.names[found.base], found.paired) == ("A", True)
    blocks = summary_blocks(content)
    assert blocks[0].words.startswith("B (env.SLOW=1.2) against A (as is): 4 compared: 2 slower, 0 faster, ")
    one, two = blocks[0].words.split("\n")[1:]
    assert re.fullmatch(
        r"In fp32 training B is 0\.9\d+ \[0\.9\d+, 0\.9\d+ at 95 %\] times as fast as A \(mean of 2 cases\)\.", one
    )
    assert re.fullmatch(
        r"In fp32 inference B is 0\.9\d+ \[0\.9\d+, 0\.9\d+\] times as fast as A \(mean of 2 cases\)\.", two
    )
    points = next(block.points for block in blocks if block.heading == "Systems")
    assert [point.partition(", ")[0] for point in points] == ["A: setting as is", "B: setting env.SLOW=1.2"]
    rows = {row["property"]: row for row in provenance_section(content).blocks[2].table.records()}
    assert rows["Setting of the side"]["system_2"] == "env.SLOW=1.2"


@pytest.mark.parametrize("pairs", [2, 6])
def test_the_verdicts_are_those_that_ab_printed(suite_file, tmp_path, capsys, pairs):
    what = experiment(suite_file)
    content = report_of(tmp_path / "r", measured(what, pairs))
    printed = compare_experiment(what, pairs, tmp_path / "r", *KEYS, ComparisonRules())
    (own,) = compare_experiments(content)
    key = lambda line: (line.setting["model"], line.setting["mode"])  # noqa: E731
    assert sorted(own.result.lines, key=key) == sorted(printed.lines, key=key)
    assert {line.verdict for line in printed.lines} == ({"slower", "not decided"} if pairs > 2 else {"not decided"})
    blocks = summary_blocks(content)
    assert f": {summary_line(printed)}.\n" in blocks[0].words
    (block,) = verdict_tables(blocks)
    print_comparison(printed, ("A", "B"), "text")
    text = capsys.readouterr().out
    for row in cell_texts(block.table):
        line = next(line for line in text.splitlines() if line.split()[:2] == row[:2])
        assert all(cell in line for cell in row)


def test_a_pair_shares_its_conditions_so_that_drift_decides_nothing(suite_file, tmp_path):
    """Steps grow to 2.5 times over the pairs; independent processes could tell nothing."""
    content = report_of(tmp_path / "r", measured(experiment(suite_file)))
    found = compare_systems(content)
    (own,) = compare_experiments(content)
    a, b = found.names
    lines = {(line.setting["model"], line.setting["mode"]): line.comparison for line in own.result.lines}
    for group in found.groups:
        for number in group.numbers:
            model = found.cases.loc[found.cases["number"] == number, "model"].iloc[0]
            ratio, line = found.ratio("time", a, b, [number]), lines[model, group.mode]
            assert (ratio.value, *ratio.interval) == pytest.approx((line.ratio, line.low, line.high), rel=1e-9)
            assert ratio.comparison.basis == "pairs"


@pytest.mark.parametrize(
    ("a", "b", "hidden"),
    [
        ("batch_size=8", "batch_size=16", {"batch_size"}),
        ("", "memory_format=channels_last", set()),
        ("precision=fp32", "precision=amp_bf16", {"precision"}),
        ("protocol.seed=1", "protocol.seed=2", set()),
    ],
)
def test_cases_match_though_their_settings_differ(suite_file, tmp_path, a, b, hidden):
    content = report_of(tmp_path / "r", measured(experiment(suite_file, a, b)))
    found = compare_systems(content)
    assert sum(len(group.numbers) for group in found.groups) == 4
    if "precision" in hidden:
        assert [group.name for group in found.groups] == ["fp32 → amp_bf16 training", "fp32 → amp_bf16 inference"]
    # Per sample: steps of twice the batch take twice the time.
    numbers = [
        n for n in found.groups[0].numbers if (found.cases.loc[found.cases["number"] == n, "model"] == "lenet5").all()
    ]
    assert found.ratio("time", *found.names, numbers).value == pytest.approx(1.2, rel=0.02)
    (own,) = compare_experiments(content)
    assert own.result.num_compared == 4
    with figure_style.plot_style():
        blocks = {section.id: section.blocks for section in (make(content) for make in SECTIONS)}
    throughput = next(block.table for block in blocks["systems"] if block.heading == "Throughput")
    assert not hidden & {column.key for column in throughput.columns}
    plot = next(block.plot for block in blocks["summary"] if block.plot)
    assert len(plot.marks) == 4


def test_a_side_whose_variables_make_another_system_of_it_is_still_a_side(suite_file, tmp_path):
    what = experiment(suite_file, b="env.OMP_NUM_THREADS=1")
    made = [
        dataclasses.replace(record, system_key="one thread") if record.suite == what.suite_names[1] else record
        for record in measured(what)
    ]
    content = report_of(tmp_path / "r", made)
    assert list(content.system_names.values()) == ["A", "B"]
    (own,) = compare_experiments(content)
    assert own.result.num_compared == 4


def test_a_side_whose_setting_makes_another_network_of_a_factory_is_still_compared(suite_file, tmp_path):
    what = experiment(suite_file)
    made = [dataclasses.replace(record, network_key=f"key of {record.suite[-1]}") for record in measured(what)]
    content = report_of(tmp_path / "r", made)
    assert set(content.shown["model"]) == {"lenet5", "alexnet"}
    assert compare_systems(content).groups
    assert compare_experiments(content)[0].result.num_compared == 4


def test_a_name_of_the_source_stands_before_the_sides(suite_file, tmp_path):
    content = report_of(tmp_path / "r", measured(experiment(suite_file)), name="H200")
    assert list(content.system_names.values()) == ["H200 A", "H200 B"]


def test_processes_of_a_side_are_one_case_of_it(suite_file, tmp_path):
    content = report_of(tmp_path / "r", measured(experiment(suite_file)))
    tables = [block.table for block in comparison_section(content).blocks if block.table]
    assert [len(table.rows) for table in tables] == [8, 8]
    said = systems_section(content).finding
    assert said == "2 systems: A, B. 4 cases measured alternately with each of the two settings."


def test_pairs_that_are_not_whole_are_left_out_and_counted(suite_file, tmp_path):
    what = experiment(suite_file)
    made = measured(what)
    case = made[0].case | {"repeat": 0}
    broken = [
        dataclasses.replace(r, status="crashed", ranks=(), error="no")
        if r.case == case and r.suite == what.suite_names[1]
        else r
        for r in made
    ]
    content = report_of(tmp_path / "r", broken)
    assert list(content.system_names.values()) == ["A", "B"]
    (own,) = compare_experiments(content)
    notes = [line.note for line in own.result.lines if "pairs left out" in line.note]
    assert notes == ["1 of 6 pairs left out: one side failed, or other processes ran between the two sides"]
    printed = compare_experiment(what, 6, tmp_path / "r", *KEYS, ComparisonRules())
    assert {line.comparison.ratio for line in own.result.lines} == {line.comparison.ratio for line in printed.lines}


def test_beside_other_results_an_experiment_keeps_its_verdicts_and_makes_no_systems(suite_file, tmp_path):
    what = experiment(suite_file)
    other = experiment(suite_file, b="env.SLOW=3")
    usual = [dataclasses.replace(r, system_key="sys") for r in fakes.quick()]
    content = report_of(tmp_path / "r", measured(what), measured(other, first=500), usual)
    assert list(content.system_names.values()) == ["AMD EPYC 7B13"]
    blocks = verdict_tables(summary_blocks(content))
    assert sorted(block.heading for block in blocks) == [
        "Verdict per case: B (env.SLOW=1.2) against A (as is)", "Verdict per case: B (env.SLOW=3) against A (as is)",
    ]  # fmt: skip
    assert all(block.words.endswith("; AMD EPYC 7B13.") for block in blocks)
    assert all(one.result.num_compared == 4 for one in compare_experiments(content))


def test_a_suite_that_is_only_named_like_a_side_is_none(suite_file, tmp_path):
    what = experiment(suite_file)
    made = [dataclasses.replace(record, label=None) for record in measured(what)]
    content = report_of(tmp_path / "r", made)
    assert list(content.system_names.values()) == ["AMD EPYC 7B13"]
    assert compare_experiments(content) == ()


def test_one_side_alone_is_reported_and_compared_with_nothing(suite_file, tmp_path):
    what = experiment(suite_file)
    content = report_of(tmp_path / "r", [r for r in measured(what) if r.suite == what.suite_names[0]])
    assert list(content.system_names.values()) == ["AMD EPYC 7B13"]
    assert not verdict_tables(summary_blocks(content))


def test_the_whole_report_is_written_twice_the_same(suite_file, tmp_path, monkeypatch):
    monkeypatch.setattr(figure_style, "FILE_FORMATS", {"svg": figure_style.FILE_FORMATS["svg"]})
    store = fake.store(tmp_path / "r", measured(experiment(suite_file, b="batch_size=8,env.SLOW=<script>")))
    for number in "12":
        build_report([store], tmp_path / number)
    page = (tmp_path / "1" / "index.html").read_text()
    assert "<title>A/B test: B (batch_size=8, env.SLOW=&lt;script&gt;) against A (as is)</title>" in page
    for name in ("index.html", "report.md", "report.pdf", "metrics.csv"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
