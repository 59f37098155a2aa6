"""The LaTeX tables compile with pdflatex, whatever the names in them."""

import re
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.browser


def test_the_tables_compile_and_hold_every_case(report, tmp_path):
    for name in ("report.tex", "tables.tex"):
        shutil.copy(report / name, tmp_path)
    for _ in range(2):  # a long table learns its widths in the first
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "report.tex"],
            cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]
    assert "Missing character" not in (tmp_path / "report.log").read_text(errors="replace")
    assert re.search(r"Output written on report\.pdf \(\d+ pages", done.stdout)
    assert "root:" not in done.stdout
