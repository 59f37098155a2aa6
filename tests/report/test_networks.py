"""A name that stood for two networks: never one row, and never compared without a word."""

from __future__ import annotations

import dataclasses

import pytest

from dlbench.errors import BadInput
from dlbench.report.analysis import content
from dlbench.report.analysis.comparison_matching import ComparisonRules
from dlbench.results import store
from dlbench.results.schema import to_table
from dlbench.suites.case import Case
from tests.fakes import records as fake
from tests.report.comparing import compare_stores

OWN = Case("own:make", batch_size=8)


def made(key, number, case=OWN, **changes):
    return fake.record(case, fake.CPU, number, network_key=key, **changes)


def test_two_networks_of_one_name_are_two_cases_with_names_that_tell_them_apart(tmp_path):
    for number, key in enumerate(("1111aaaa2222", "3333bbbb4444", None, "3333bbbb4444")):
        store.append_record(tmp_path, made(key, number))
    store.append_record(tmp_path, fake.record(Case("lenet5", batch_size=8), fake.CPU, 9, network_key=""))
    shown = content.read_content([tmp_path]).shown
    assert sorted(shown["model"]) == [
        "lenet5",
        "own:make [1111aaaa2222]",
        "own:make [3333bbbb4444]",
        "own:make [not recorded]",
    ]
    assert set(content.metrics(tmp_path)["model"]) == set(shown["model"])


def test_one_network_keeps_its_plain_name(tmp_path):
    for number in range(2):
        store.append_record(tmp_path, made("1111aaaa2222", number))
    assert content.read_content([tmp_path]).shown["model"].tolist() == ["own:make"]


def compared(base, target):
    def rows(keys, first):
        repeats = [dataclasses.replace(OWN, repeat=i) for i in range(3)]
        return to_table(
            [made(k, n, c) for n, (k, c) in enumerate(((k, c) for k in keys for c in repeats), first)]
        ).to_pandas()

    (line,) = compare_stores(rows(base, 0), rows(target, 100), ComparisonRules()).lines
    return line


def test_a_comparison_says_that_the_network_is_another_one():
    line = compared(["1111aaaa2222"], ["3333bbbb4444"])
    assert line.comparison is not None
    assert "the definition of the network differs: 1111aaaa2222 in BASE, 3333bbbb4444 in TARGET" in line.note
    assert "another one" not in compared(["1111aaaa2222"], ["1111aaaa2222"]).note


def test_processes_of_two_networks_are_not_taken_for_one_case():
    with pytest.raises(
        BadInput,
        match="BASE has this case with 2 different definitions of the network; choose with --base-where network_key=3333bbbb4444",
    ):
        compared(["1111aaaa2222", "3333bbbb4444"], ["3333bbbb4444"])
