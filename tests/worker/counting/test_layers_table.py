"""`dlbench/facts/layers.csv`, which is read in the place of counting, holds what is counted."""

import dataclasses

import pytest

from dlbench.facts.layers import catalogue_layers
from dlbench.suites.catalog import CATALOG
from dlbench.worker.counting.layers import layers


@pytest.mark.parametrize("model", CATALOG)
def test_the_layers_of_the_file_are_those_that_are_counted(model):
    known = catalogue_layers(model, auxiliary=True)
    hint = "python -m dlbench.worker.counting.layers_table > dlbench/facts/layers.csv"
    assert known == layers(model, auxiliary=True), hint
    main = {row.name for row in layers(model)} if model.startswith("googlenet") else {row.name for row in known}
    assert catalogue_layers(model) == [row for row in known if row.name in main]


def test_another_network_is_not_in_the_file():
    assert catalogue_layers("tests.worker.networks.counted:Spectrum") is None


def test_every_field_comes_back_as_it_was():
    (first, *_) = catalogue_layers("lenet5")
    assert dataclasses.asdict(first) | {"macs": 117_600, "stride": (1, 1), "padding": (2, 2), "uncounted": ()} == (
        dataclasses.asdict(first)
    )
