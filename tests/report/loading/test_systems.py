"""Sources and names of systems: as the user gives them, else by hardware, else by what differs."""

import dataclasses

import pytest

from dlbench.errors import BadInput, StoreError, UnknownName
from dlbench.report.analysis.content import read_content
from dlbench.report.analysis.scaling_curves import find_scaling_curves
from dlbench.report.loading.systems import ResultsSource, parse_source
from dlbench.suites.case import Case
from tests.fakes import records as fakes
from tests.fakes import systems as fake

CASES = [Case("vgg16", batch_size=16, device="cuda"), Case("alexnet", batch_size=16, device="cuda")]


def names_of(*sources):
    return list(read_content(sources).system_names.values())


def test_a_name_before_an_equals_sign_names_the_source():
    assert parse_source("H200=results/h200") == ResultsSource("results/h200", "H200")
    assert parse_source("two  words=results") == ResultsSource("results", "two words")
    assert parse_source("results/h200") == ResultsSource("results/h200")


def test_a_path_that_exists_is_a_path_whatever_is_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "date=1").mkdir()
    assert parse_source("date=1") == ResultsSource("date=1")
    assert parse_source("dat?=*") == ResultsSource("dat?=*")
    assert parse_source("date=2") == ResultsSource("2", "date")


@pytest.mark.parametrize("text", ["=results", "  =results", "H200="])
def test_half_a_name_is_an_error_that_shows_it(text):
    with pytest.raises(BadInput, match=f"'{text}'"):
        parse_source(text)


def test_a_named_source_that_is_not_there_is_an_error():
    with pytest.raises(StoreError, match="no results at 'nowhere'"):
        read_content(["H200=nowhere"])


def test_names_and_their_order_are_those_of_the_user(tmp_path):
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES))
    b = fake.store(tmp_path / "b", fake.campaign(fake.A100, CASES, first=50))
    assert names_of(f"old={b}", f"new={a}") == ["old", "new"]
    assert names_of(f"new={a}", f"old={b}") == ["new", "old"]


def test_systems_without_names_are_told_apart_by_hardware_in_the_order_of_the_sources(tmp_path):
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES))
    b = fake.store(tmp_path / "b", fake.campaign(fake.A100, CASES, first=50))
    assert names_of(a, b) == ["NVIDIA H200", "NVIDIA A100-SXM4-80GB"]
    assert names_of(b, a) == ["NVIDIA A100-SXM4-80GB", "NVIDIA H200"]


def test_the_same_hardware_is_told_apart_by_its_software(tmp_path):
    older = dataclasses.replace(fake.H200, torch_version="2.14.0")
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES), fake.campaign(older, CASES, first=50))
    assert names_of(a) == ["NVIDIA H200 (PyTorch 2.15.0+cu130)", "NVIDIA H200 (PyTorch 2.14.0)"]


def test_one_name_for_several_kinds_of_hardware_says_which_is_which(tmp_path):
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES), fake.campaign(fake.A100, CASES, first=50))
    assert names_of(f"ours={a}") == ["ours (NVIDIA H200)", "ours (NVIDIA A100-SXM4-80GB)"]


def test_one_machine_under_two_names_is_two_systems(tmp_path):
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES))
    b = fake.store(tmp_path / "b", fake.campaign(fake.H200, CASES, first=50))
    content = read_content([f"before={a}", f"after={b}"])
    assert list(content.system_names.values()) == ["before", "after"]
    assert len(content.shown) == 2 * len(CASES)


def test_one_machine_in_two_sources_without_names_is_one_system(tmp_path):
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES))
    b = fake.store(tmp_path / "b", fake.campaign(fake.H200, CASES, first=50))
    assert names_of(a, b) == ["NVIDIA H200"]


def test_an_attempt_in_two_sources_counts_once_and_for_the_first(tmp_path):
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES))
    content = read_content([f"first={a}", f"second={a}"])
    assert list(content.system_names.values()) == ["first"]
    assert len(content.rows) == len(CASES)


def test_an_attempt_that_died_early_belongs_to_the_only_system_of_its_source(tmp_path):
    oom = fakes.record(Case("vgg16", batch_size=4096, device="cuda"), number=90, status="oom", system_key=None)
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES), [oom])
    content = read_content([f"ours={a}"])
    assert content.system_names[content.failed["system_id"].iloc[0]] == "ours"


def test_hostile_names_are_texts(tmp_path):
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES))
    name = fakes.HOSTILE.replace("=", "")
    assert names_of(f"{name}={a}") == [name]


def test_a_baseline_that_is_no_system_is_an_error_that_lists_them(tmp_path):
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES))
    with pytest.raises(UnknownName, match="H2000"):
        read_content([f"H200={a}"], baseline="H2000")
    assert read_content([f"H200={a}"], baseline="H200").baseline == "H200"


