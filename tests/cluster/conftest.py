"""A real Slurm for the tests of this folder. They are collected only by `make test-cluster`, which installs it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlbench.launch import attempts, claims
from dlbench.results.records import DONE_STATUSES
from tests.fakes.quick import make_python

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent

#: Where the daemons of the tests keep everything; `scripts/test-cluster.sh` takes down what is left there.
DAEMONS = Path(os.environ.get("DLBENCH_TEST_CLUSTER", "/nowhere"))
#: How long to wait for what must come: other things may be running on the machine.
PATIENCE_S = 400

if not os.environ.get("DLBENCH_TEST_CLUSTER"):
    collect_ignore_glob = ["test_*.py"]
elif not os.environ.get("DLBENCH_TEST_SID"):
    collect_ignore_glob = ["test_sid.py"]


class Cluster:
    """The four nodes n1 to n4, and dlbench's commands as a user of theirs would type them."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self.limits_memory = "ConstrainRAMSpace=yes" in (folder / "cgroup.conf").read_text()

    def dlbench(self, *arguments, status=0):
        done = subprocess.run(
            [sys.executable, "-m", "dlbench", *map(str, arguments)],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def slurm(self, *argv):
        return subprocess.run(argv, env=self.environment, capture_output=True, text=True, check=True).stdout

    def submit(self, suite, site, results, *more):
        """Ids of the submitted jobs."""
        out = self.dlbench("submit", suite, "--site", site, "--results", results, *more)
        return [line.split()[0] for line in out.splitlines()]

    def status(self, results):
        (one,) = json.loads(self.dlbench("status", "--results", results, "--json"))
        return one

    def wait(self, condition, what, seconds=PATIENCE_S):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if value := condition():
                return value
            time.sleep(0.3)
        raise AssertionError(f"waited {seconds} s in vain for {what}\n{self.slurm('squeue')}")

    def wait_for_end(self, results, seconds=PATIENCE_S):
        """Until no job of the results folder is queued or running."""
        self.wait(lambda: not self.queue(results), "the end of all jobs", seconds)

    def all_nodes_back(self):
        """Nodes that a test has set down serve again; slurmd itself may have been quicker."""
        for node in self.slurm(
            "sinfo", "--noheader", "--Node", "--partition=debug", "--states=down,drain", "--format=%N"
        ).split():
            self.slurm("scontrol", "update", f"nodename={node}", "state=resume")
        self.wait(
            lambda: (
                len(self.slurm("sinfo", "--noheader", "--Node", "--partition=debug", "--states=idle").split("\n")) == 5
            ),
            "nodes",
        )

    def queue(self, results):
        ids = {file.stem for file in (results / "jobs").glob("*.json")}
        lines = self.slurm("squeue", "--noheader", "--format=%F %T").splitlines()
        return [line for line in lines if line.split()[0] in ids]

    def wait_for_running_case(self, results, after=0):
        """The folder of a case that is being measured, once `after` others are done."""

        def look():
            if len(done(results)) < after:
                return None
            return next((attempt.folder for attempt, _ in attempts.find_open_attempts(results)), None)

        return self.wait(look, "a case in flight")

    def output(self, results):
        return "\n".join(file.read_text() for file in sorted((results / "jobs").glob("*.out")))


def records(results):
    return [record for _, record in attempts.find_closed_attempts(results)]


def done(results):
    return [record.case_id for record in records(results) if record.status in DONE_STATUSES]


def measured_once(results, number):
    """All cases are done, each exactly once, and nothing is left open or claimed."""
    assert sorted(done(results)) == sorted(set(done(results)))
    assert len(done(results)) == number
    assert [a.id for a, owner in attempts.find_open_attempts(results) if claims.is_owner_alive(owner, a.folder)] == []


@pytest.fixture(scope="session")
def cluster():
    folder = DAEMONS / "slurm"
    try:
        subprocess.run([HERE / "cluster.sh", "up", folder], check=True)
        yield Cluster(folder)
    finally:
        subprocess.run([HERE / "cluster.sh", "down", folder], check=True)


@pytest.fixture
def results(cluster, tmp_path):
    """A results folder; whatever still runs for it at the end is cancelled."""
    folder = tmp_path / "results"
    yield folder
    for file in (folder / "jobs").glob("*.json"):
        subprocess.run(["scancel", file.stem], env=cluster.environment, capture_output=True, check=False)
    if sys.exc_info()[0]:
        print(cluster.output(folder))


@pytest.fixture(scope="session")
def quick_python(tmp_path_factory):
    """A Python whose workers are stand-ins."""
    return make_python(tmp_path_factory.mktemp("python"))


@pytest.fixture
def site(tmp_path, quick_python):
    """Writes a profile for the cluster: one core, the stand-in worker, and what the test adds."""

    def write(slurm="", rest="", python=quick_python, without=("--mem",), minutes=5):
        file = tmp_path / "site.toml"
        file.write_text(
            f'[slurm]\npartition = "debug"\ncpus_per_task = 1\nwithout = {list(without)}\ntime_limit = "{minutes}"\n'
            f"warn_before_s = 10\n{slurm}\n[software]\npython = ['{python}']\n{rest}\n"
        )
        return file

    return write


@pytest.fixture
def suite(tmp_path):
    """Writes a suite of so many cases, each so many seconds long."""

    def write(cases, seconds=1.0, models=("lenet5",)):
        file = tmp_path / "suite.toml"
        names = ", ".join(f'"{model}"' for model in models)
        file.write_text(
            f'name = "suite"\n[axes]\nmodel = [{names}]\ndevice = ["cpu"]\nbatch_size = {list(range(1, cases + 1))}\n'
            f"[protocol]\nprocesses = 1\nmin_time_s = {seconds}\nmax_time_s = 600\n"
        )
        return file

    return write
