"""The Ramble application, run by Ramble."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.integrations.conftest import ROOT

RAMBLE = Path(os.environ.get("DLBENCH_TEST_RAMBLE", "/nowhere"), "bin", "ramble")
pytestmark = [
    pytest.mark.integrations,
    pytest.mark.skipif(not RAMBLE.is_file(), reason="Ramble could not be fetched from GitHub"),
]
FOLDER = ROOT / "benchmarks" / "integrations" / "ramble"


def test_ramble_runs_a_case_and_reads_its_throughput(tmp_path, tools, suite, dlbench):
    text = (FOLDER / "ramble.yaml").read_text()
    text = text.replace("dlbench: dlbench", f"dlbench: {dlbench}").replace("suite: quick", f"suite: {suite}")
    (tmp_path / "ramble.yaml").write_text(text.replace("'{suite}'", "tiny"))
    environment = os.environ | {"HOME": str(tmp_path), "RAMBLE_PYTHON": str(tools / "python")}
    for words in (
        ["repo", "add", FOLDER],
        ["workspace", "create", "-d", "work", "-c", "ramble.yaml"],
        ["-D", "work", "workspace", "setup"],
        ["-D", "work", "on"],
        ["-D", "work", "workspace", "analyze"],
    ):
        done = subprocess.run(
            [RAMBLE, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "work" / "results.latest.txt").read_text()
    assert "Status = SUCCESS" in text, text
    assert "Model = lenet5" in text, text
    (line,) = [line for line in text.splitlines() if line.strip().startswith("Throughput = ")]
    assert float(line.split()[2]) > 0
