"""A report takes the place of an earlier one as a whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import signal

import pandas as pd
import pytest

from dlbench.errors import StoreError
from dlbench.report import build
from dlbench.report.analysis.content import read_content
from dlbench.report.chapters.summary import summary_section
from dlbench.report.document import Report
from tests.fakes import records as fakes


@pytest.fixture
def report(tmp_path, monkeypatch):
    """The files of an earlier report of one record, beside one that somebody put there, and content of more records."""
    monkeypatch.setattr(build, "select_chapters", lambda content: (summary_section,))
    monkeypatch.setattr(
        build, "FORMS", {name: build.FORMS[name] for name in ("index.html", "metrics.csv", "report.md")}
    )
    out = tmp_path / "report"
    build.write_report(read_content([fakes.fill(tmp_path / "one", fakes.quick()[:1])]), out)
    (out / "mine.txt").write_text("of somebody else")
    return out, files(out), read_content([fakes.fill(tmp_path / "more", fakes.quick())])


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_disk_that_is_full_leaves_the_earlier_report(report, monkeypatch):
    out, before, content = report

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(build.FORMS, "report.md", full)
    with pytest.raises(StoreError, match=r"cannot write the report to .*No space left on device"):
        build.write_report(content, out)
    assert files(out) == before


def test_a_kill_leaves_the_earlier_report_and_the_next_one_sweeps(report, monkeypatch):
    out, before, content = report
    if os.fork() == 0:
        monkeypatch.setattr(build, "_replace_files", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        build.write_report(content, out)
    assert os.WTERMSIG(os.wait()[1]) == signal.SIGKILL
    left = files(out)
    assert {name: text for name, text in left.items() if not name.startswith(".")} == before
    assert len(left) > len(before)
    build.write_report(content, out)
    after = files(out)
    assert after.keys() == before.keys()
    assert after["mine.txt"] == before["mine.txt"]
    assert all(after[name] != before[name] for name in build.FORMS)


def test_a_kill_while_files_take_their_places_leaves_no_page_among_files_of_two_reports(report, monkeypatch):
    out, before, content = report
    replaced = []

    def replace_one(path, target):
        if replaced:
            os.kill(os.getpid(), signal.SIGKILL)
        replaced.append(os.replace(path, target))  # noqa: PTH105

    if os.fork() == 0:
        monkeypatch.setattr(build.Path, "replace", replace_one)
        build._replace_files(content_made(out, before), out)
    assert os.WTERMSIG(os.wait()[1]) == signal.SIGKILL
    left = files(out)
    assert "index.html" not in left
    assert any(left[name] != before[name] for name in ("metrics.csv", "report.md"))
    assert build.write_report(content, out).is_file()


def content_made(out, before):
    """A folder with new files for each of an earlier report."""
    making = out.parent / "making"
    making.mkdir()
    for name in before.keys() - {"mine.txt"}:
        (making / name).write_text("new")
    return making


def test_the_comparison_says_how_many_cases_it_leaves_out(report, tmp_path):
    _, _, content = report
    for left_out in (0, 7):
        made = Report(dataclasses.replace(content, left_out=left_out), (), {}, "", "", tmp_path)
        build._write_comparison(made, tmp_path / "comparison.csv")
        table = pd.read_csv(tmp_path / "comparison.csv")
        assert ("cases_left_out" in table) == bool(left_out)
        assert not left_out or set(table["cases_left_out"]) == {7}


def test_a_form_that_is_not_written_any_more_goes_with_the_earlier_report(report, monkeypatch):
    out, _, content = report

    def missing(*_):
        raise ImportError("no such library")

    monkeypatch.setitem(build.FORMS, "report.md", missing)
    with pytest.warns(build.MissingReportFile):
        build.write_report(content, out)
    assert set(files(out)) == {"index.html", "metrics.csv", "mine.txt"}
