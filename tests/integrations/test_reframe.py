"""The ReFrame check, run by ReFrame."""

import subprocess

import pytest

from tests.integrations.conftest import ROOT

pytestmark = pytest.mark.integrations
CHECK = ROOT / "benchmarks" / "integrations" / "reframe" / "dlbench_check.py"
LINE = '[[line]]\ncase = {{model = "lenet5", mode = "inference", suite = "tiny", compile = "off"}}\nmetric = "throughput"\nat_least = {}\ntolerance = 0.02\n'


def reframe(tools, tmp_path, suite, dlbench, at_least):
    acceptance = tmp_path / "acceptance.toml"
    acceptance.write_text(LINE.format(at_least))
    given = {"dlbench": dlbench, "suite": suite, "acceptance": acceptance}
    settings = [word for key, value in given.items() for word in ("-S", f"dlbench_check.{key}={value}")]
    return subprocess.run(
        [tools / "reframe", "-c", CHECK, "-r", "--performance-report", "--prefix", tmp_path / "reframe", *settings],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_case_that_keeps_its_reference_passes(tools, tmp_path, suite, dlbench):
    done = reframe(tools, tmp_path, suite, dlbench, at_least=1)
    assert done.returncode == 0, done.stdout
    assert "line_1_throughput_img_per_s" in done.stdout
    assert "PASSED" in done.stdout


def test_a_case_that_misses_its_reference_fails(tools, tmp_path, suite, dlbench):
    done = reframe(tools, tmp_path, suite, dlbench, at_least=10**12)
    assert done.returncode == 1, done.stdout
    assert "line_1_throughput_img_per_s" in done.stdout
