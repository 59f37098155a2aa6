"""One job per node on a real Slurm, and a slow node that `dlbench fleet` names."""

import json
import subprocess
import sys

import pytest

from tests.cluster.conftest import ROOT, done

pytestmark = pytest.mark.cluster

#: Measures one node at a time, for all four share this machine; on n3 the worker gives way to other work.
PYTHON = """#!/bin/bash
if [ "${{1-}}" = -m ] && [ "${{2-}}" = dlbench.worker ] && [ "${{3-}}" != --probe ]; then
  exec 9>{lock}
  flock 9
  if [ "${{SLURMD_NODENAME-}}" = n3 ]; then
    load=()
    for _ in $(seq $(nproc)); do (exec 9>&-; exec timeout 300 {python} -c 'while True: pass') & load+=($!); done
    status=0
    nice -n 12 {python} "$@" || status=$?
    kill "${{load[@]}}"
    exit $status
  fi
fi
exec {python} "$@"
"""


def test_a_slow_node_is_named_by_fleet(cluster, results, site, tmp_path):
    python = tmp_path / "python"
    python.write_text(PYTHON.format(lock=tmp_path / "lock", python=sys.executable))
    python.chmod(0o755)
    suite = tmp_path / "fleet.toml"
    suite.write_text(
        'name = "fleet"\n[axes]\nmodel = ["lenet5"]\nmode = ["inference"]\ndevice = ["cpu"]\nbatch_size = [64]\n'
        "[protocol]\nprocesses = 1\nmin_time_s = 2\nmax_time_s = 30\nwarmup_max_time_s = 5\nmin_steps = 20\n"
    )
    cluster.dlbench("submit", suite, "--site", site(python=python), "--results", results, "--each-node")
    folders = [results / "nodes" / f"n{number}" for number in range(1, 5)]
    cluster.wait(lambda: all(done(folder) for folder in folders), "a case on each node")
    for folder in folders:
        cluster.wait_for_end(folder)
    out = cluster.dlbench("submit", suite, "--site", site(python=python), "--results", results, "--each-node")
    assert out == ""
    found = subprocess.run(
        [sys.executable, "-m", "dlbench", "fleet", str(results), "--format", "json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 1, found.stdout + found.stderr
    outliers, _ = json.JSONDecoder().raw_decode(found.stdout)
    rows = outliers if isinstance(outliers, list) else outliers["rows"]
    assert [row["node"] for row in rows] == ["n3"]
    assert found.stderr.strip().endswith("1 outlier on 1 node: n3")
