"""One job per node on a real Slurm, and `dlbench fleet` over the four nodes."""

import re
import subprocess
import sys

import pytest

from dlbench.node_list import expand_nodes
from tests.cluster.conftest import ROOT, done
from tests.fakes.quick import make_python

pytestmark = pytest.mark.cluster

#: Measures one node at a time, for all four share this machine. On n3 the worker runs about 1 of 50 ms and is stopped for the
#: others, as cpulimit does it: other load on this machine, which slows all nodes, does not hide that.
WORKER = """
if [ "${{3-}}" = --ahead ]; then
  folder=$(cat)
  [ -n "$folder" ] || exit 0
  set -- -m dlbench.worker "$folder"
fi
if [ "${{3-}}" != --probe ]; then
  exec 9>{lock}
  flock 9
  if [ "${{SLURMD_NODENAME-}}" = n3 ]; then
    run_worker "$@" &
    worker=$!
    {python} -S {throttle} $worker "$3"
    wait $worker
    exit
  fi
fi
"""
THROTTLE = """
import os, signal, sys, time
worker, folder = int(sys.argv[1]), sys.argv[2]
def has_ended():
    return open(f"/proc/{worker}/stat").read().rpartition(")")[2].split()[0] == "Z"
def reached(phase):
    return f"phase: {phase}" in open(f"{folder}/stderr.txt").read()
try:
    while not reached("warmup") and not has_ended():
        time.sleep(0.05)
    while not reached("check") and not has_ended():
        os.kill(worker, signal.SIGSTOP)
        time.sleep(0.049)
        os.kill(worker, signal.SIGCONT)
        time.sleep(0.001)
except (ProcessLookupError, FileNotFoundError):
    pass
"""


def test_each_node_is_measured_by_itself_and_fleet_compares_the_four(cluster, results, site, tmp_path):
    throttle = tmp_path / "throttle.py"
    throttle.write_text(THROTTLE)
    lines = WORKER.format(lock=tmp_path / "lock", python=sys.executable, throttle=throttle)
    python = make_python(tmp_path / "python", lines)
    suite = tmp_path / "fleet.toml"
    suite.write_text(
        'name = "fleet"\n[axes]\nmodel = ["lenet5"]\nmode = ["inference"]\ndevice = ["cpu"]\nbatch_size = [128]\n'
        "[protocol]\nprocesses = 2\nmin_time_s = 0.5\nmax_time_s = 5\nwarmup_max_time_s = 2\nmin_steps = 5\n"
    )
    cluster.dlbench("submit", suite, "--site", site(python=python, minutes=30), "--results", results, "--each-node")
    folders = [results / "nodes" / f"n{number}" for number in range(1, 5)]
    cluster.wait(lambda: all(done(folder) for folder in folders), "a case on each node")
    for folder in folders:
        cluster.wait_for_end(folder)
    out = cluster.dlbench(
        "submit", suite, "--site", site(python=python, minutes=30), "--results", results, "--each-node"
    )
    assert out == ""
    found = subprocess.run(
        [sys.executable, "-m", "dlbench", "fleet", str(results), "--format", "json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 1, found.stdout + found.stderr
    assert '"units": 4' in found.stdout
    assert re.search(r'"node": "(n\d)"', found.stdout)[1] == "n3", found.stdout  # the slowest comes first
    assert "n3" in expand_nodes(cluster.dlbench("fleet", results, "--list", status=1))
