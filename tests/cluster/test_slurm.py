"""Campaigns through a real sbatch on four nodes."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.conftest import done, measured_once, records

pytestmark = pytest.mark.cluster


def outcomes(results):
    files = sorted((results / "attempts").glob("*/result.json"))
    return [json.loads(file.read_text()) for file in files]


def environments(results):
    found = [rank["system"]["details"]["environment"] for outcome in outcomes(results) for rank in outcome["ranks"]]
    return [environment for environment in found if environment]


def test_the_whole_path_from_submit_to_report_with_the_real_worker(cluster, results, site):
    profile = site(python=sys.executable)
    jobs = cluster.submit("smoke", profile, results, "-P", "model=lenet5", "--array", "2%1")
    assert len(jobs) == 2
    cluster.wait_for_end(results)
    (count,) = cluster.status(results)["counts"]
    assert (count["total"], count["done"]) == (2, 2), cluster.output(results)
    cluster.dlbench("collect", "--results", results)
    assert (results / "report" / "index.html").stat().st_size > 10_000
    assert len(list(results.glob("*.parquet"))) == 2


def test_an_array_shares_the_cases_over_the_nodes_and_each_is_measured_once(cluster, results, site, suite):
    cluster.submit(suite(12, 1.0), site(), results, "--array", "4", "--no-report")
    cluster.wait_for_end(results)
    measured_once(results, 12)
    nodes = {environment["SLURMD_NODENAME"] for environment in environments(results)}
    assert nodes == {"n1", "n2", "n3", "n4"}
    assert {state["state"] for _, state in cluster.status(results)["jobs"]} == {"COMPLETED"}


def test_a_throttle_holds_tasks_back(cluster, results, site, suite):
    (job,) = cluster.submit(suite(4, 3.0), site(), results, "--array", "4%1", "--no-report")
    cluster.wait_for_running_case(results)
    lines = cluster.slurm("squeue", "--noheader", "--jobs", job, "--format=%T %r").splitlines()
    assert sum(line.startswith("RUNNING") for line in lines) == 1
    assert any("JobArrayTaskLimit" in line for line in lines)


def test_two_jobs_that_race_measure_nothing_twice(cluster, results, site, suite):
    file, profile = suite(8, 0.7), site()
    cluster.submit(file, profile, results, "--no-report")
    cluster.submit(file, profile, results, "--no-report")
    cluster.wait_for_end(results)
    measured_once(results, 8)
    assert len({environment["SLURM_JOB_ID"] for environment in environments(results)}) == 2


def test_a_warning_before_the_limit_ends_in_preempted_and_the_requeued_job_goes_on(cluster, results, site, suite):
    (job,) = cluster.submit(suite(3, 4.0), site(), results, "--no-report")
    cluster.wait_for_running_case(results, after=1)
    cluster.slurm("scancel", "--batch", "--signal=USR1", job)
    cluster.wait(lambda: "preempted" in [record.status for record in records(results)], "a preempted case")
    cluster.wait_for_end(results)
    measured_once(results, 3)
    assert [record.status for record in records(results)].count("preempted") == 1
    assert "Restarts=1" in cluster.slurm("scontrol", "show", "job", job)


def test_a_job_that_meets_its_time_limit_is_resumed(cluster, results, site, suite):
    # Slurm counts limits in minutes, and warns some time in the second half of this one.
    profile = site("requeue = false")
    profile.write_text(profile.read_text().replace('time_limit = "5"', 'time_limit = "1"'))
    cluster.submit(suite(5, 12.0), profile, results, "--no-report")
    cluster.wait_for_end(results)
    statuses = [record.status for record in records(results)]
    assert statuses.count("preempted") == 1
    assert statuses.count("ok") == len(statuses) - 1 > 0
    (count,) = cluster.status(results)["counts"]
    assert (count["done"], count["failed"]) == (len(statuses) - 1, 0)
    for _ in range(2):
        if len(done(results)) < 5:
            cluster.dlbench("resume", "--results", results)
            cluster.wait_for_end(results)
    measured_once(results, 5)


def test_a_node_that_goes_down_costs_only_the_case_in_flight(cluster, results, site, suite):
    (job,) = cluster.submit(suite(4, 3.0), site(), results, "--no-report")
    cluster.wait_for_running_case(results, after=1)
    node = cluster.slurm("squeue", "--noheader", "--jobs", job, "--format=%N").strip()
    cluster.slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    cluster.wait_for_end(results)
    cluster.all_nodes_back()
    measured_once(results, 4)
    assert "Restarts=1" in cluster.slurm("scontrol", "show", "job", job)
    assert len(records(results)) == 5


def test_cancelled_jobs_lose_nothing_and_resume_measures_only_what_is_missing(cluster, results, site, suite):
    jobs = cluster.submit(suite(8, 1.5), site(), results, "--array", "2")
    assert len(jobs) == 2
    cluster.wait_for_running_case(results, after=2)
    cluster.dlbench("cancel", "--results", results)
    cluster.wait_for_end(results)
    before = set(done(results))
    assert 2 <= len(before) < 8
    assert "nothing to resume" not in cluster.dlbench("resume", "--results", results, "--dry-run")
    cluster.dlbench("resume", "--results", results)
    cluster.wait_for_end(results)
    measured_once(results, 8)
    assert before < set(done(results))
    cluster.dlbench("resume", "--results", results, status=2)


def test_a_supervisor_killed_outright_leaves_a_campaign_that_resumes(cluster, results, site, suite):
    cluster.submit(suite(4, 2.0), site(), results, "--no-report")
    folder = cluster.wait_for_running_case(results, after=1)
    os.kill(json.loads((folder / "owner.json").read_text())["pid"], signal.SIGKILL)
    cluster.wait_for_end(results)
    assert len(done(results)) < 4
    cluster.dlbench("resume", "--results", results)
    cluster.wait_for_end(results)
    measured_once(results, 4)
    assert sorted(record.status for record in records(results)) == ["crashed", "ok", "ok", "ok", "ok"]


def test_the_gpus_of_the_job_are_those_that_the_cases_see(cluster, results, site, suite):
    profile = site(rest='[gpus]\nrequest = "gres"\ntype = "fake"\nper_node = 4')
    cluster.submit(suite(1), profile, results, "--no-report")
    cluster.wait_for_end(results)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in environments(results)] == ["0"]


def test_a_site_that_names_a_partition_that_is_not_there_is_told_in_one_line(cluster, results, suite, site, tmp_path):
    profile = site()
    profile.write_text(profile.read_text().replace('"debug"', '"nowhere"'))
    done_ = subprocess.run(
        ["python3", "-m", "dlbench", "submit", str(suite(1)), "--site", str(profile), "--results", str(results)],
        env=cluster.environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done_.returncode == 2
    assert len(done_.stderr.splitlines()) == 1
    assert re.search("sbatch failed: .*partition", done_.stderr)
