"""The heap as a protocol sets it up, in fresh processes: it stays as it was set for the life of one."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Takes and frees two tensors of 48 MB, and counts the page faults of each round. Smaller ones than 32 MB glibc may come
#: to keep by itself.
_PROGRAM = """
import resource, sys, torch
from dlbench.suites.case import Case, Protocol
from dlbench.worker.devices import find_device

find_device(Case("none", device="cpu", protocol=Protocol(heap=sys.argv[1])))

def round_():
    tensors = [torch.ones(12 * 2**20) for _ in range(2)]
    del tensors

for _ in range(20):
    round_()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    round_()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 50)
"""


def faults_per_round(heap: str) -> float:
    """Page faults of a round after twenty."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM, heap], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is the C library's of Linux")
def test_freed_memory_is_kept_unless_it_is_left_to_the_system() -> None:
    # Two blocks of 48 MB are 24,576 pages, or 48 where the kernel gives huge ones.
    kept, given_back = faults_per_round("keep"), faults_per_round("system")
    assert kept < 1
    assert given_back >= 8, "a C library that keeps freed memory by itself makes this protocol key needless"
