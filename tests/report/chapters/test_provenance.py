"""Where numbers come from: which attempts are listed, what names their file, and commands that measure them again."""

import dataclasses
import itertools
import json
import shlex

import pytest

from dlbench.report.analysis import content
from dlbench.report.chapters import provenance, tables
from dlbench.suites.case import Case
from dlbench.suites.suite import load_suite
from tests.fakes import records as fakes


def listed(found, key="attempt_id"):
    blocks = provenance.provenance_section(found).blocks
    table = next(b.table for b in blocks if b.heading == "All attempts, with the commands to repeat them")
    return [row[key] for row in table.records()]


def test_of_many_attempts_the_shown_are_listed_before_the_newest(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "MAX_CASES", 2)
    monkeypatch.setattr(provenance, "MAX_CASES", 5)
    shown = [fakes.record(Case("vgg16", device="cuda", batch_size=2**i), number=i) for i in range(2)]
    failed = [
        fakes.record(Case("vgg16", device="cuda", batch_size=4096 + i), number=9 + i, status="oom") for i in range(9)
    ]
    found = content.read_content([fakes.fill(tmp_path / "store", [*shown, *failed])])
    newest = [record.attempt_id for record in failed[-3:]]
    assert listed(found) == [*(record.attempt_id for record in shown), *newest]


@pytest.mark.parametrize("suite", ["quick", "classic", "scaling_weak", "scaling_strong", "smoke"])
def test_the_command_of_a_record_measures_its_case_alone(suite):
    for case in load_suite(suite).cases(device="cpu")[::7]:
        changed = dataclasses.replace(case, protocol=dataclasses.replace(case.protocol, seed=3))
        row = {f.name: getattr(changed, f.name) for f in dataclasses.fields(Case)}
        row |= {"suite": suite, "protocol": json.dumps(dataclasses.asdict(changed.protocol))}
        words = shlex.split(tables.rerun_command(row))
        assert words[:3] == ["dlbench", "run", suite]
        overrides = [value for option, value in itertools.pairwise(words) if option == "-P"]
        assert load_suite(suite, overrides).cases() == [changed]


def test_a_case_on_several_nodes_is_repeated_under_srun(tmp_path):
    for nodes in (1, 2):
        case = Case("vgg16", device="cuda", nodes=nodes, devices_per_node=2)
        row = {f.name: getattr(case, f.name) for f in dataclasses.fields(Case)} | {"suite": "quick", "protocol": "{}"}
        assert ("--launcher srun" in tables.rerun_command(row)) == (nodes > 1)


def test_several_stores_are_told_apart_by_the_files_of_their_attempts(tmp_path):
    for name, case in (("a", Case("vgg16", device="cuda")), ("b", Case("lenet5", device="cuda"))):
        record = fakes.record(case)
        fakes.fill(tmp_path / name, [record])
        (tmp_path / name / "attempts" / record.attempt_id).mkdir(parents=True)
    for sources in ([tmp_path / "a", tmp_path / "b"], [f"{tmp_path}/*"]):
        found = content.read_content(sources)
        assert listed(found, "file") == [f"{tmp_path}/{name}/merged-fake.parquet" for name in "ab"]
        for name, folder, command in zip("ab", listed(found, "folder"), listed(found, "command"), strict=True):
            assert folder.startswith(f"{tmp_path}/{name}/attempts/")
            assert command.endswith(f"--results {tmp_path}/{name}")


def test_software_that_differs_within_a_system_is_told(tmp_path):
    newer = dataclasses.replace(fakes.GPU, cudnn_version="9.13.1", container_image=None)
    key = fakes.record(Case("vgg16", device="cuda")).system_key
    one = fakes.record(Case("vgg16", device="cuda"))
    other = fakes.record(Case("lenet5", device="cuda"), newer, 1, system_key=key)

    def words(store, *records):
        found = content.read_content([fakes.fill(tmp_path / store, list(records))])
        assert list(found.system_names.values()) == ["NVIDIA H200"]
        return " ".join(block.words for block in provenance.provenance_section(found).blocks)

    assert "NVIDIA H200: cuDNN (9.12.0, 9.13.1), Container image (dlbench-2.15.sif, none)." in words("a", one, other)
    assert "These properties differ between records of one system" not in words("b", one)
