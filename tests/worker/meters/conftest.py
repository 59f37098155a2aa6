"""The compiled stand-in for NVIDIA's library, which the real pynvml loads."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "fakes" / "nvml_library" / "nvml.c"


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory):
    """The folder of the compiled stand-in, for LD_LIBRARY_PATH."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler on this machine")
    folder = tmp_path_factory.mktemp("nvml")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", folder / "libnvidia-ml.so.1", SOURCE, "-lm"]
    subprocess.run(command, check=True)
    return folder
