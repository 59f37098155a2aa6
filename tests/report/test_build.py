"""A report takes the place of an earlier one as a whole or not at all."""

from __future__ import annotations

import os
import signal

import pytest

from dlbench.errors import StoreError
from dlbench.report import build
from dlbench.report.analysis.content import read
from dlbench.report.chapters.summary import summary
from tests.fakes import records as fakes


@pytest.fixture
def report(tmp_path, monkeypatch):
    """The files of an earlier report of one record, beside one that somebody put there, and content of more records."""
    monkeypatch.setattr(build, "SECTIONS", (summary,))
    monkeypatch.setattr(
        build, "FORMS", {name: build.FORMS[name] for name in ("index.html", "metrics.csv", "report.md")}
    )
    out = tmp_path / "report"
    build.write(read([fakes.fill(tmp_path / "one", fakes.quick()[:1])]), out)
    (out / "mine.txt").write_text("of somebody else")
    return out, files(out), read([fakes.fill(tmp_path / "more", fakes.quick())])


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_disk_that_is_full_leaves_the_earlier_report(report, monkeypatch):
    out, before, content = report

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(build.FORMS, "report.md", full)
    with pytest.raises(StoreError, match=r"cannot write the report to .*No space left on device"):
        build.write(content, out)
    assert files(out) == before


def test_a_kill_leaves_the_earlier_report_and_the_next_one_sweeps(report, monkeypatch):
    out, before, content = report
    if os.fork() == 0:
        monkeypatch.setattr(build, "_take_places", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        build.write(content, out)
    assert os.WTERMSIG(os.wait()[1]) == signal.SIGKILL
    left = files(out)
    assert {name: text for name, text in left.items() if not name.startswith(".")} == before
    assert len(left) > len(before)
    build.write(content, out)
    after = files(out)
    assert after.keys() == before.keys()
    assert after["mine.txt"] == before["mine.txt"]
    assert all(after[name] != before[name] for name in build.FORMS)


def test_a_form_that_is_not_written_any_more_goes_with_the_earlier_report(report, monkeypatch):
    out, _, content = report

    def missing(*_):
        raise ImportError("no such library")

    monkeypatch.setitem(build.FORMS, "report.md", missing)
    with pytest.warns(build.MissingForm):
        build.write(content, out)
    assert set(files(out)) == {"index.html", "metrics.csv", "mine.txt"}
