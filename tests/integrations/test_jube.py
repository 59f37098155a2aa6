"""The JUBE file, run by JUBE."""

import shutil
import subprocess

import pytest

from tests.integrations.conftest import ROOT

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.skipif(shutil.which("jube") is None, reason="JUBE is not installed, and only root may install it"),
]


def test_jube_runs_a_case_and_reads_its_throughput(tmp_path, suite, dlbench):
    text = (ROOT / "benchmarks" / "integrations" / "jube" / "dlbench.xml").read_text()
    text = text.replace('name="dlbench">dlbench<', f'name="dlbench">{dlbench}<').replace(">quick<", f">{suite}<")
    (tmp_path / "dlbench.xml").write_text(text)
    for words in (["run", "dlbench.xml"], ["analyse", "dlbench-jube"], ["result", "dlbench-jube"]):
        done = subprocess.run(["jube", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    status, model, throughput = done.stdout.strip().splitlines()[-1].split(",")[1:4]
    assert (status, model) == ("ok", "lenet5") or (status, model) == ("unstable", "lenet5")
    assert float(throughput) > 0
