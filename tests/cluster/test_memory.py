"""Steps that the kernel ends for want of memory."""

import os
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import records

pytestmark = pytest.mark.cluster

LIMIT_MIB = 300


@pytest.fixture
def tight_site(cluster, site):
    """A profile whose jobs get little memory on each node: by Slurm's limit, or, where it keeps none, by one of ours."""
    if cluster.limits_memory:
        yield site(f'memory = "{LIMIT_MIB}M"\nexclusive = false', without=[])
        return
    v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    group = Path("/sys/fs/cgroup" if v2 else "/sys/fs/cgroup/memory") / f"dlbench-{os.getpid()}"
    if v2:
        Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+memory")
    group.mkdir()
    (group / ("memory.max" if v2 else "memory.limit_in_bytes")).write_text(str(LIMIT_MIB * 2**20))
    for node in ("n1", "n2", "n3", "n4"):  # each slurmd with all that it starts
        (group / "cgroup.procs").write_text((cluster.folder / "pids" / node).read_text().strip())
    yield site()
    for pid in (group / "cgroup.procs").read_text().split():
        Path(group.parent / "cgroup.procs").write_text(pid)
    time.sleep(0.5)
    group.rmdir()


@pytest.mark.parametrize("nodes", [1, 2])
def test_what_the_kernel_ends_for_want_of_memory_is_an_oom_with_its_last_words_and_the_campaign_goes_on(
    cluster, results, tight_site, suite, nodes
):
    # With one rank the supervisor is in the step too; of two, the second's end is seen by Slurm alone on a real cluster.
    axes = ("-P", f"nodes={nodes}")
    cluster.submit(suite(1, 0.5, ("vgg19", "lenet5")), tight_site, results, *axes, "--no-report")
    cluster.wait_for_end(results)
    found = {record.case["model"]: record for record in records(results)}
    statuses = {model: record.status for model, record in found.items()}
    assert statuses == {"vgg19": "oom", "lenet5": "ok"}, cluster.output(results)
    assert "out-of-memory killer; last line of stderr: taking memory" in found["vgg19"].error
    (count,) = cluster.status(results)["counts"]
    assert (count["total"], count["done"], count["out_of_memory"]) == (2, 1, 1)
