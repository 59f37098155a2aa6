"""The scripts of a dry run, started with bash inside of an allocation, as a person would."""

import pytest

from tests.cluster.conftest import measured_once
from tests.cluster.test_slurm import environments

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_script_runs_by_hand_inside_an_allocation(cluster, results, site, suite, nodes):
    file = suite(2, 0.2)
    profile = site(rest='[network]\nmaster_address = "127.0.0.1"')
    axes = ("-P", f"nodes={nodes}")
    cluster.dlbench(
        "submit", file, "--site", profile, "--results", results, *axes, "--no-report", "--dry-run", "--write"
    )
    (script,) = (results / "jobs").glob("*/job.sh")
    cluster.slurm("salloc", f"--nodes={nodes}", "--ntasks-per-node=1", "--cpus-per-task=1", "bash", script)
    measured_once(results, 2)
    assert len(environments(results)) == 2 * nodes
