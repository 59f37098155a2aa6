"""Spread between processes, and the hosts and devices that are off."""

import dataclasses

import pytest

from dlbench.report.analysis import variability
from dlbench.report.analysis.content import read_content
from dlbench.report.chapters.systems_blocks import process_spread_blocks
from dlbench.report.figures import figure_style
from dlbench.report.figures.plots_variability import hardware_deviations_plot
from tests.fakes import systems as fake

CASES = fake.classic_cases(("alexnet", "vgg16"), (64,))
HOSTS = [f"node{i:02}" for i in range(6)]


def cases_of(tmp_path, **options):
    return variability.find_repeated_processes(
        read_content([fake.store(tmp_path, fake.campaign(fake.H200, CASES, **options))])
    )


def off(found, kind="host"):
    return [(unit.name, unit.deviation) for unit in found if unit.off and unit.kind == kind]


def test_a_slow_host_is_named_and_the_others_are_not(tmp_path):
    cases = cases_of(tmp_path, hosts=HOSTS, repeats=12, slow=lambda host: 1.08 if host == "node03" else 1.0)
    found = variability.hardware_deviations(cases)
    [(name, deviation)] = off(found)
    assert name == "node03"
    assert deviation == pytest.approx(0.08, abs=0.02)
    assert found[0].name in ("node03", "GPU-node03")
    assert [name for name, _ in off(found, "device")] == ["GPU-node03"]


def test_hosts_that_differ_by_noise_alone_are_not_named(tmp_path):
    assert off(variability.hardware_deviations(cases_of(tmp_path, hosts=HOSTS, repeats=12))) == []


def test_one_process_per_host_is_judged_by_the_other_hosts(tmp_path):
    slow = {"hosts": HOSTS, "repeats": 6, "slow": lambda host: 1.3 if host == "node05" else 1.0}
    assert [name for name, _ in off(variability.hardware_deviations(cases_of(tmp_path, **slow)))] == ["node05"]


def test_of_two_hosts_the_slower_one_is_named(tmp_path):
    cases = cases_of(tmp_path, hosts=HOSTS[:2], repeats=2, slow=lambda host: 1.5 if host == "node01" else 1.0)
    [(name, deviation)] = off(variability.hardware_deviations(cases))
    assert name == "node01"
    assert deviation == pytest.approx(0.4, abs=0.02)  # 1.5 and 1 are 20 % above and below their middle


def test_too_few_processes_on_too_few_hosts_tell_nothing(tmp_path):
    slow = {"hosts": HOSTS[:2], "repeats": 2, "slow": lambda host: 1.5 if host == "node01" else 1.0}
    content = read_content([fake.store(tmp_path, fake.campaign(fake.H200, CASES[:3], **slow))])
    found = variability.hardware_deviations(variability.find_repeated_processes(content))
    assert len(found) == 4
    assert not any(unit.off for unit in found)
    rows = variability.hardware_deviations_table(found, {}).records()
    assert {row["verdict"] for row in rows} == {"too few processes"}
    assert any(
        "Too few processes to decide whether a host differs from the others." in block.words
        for block in process_spread_blocks(content)
    )


def test_devices_are_told_apart_where_hosts_have_several(tmp_path):
    records = fake.campaign(fake.H200, CASES, HOSTS[:3], 6)
    split = [
        dataclasses.replace(
            r, ranks=tuple((s, dataclasses.replace(m, device_uuid=f"{m.device_uuid}-{i % 2}")) for s, m in r.ranks)
        )
        for i, r in enumerate(records)
    ]
    for name, given, wanted in (("one", records, ["Hosts"]), ("two", split, ["Hosts", "Devices"])):
        blocks = process_spread_blocks(read_content([fake.store(tmp_path / name, given)]))
        assert [block.heading for block in blocks if block.heading in ("Hosts", "Devices")] == wanted


def test_the_spread_of_each_case_is_in_a_table(tmp_path):
    content = read_content([fake.store(tmp_path, fake.campaign(fake.H200, CASES, HOSTS, 12))])
    table = variability.process_spread_table(variability.find_repeated_processes(content), content.system_names)
    assert len(table.rows) == len(CASES)
    for row in table.records():
        assert row["processes"] == 12
        assert row["hosts"] == 6
        assert row["lowest"] < 0 < row["highest"]
        assert 0 < row["spread"] < 0.03


def test_nothing_that_ran_twice_says_so(tmp_path):
    content = read_content([fake.store(tmp_path, fake.campaign(fake.H200, CASES))])
    [block] = process_spread_blocks(content)
    assert "No case ran more than once" in block.words


def test_the_figure_names_what_is_slow(tmp_path):
    cases = cases_of(tmp_path, hosts=HOSTS, repeats=12, slow=lambda host: 1.2 if host == "node03" else 1.0)
    with figure_style.plot_style():
        plot = hardware_deviations_plot(variability.hardware_deviations(cases), cases, {}, "host")
    assert any(text.get_text().startswith("slow: +") for text in plot.figure.axes[0].texts)
    assert plot.figure.axes[0].get_yticklabels()[0].get_text() == "node03"


def test_of_many_cases_those_with_the_widest_range_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(variability, "MAX_LISTED", 3)
    cases = cases_of(tmp_path, repeats=4)
    table = variability.process_spread_table(cases, {})
    reach = cases.groupby("number")["deviation"].agg(lambda d: d.max() - d.min())
    assert sorted(row["highest"] - row["lowest"] for row in table.records()) == pytest.approx(sorted(reach)[-3:])
    assert table.notes[-1] == "8 cases; shown are the 3 whose processes differ most."
