"""`dlbench publish`: nothing private, everything checked, usable as a source."""

import dataclasses
import hashlib

import pyarrow.parquet as pq
import pytest

from dlbench.__main__ import main
from dlbench.suites.case import Case, Protocol
from tests.fakes import records as fakes

SECRET = "secret-host-17"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("publish")
    system = dataclasses.replace(fakes.GPU, hostname=SECRET, slurm_job_id="987654")
    cases = [Case(model, device="cuda", protocol=Protocol(min_time_s=1.0)) for model in ("vgg16", "resnet50")]
    records = [
        fakes.record(case, system, number, warnings=(f"busy_host: /home/jane/run on {SECRET}",))
        for number, case in enumerate(cases)
    ]
    fakes.fill(root / "results", records)
    assert main(["publish", str(root / "results"), "-o", str(root / "out")]) == 0
    return root / "out"


def test_no_private_name_is_left_in_any_file(published):
    for file in published.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert SECRET.encode() not in content, file
            assert b"jane" not in content, file
    text = str(pq.read_table(published / "records.parquet").to_pylist())
    assert SECRET not in text
    assert "987654" not in text


def test_the_folder_holds_report_verification_and_sums(published):
    assert (published / "report" / "index.html").is_file()
    assert "nothing found" in (published / "verification.md").read_text()
    sums = dict(reversed(line.split("  ")) for line in (published / "SHA256SUMS").read_text().splitlines())
    assert hashlib.sha256((published / "records.parquet").read_bytes()).hexdigest() == sums["records.parquet"]


def test_a_published_folder_is_a_source(published, tmp_path, capsys):
    assert main(["verify", str(published)]) == 0
    assert main(["export", str(published), "--format", "jube"]) == 0
    assert "model=vgg16" in capsys.readouterr().out


def test_a_folder_that_holds_something_is_left_alone(published, capsys):
    assert main(["publish", str(published), "-o", str(published)]) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_nothing_is_published_of_nothing(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["publish", str(tmp_path / "empty"), "-o", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