CPU_CASES = [Case("lenet5", batch_size=16), Case("alexnet", batch_size=16)]
#: Two settings of one node, a setting of a node with more memory, and one whose threads are not as many as its cores.
SETTINGS = [
    dataclasses.replace(fakes.CPU, **change)
    for change in (
        {},
        {"cpu_cores": 1, "cpu_threads": 1, "torch_threads": 1},
        {"torch_threads": 1},
        {"memory_bytes": 16 * 2**30},
    )
]


def settings(*of_systems, key="one key"):
    """A campaign of each system under one key, as records of earlier versions have it."""
    made = [fake.campaign(system, CPU_CASES, first=50 * i) for i, system in enumerate(of_systems)]
    return [dataclasses.replace(record, system_key=key) for campaign in made for record in campaign]


def test_settings_of_one_cpu_under_one_key_are_systems_of_their_own(tmp_path):
    content = read_content([fakes.fill(tmp_path / "s", settings(*SETTINGS))])
    assert len(content.shown) == len(SETTINGS) * len(CPU_CASES)
    assert list(content.system_names.values()) == [
        "AMD EPYC 7B13 (2 cores, 2 threads, memory of 8 GiB)",
        "AMD EPYC 7B13 (1 core, 1 thread)",
        "AMD EPYC 7B13 (2 cores, 1 thread)",
        "AMD EPYC 7B13 (2 cores, 2 threads, memory of 16 GiB)",
    ]
    assert content.shown.groupby("system_id").size().tolist() == [len(CPU_CASES)] * len(SETTINGS)


def test_one_setting_needs_no_words_and_some_memory_less_is_no_other_node(tmp_path):
    other = dataclasses.replace(fakes.CPU, hostname="other", memory_bytes=fakes.CPU.memory_bytes - 2**27)
    content = read_content([fakes.fill(tmp_path / "s", settings(fakes.CPU, other))])
    assert list(content.system_names.values()) == ["AMD EPYC 7B13"]
    assert len(content.shown) == len(CPU_CASES)  # the later attempt of each counts


def test_what_a_record_keeps_of_the_node_tells_its_kinds_apart(tmp_path):
    big = {"node_cpu_cores": 64, "node_cpu_threads": 128, "node_memory_bytes": 503 * 2**30, "job_threads": 2}
    small = big | {"node_cpu_cores": 32, "node_cpu_threads": 64}
    systems = [dataclasses.replace(fakes.CPU, **facts) for facts in (big, small)]
    made = [record for system in systems for record in settings(system, key=repr(system))]
    made = [dataclasses.replace(record, attempt_id=f"{i:03}") for i, record in enumerate(made)]
    assert list(read_content([fakes.fill(tmp_path / "s", made)]).system_names.values()) == [
        "AMD EPYC 7B13 (node of 64 cores)",
        "AMD EPYC 7B13 (node of 32 cores)",
    ]


def test_quotas_and_bindings_tell_settings_apart_too(tmp_path):
    changes = ({}, {"cpu_quota": 1.5}, {"cpu_binding": "OMP_PROC_BIND=close"})
    systems = [dataclasses.replace(fakes.CPU, job_threads=2, **change) for change in changes]
    made = [record for system in systems for record in settings(system, key=repr(system))]
    made = [dataclasses.replace(record, attempt_id=f"{i:03}") for i, record in enumerate(made)]
    assert list(read_content([fakes.fill(tmp_path / "s", made)]).system_names.values()) == [
        "AMD EPYC 7B13 (quota of all cores, no binding)",
        "AMD EPYC 7B13 (quota of 1.5 cores)",
        "AMD EPYC 7B13 (quota of all cores, OMP_PROC_BIND=close)",
    ]


@pytest.mark.parametrize("job_threads", [None, 2])
def test_ranks_with_a_share_of_the_threads_are_of_the_system_of_one_process(tmp_path, job_threads):
    one = dataclasses.replace(fakes.CPU, job_threads=job_threads)
    share = dataclasses.replace(one, torch_threads=1)
    made = [*settings(one), fakes.record(Case("lenet5", batch_size=16, devices_per_node=2), share, 70)]
    made = [dataclasses.replace(record, system_key="one key") for record in made]
    content = read_content([fakes.fill(tmp_path / "s", made)])
    assert list(content.system_names.values()) == ["AMD EPYC 7B13"]
    (curve, *_) = find_scaling_curves(content.cases_of_system(next(iter(content.system_names))))
    assert [point.devices for point in curve.points] == [1, 2]


def test_ranks_of_a_key_with_several_settings_are_of_none_of_them(tmp_path):
    ranks = fakes.record(Case("lenet5", batch_size=16, devices_per_node=2), SETTINGS[2], 270, system_key="one key")
    oom = fakes.record(Case("vgg16", batch_size=4096), number=280, status="oom", system_key="one key")
    content = read_content([fakes.fill(tmp_path / "s", [*settings(*SETTINGS), ranks, oom])])
    assert len(content.system_names) == len(SETTINGS) + 1
    assert "AMD EPYC 7B13 (2 cores, 1 thread per rank)" in content.system_names.values()
    assert len(content.shown) == len(SETTINGS) * len(CPU_CASES) + 1
    assert len(content.failed) == 1
