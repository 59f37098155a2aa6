"""What a report warns of beside the records' own warnings."""

from __future__ import annotations

import dataclasses

from dlbench.report.chapters.findings import findings
from dlbench.report.data.content import read
from dlbench.spec.case import Case
from tests.fakes import records


def codes(sources):
    return {row["code"]: row for row in findings(read(sources)).records()}


def stored(root, threads, number, repeat=0):
    system = dataclasses.replace(records.CPU, torch_threads=threads)
    return records.fill(root, [records.record(Case("lenet5", repeat=repeat), system, number=number, system_key="k")])


def test_what_several_sources_hold_of_one_system_is_said_and_names_keep_it_apart(tmp_path):
    first, second = stored(tmp_path / "a", 2, 1), stored(tmp_path / "b", 2, 2)
    found = codes([first, second])
    assert found["in several sources"]["cases"] == 1
    assert found["in several sources"]["which"] == "LeNet-5"
    assert "in several sources" not in codes([f"OLD={first}", f"NEW={second}"])
    assert "in several sources" not in codes([first])


def test_repeats_with_other_numbers_of_threads_are_named(tmp_path):
    first, second = stored(tmp_path / "a", 1, 1), stored(tmp_path / "b", 2, 2, repeat=1)
    found = codes([first, second])
    assert "(1, 2)" in found["threads differ"]["sentence"]
    assert found["threads differ"]["cases"] == 2
    alike = stored(tmp_path / "c", 2, 3, repeat=2)
    assert "threads differ" not in codes([second, alike])
