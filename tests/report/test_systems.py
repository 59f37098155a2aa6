"""Sources and names of systems: as the user gives them, else by hardware, else by what differs."""

import dataclasses

import pytest

from dlbench.errors import BadInput, StoreError, UnknownName
from dlbench.report.data.content import read
from dlbench.report.data.systems import Source, parse_source
from dlbench.spec.case import Case
from tests.fakes import records as fakes
from tests.fakes import systems as fake

CASES = [Case("vgg16", batch_size=16, device="cuda"), Case("alexnet", batch_size=16, device="cuda")]


def names_of(*sources):
    return list(read(sources).system_names.values())


def test_a_name_before_an_equals_sign_names_the_source():
    assert parse_source("H200=results/h200") == Source("results/h200", "H200")
    assert parse_source("two  words=results") == Source("results", "two words")
    assert parse_source("results/h200") == Source("results/h200")


def test_a_path_that_exists_is_a_path_whatever_is_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "date=1").mkdir()
    assert parse_source("date=1") == Source("date=1")
    assert parse_source("dat?=*") == Source("dat?=*")
    assert parse_source("date=2") == Source("2", "date")


@pytest.mark.parametrize("text", ["=results", "  =results", "H200="])
def test_half_a_name_is_an_error_that_shows_it(text):
    with pytest.raises(BadInput, match=f"'{text}'"):
        parse_source(text)


def test_a_named_source_that_is_not_there_is_an_error():
    with pytest.raises(StoreError, match="no results at 'nowhere'"):
        read(["H200=nowhere"])


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
    content = read([f"before={a}", f"after={b}"])
    assert list(content.system_names.values()) == ["before", "after"]
    assert len(content.shown) == 2 * len(CASES)


def test_one_machine_in_two_sources_without_names_is_one_system(tmp_path):
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES))
    b = fake.store(tmp_path / "b", fake.campaign(fake.H200, CASES, first=50))
    assert names_of(a, b) == ["NVIDIA H200"]


def test_an_attempt_in_two_sources_counts_once_and_for_the_first(tmp_path):
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES))
    content = read([f"first={a}", f"second={a}"])
    assert list(content.system_names.values()) == ["first"]
    assert len(content.rows) == len(CASES)


def test_an_attempt_that_died_early_belongs_to_the_only_system_of_its_source(tmp_path):
    oom = fakes.record(Case("vgg16", batch_size=4096, device="cuda"), number=90, status="oom", system_key=None)
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES), [oom])
    content = read([f"ours={a}"])
    assert content.system_names[content.failed["system_id"].iloc[0]] == "ours"


def test_hostile_names_are_texts(tmp_path):
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES))
    name = fakes.HOSTILE.replace("=", "")
    assert names_of(f"{name}={a}") == [name]


def test_a_baseline_that_is_no_system_is_an_error_that_lists_them(tmp_path):
    a = fake.store(tmp_path / "a", fake.campaign(fake.H200, CASES))
    with pytest.raises(UnknownName, match="H2000"):
        read([f"H200={a}"], baseline="H2000")
    assert read([f"H200={a}"], baseline="H200").baseline == "H200"
