"""Tests in which other tools run dlbench; `make test-integrations` installs the tools."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

if not os.environ.get("DLBENCH_TEST_INTEGRATIONS"):
    collect_ignore_glob = ["test_*.py"]

SUITE = """
name = "tiny"
[axes]
model = ["lenet5"]
mode = ["inference"]
device = ["cpu"]
batch_size = [16]
[protocol]
processes = 1
min_time_s = 0.5
max_time_s = 3
warmup_max_time_s = 1
min_steps = 5
"""


@pytest.fixture
def tools():
    """The folder of the tools' programs."""
    return Path(os.environ["DLBENCH_TEST_INTEGRATIONS"])


@pytest.fixture
def suite(tmp_path):
    file = tmp_path / "tiny.toml"
    file.write_text(SUITE)
    return file


@pytest.fixture
def dlbench(tmp_path):
    """dlbench as a program, whatever is installed."""
    program = tmp_path / "dlbench"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m dlbench "$@"\n')
    program.chmod(0o755)
    return program
