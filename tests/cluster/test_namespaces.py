"""Processes of one machine in PID namespaces of their own, as containers have them."""

import os
import subprocess
import sys
import time

import pytest

from dlbench.launch import claims
from tests.cluster.conftest import ROOT

pytestmark = pytest.mark.cluster

HOLD = """
import sys, time
from pathlib import Path
from dlbench.launch import claims
claim = claims.take_claim(Path(sys.argv[1]), "case")
print(claim is not None, flush=True)
time.sleep(120)
"""


@pytest.fixture
def contender(tmp_path):
    """Starts a process that is number 1 of a namespace of its own and claims the case; gives what came of it."""
    started = []

    def start():
        argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", HOLD, str(tmp_path)]
        process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, process.stdout.readline().strip() == "True"

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_claim_held_in_another_namespace_is_respected_until_its_owner_has_been_silent_for_long(
    tmp_path, contender, monkeypatch
):
    first, got_it = contender()
    assert got_it
    assert not contender()[1]  # both are process 1 on a host of one name
    assert claims.take_claim(tmp_path, "case") is None  # and out here process 1 is another one
    first.kill()
    first.wait()
    assert claims.take_claim(tmp_path, "case") is None
    long_ago = time.time() - claims.DEAD_AFTER_S - 1
    os.utime(tmp_path / "claims" / "case.json", (long_ago, long_ago))
    assert claims.take_claim(tmp_path, "case") is None  # whatever the file's time: it has changed a moment ago
    monkeypatch.setattr(claims, "DEAD_AFTER_S", 0.5)
    time.sleep(0.6)
    assert claims.take_claim(tmp_path, "case") is not None
