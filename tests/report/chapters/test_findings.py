"""What a report warns of beside the records' own warnings."""

from __future__ import annotations

import dataclasses

from dlbench.report.analysis.content import read_content
from dlbench.report.chapters.findings import findings_table
from dlbench.suites.case import Case
from tests.fakes import records


def codes(sources):
    return {row["code"]: row for row in findings_table(read_content(sources)).records()}


def stored(root, threads, number, repeat=0):
    system = dataclasses.replace(records.CPU, torch_threads=threads)
    return records.fill(root, [records.record(Case("lenet5", repeat=repeat), system, number=number, system_key="k")])


def test_what_several_sources_hold_of_one_system_is_said_and_names_keep_it_apart(tmp_path):
    first, second = stored(tmp_path / "a", 2, 1), stored(tmp_path / "b", 2, 2)
    found = codes([first, second])
    assert found["in several sources"]["cases"] == 1
    assert found["in several sources"]["which"] == "LeNet-5"
    named = [f"OLD={first}", f"NEW={second}"]
    assert found["in several sources"]["sentence"].endswith(f"name them: {' '.join(named)}.")
    assert "in several sources" not in codes(named)
    assert "in several sources" not in codes([first])


def test_one_process_with_other_threads_is_another_system_and_no_repeat(tmp_path):
    first, second = stored(tmp_path / "a", 1, 1), stored(tmp_path / "b", 2, 2, repeat=1)
    assert list(read_content([first, second]).system_names.values()) == [
        "AMD EPYC 7B13 (2 cores, 1 thread)",
        "AMD EPYC 7B13 (2 cores, 2 threads)",
    ]
    assert "threads differ" not in codes([first, second])


def test_repeats_of_ranks_with_other_numbers_of_threads_are_named(tmp_path):
    def ranks(name, threads, number, repeat):
        system = dataclasses.replace(records.CPU, torch_threads=threads)
        case = Case("lenet5", devices_per_node=2, repeat=repeat)
        return records.fill(tmp_path / name, [records.record(case, system, number, system_key="k")])

    one = stored(tmp_path / "one", 2, 1)
    first, second = ranks("a", 1, 2, 0), ranks("b", 2, 3, 1)
    everything = tmp_path / "every"
    everything.mkdir()
    for folder in (one, first, second):
        (folder / "merged-fake.parquet").rename(everything / f"{folder.name}.parquet")
    found = codes([everything])
    assert "(1, 2)" in found["threads differ"]["sentence"]
    assert found["threads differ"]["cases"] == 2
