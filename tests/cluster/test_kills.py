"""Whatever is killed at whatever time on a real cluster: resumed, every case is there exactly once."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from dlbench.launch import attempts
from tests.cluster.conftest import HERE, PATIENCE_S, done, measured_once

pytestmark = pytest.mark.cluster

NUM_CASES = 8


def processes(cluster, results):
    """What can be killed of the campaign's jobs, each with its kind: supervisors, workers, sruns, steps, nodes."""
    found = []
    jobs = {line.split()[0] for line in cluster.queue(results)}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode().rstrip("\0").split("\0")
            variables = (entry / "environ").read_bytes().decode().split("\0") if words[0] else []
        except (OSError, UnicodeDecodeError):
            continue
        if words[0].startswith("slurmstepd: [") and words[0][13:].partition(".")[0] in jobs:
            found.append(("slurmstepd", int(entry.name)))
        elif words[0] == "srun" and any(f"SLURM_JOB_ID={job}" in variables for job in jobs):
            found.append(("srun", int(entry.name)))
        elif any(word.startswith(str(results)) for word in words):
            kind = "worker" if "tests.cluster.worker" in words else "supervisor" if "run" in words else None
            found += [(kind, int(entry.name))] if kind else []
    return sorted(found)


def kill(cluster, kind, pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    if kind == "slurmd":
        node = next(file.name for file in (cluster.folder / "pids").iterdir() if file.read_text().strip() == str(pid))
        subprocess.run([HERE / "cluster.sh", "node-up", cluster.folder, node], check=True)
    return True


def in_flight(results, seconds=60):
    """Whether a case is, or comes to be, in flight."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if next(attempts.find_open_attempts(results), None):
            return True
        time.sleep(0.3)
    return False


def rest(cluster, results, quiet_s=15):
    """Wait until no job is left, and cancel what only seems to run: Slurm may keep a job whose step was killed."""
    at_work = time.monotonic()
    until = at_work + PATIENCE_S
    while cluster.queue(results) and time.monotonic() < min(until, at_work + quiet_s):
        if any(kind in ("supervisor", "worker", "srun") for kind, _ in processes(cluster, results)):
            at_work = time.monotonic()
        time.sleep(0.5)
    cluster.dlbench("cancel", "--results", results)
    cluster.wait_for_end(results)


@pytest.mark.parametrize(("seed", "nodes"), [(1, 1), (2, 2)])
def test_whatever_is_killed_every_case_is_measured_exactly_once(cluster, results, site, suite, seed, nodes):
    chance = random.Random(seed)
    axes = ("-P", f"nodes={nodes}")
    profile = site(rest='[network]\nmaster_address = "127.0.0.1"')
    cluster.submit(suite(NUM_CASES, 0.7), profile, results, "--array", "2", *axes, "--no-report")
    killed = Counter()
    slurmds = [("slurmd", n) for n in ("n1", "n2", "n3", "n4")]
    for _ in range(6):
        if not in_flight(results):
            break  # what was killed before has stopped everything: on to the resuming
        time.sleep(chance.uniform(0.0, 1.5))
        kind, pid = chance.choice([*processes(cluster, results), chance.choice(slurmds)])
        if kind == "slurmd":
            pid = int((cluster.folder / "pids" / pid).read_text())
        killed[kind] += kill(cluster, kind, pid)
        if not cluster.queue(results) and len(done(results)) < NUM_CASES:
            cluster.dlbench("resume", "--results", results)
        if len(done(results)) == NUM_CASES:
            break
    for _ in range(5):
        rest(cluster, results)
        cluster.all_nodes_back()
        cluster.dlbench("collect", "--results", results)
        if len(done(results)) == NUM_CASES:
            break
        cluster.dlbench("resume", "--results", results)
    assert sum(killed.values()) >= 3, f"little was put to the test: {killed}"
    measured_once(results, NUM_CASES)
    assert list(attempts.find_open_attempts(results)) == []
