"""What a site does to campaigns: its controller stops, a node lacks a mount, it refuses a job, its MPI is broken."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.conftest import HERE, done, measured_once, records

pytestmark = pytest.mark.cluster

#: How long the controller is stopped [s].
STOPPED_S = 40
NETWORK = '[network]\nmaster_address = "127.0.0.1"'


@pytest.fixture
def controller(cluster):
    """The controller's process; it goes on afterwards, whatever happens."""
    pid = int((cluster.folder / "pids" / "slurmctld").read_text())
    yield pid
    os.kill(pid, signal.SIGCONT)


@pytest.fixture
def slow_doctor(tmp_path, quick_python):
    """A Python that needs some seconds to look at its node, in which a controller can be stopped."""
    python = tmp_path / "slow" / "python"
    python.parent.mkdir()
    python.write_text(
        f'#!/bin/bash\n[[ "$*" != *doctor* ]] || {{ touch {tmp_path}/looking; sleep 6; }}\nexec {quick_python} "$@"\n'
    )
    python.chmod(0o755)
    return python


def test_a_controller_that_stops_in_mid_case_costs_no_case_and_no_job(
    cluster, results, site, suite, controller, slow_doctor, tmp_path
):
    # Cases of two nodes, each a step, beside a job of one node whose whole campaign is a step that is yet to start.
    file, alone = suite(4, 3.0), tmp_path / "alone"
    cluster.submit(file, site(rest=NETWORK), results, "-P", "nodes=2", "--no-report")
    cluster.wait_for_running_case(results, after=1)
    (job,) = cluster.submit(file, site(python=slow_doctor), alone, "--no-report")
    cluster.wait((tmp_path / "looking").exists, "the look at the node")
    os.kill(controller, signal.SIGSTOP)
    stopped = time.monotonic()
    status = cluster.status(results)
    assert status["counts"][0]["total"] == 4
    assert "answer" in status["slurm_error"] or "timed out" in status["slurm_error"]
    assert {state["state"] for _, state in status["jobs"]} == {"UNKNOWN"}
    time.sleep(max(0.0, STOPPED_S - (time.monotonic() - stopped)))
    os.kill(controller, signal.SIGCONT)
    for folder in (results, alone):
        cluster.wait_for_end(folder)
        measured_once(folder, 4)
        assert {record.status for record in records(folder)} <= {"ok", "preempted"}
    failed = [record.error for record in records(results) if record.status == "preempted"]
    assert failed, "no step was to be started while the controller was stopped"
    assert all(error.startswith("Slurm failed its step: ") for error in failed), failed
    assert "preempted  Slurm failed its step: " in cluster.output(results)
    assert f"Slurm did not start a step of job {job}; waiting for its controller" in cluster.output(alone)


@pytest.fixture
def hidden(cluster, tmp_path):
    """A folder that node n2 does not see the others' content of; gives it, and a way to run something as n2 sees it."""
    folder = tmp_path / "shared"
    folder.mkdir()
    pid_file = cluster.folder / "pids" / "n2"

    def start(*what):
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        subprocess.run([HERE / "cluster.sh", "node-up", cluster.folder, "n2", *what], check=True)
        cluster.wait(lambda: b"slurmd" in _command_line(int(pid_file.read_text())), "slurmd", 20)
        cluster.all_nodes_back()

    def as_seen_by_n2(*argv):
        subprocess.run(["nsenter", f"--target={int(pid_file.read_text())}", "--mount", *argv], check=True)

    start(folder)
    yield folder, as_seen_by_n2
    start()


def _command_line(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]


def test_a_results_folder_that_one_node_lacks_or_has_another_of_ends_the_job_before_its_first_case(
    cluster, site, suite, hidden
):
    folder, as_seen_by_n2 = hidden
    results = folder / "results"
    profile = site('directives = ["--nodelist=n1,n2"]', rest=NETWORK)
    for number, said in enumerate(
        (f"n2: results folder {results} does not exist", f"n2: {results} is not the same folder")
    ):
        cluster.submit(suite(1 + number, 0.2), profile, results, "-P", "nodes=2", "--no-report")
        cluster.wait_for_end(results)
        assert said in cluster.output(results)
        assert records(results) == []
        assert not (results / "attempts").exists()
        assert list((results / "jobs").glob(".node-check-*")) == []
        as_seen_by_n2("mkdir", "-p", results / "jobs")


def test_a_report_job_that_slurm_refuses_leaves_the_campaign_and_comes_with_resume(cluster, results, site, suite):
    profile = site(rest='[report]\npartition = "closed"')
    out = cluster.dlbench("submit", suite(3, 2.0), "--site", profile, "--results", results, status=1)
    assert [line.split()[1] for line in out.splitlines()] == ["campaign"]
    cluster.wait_for_running_case(results)
    try:
        cluster.slurm("scontrol", "update", "partitionname=closed", "state=up")
        # While the campaign is at work: the report comes after it.
        again = cluster.dlbench("resume", "--results", results).split()
        assert again[1] == "report"
        assert out.split()[0] in cluster.slurm("squeue", "--noheader", f"--jobs={again[0]}", "--format=%E")
        cluster.wait_for_end(results)
    finally:
        cluster.slurm("scontrol", "update", "partitionname=closed", "state=inactive")
    measured_once(results, 3)
    assert len(done(results)) == 3
    assert (results / "report" / "index.html").stat().st_size > 10_000
    cluster.dlbench("resume", "--results", results, status=2)


def test_the_doctor_tries_the_mpi_plugins_that_slurm_lists(cluster, site):
    listed = subprocess.run(["srun", "--mpi=list"], env=cluster.environment, capture_output=True, text=True, check=True)
    names = [name for name in ("none", "pmi2", "pmix") if name in (listed.stdout + listed.stderr).split()]
    assert "pmi2" in names
    for name in names:
        tried = subprocess.run(
            ["srun", f"--mpi={name}", "-n1", "true"], env=cluster.environment, capture_output=True, check=False
        )
        doctor = subprocess.run(
            ["python3", "-m", "dlbench", "doctor", "--json", "--site", site(f'mpi = "{name}"')],
            env=cluster.environment, cwd=HERE.parents[1], capture_output=True, text=True, check=False,
        )  # fmt: skip
        found = [one["level"] for one in json.loads(doctor.stdout)["findings"] if one["check"] == "mpi"]
        assert ("fail" in found) == (tried.returncode != 0), (name, doctor.stdout)
