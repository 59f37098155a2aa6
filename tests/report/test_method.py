"""The page that says where each rule of measuring is met."""

from __future__ import annotations

import dataclasses

import pytest

from dlbench.report.chapters.method import own_rules
from dlbench.report.data.content import read
from dlbench.spec.case import Case
from tests.fakes import records as fakes


@pytest.mark.parametrize(
    ("wrong", "state", "words"), [(0, "met", "2 of 2"), (1, "partly", "1 of 2"), (2, "no", "0 of 2")]
)
def test_counts_that_disagree_with_pytorchs_are_not_called_met(tmp_path, wrong, state, words):
    made = []
    for number in range(2):
        record = fakes.record(Case("alexnet", batch_size=2**number), number=number)
        ((system, found),) = record.ranks
        counted = found.forward_flop + (number < wrong)
        ranks = ((system, dataclasses.replace(found, pytorch_forward_flop=counted)),)
        made.append(dataclasses.replace(record, ranks=ranks))
    rows = own_rules(read([fakes.fill(tmp_path / "store", made)])).records()
    (rule,) = [row for row in rows if row["rule"] == 11]
    assert rule["state"] == state
    assert f"the same forward FLOP in {words} records" in rule["done"]
