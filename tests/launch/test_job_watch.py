"""Waiting for jobs, jobs that cannot start, several campaigns below a folder, energy and time estimates."""

import dataclasses
import json
from pathlib import Path

import pytest

from dlbench.__main__ import main
from dlbench.launch import accounted_energy, attempts, job_watch, jobs, scheduler, time_estimate
from dlbench.launch.attempts import write_record
from dlbench.launch.jobs import JobEnergy
from dlbench.launch.scheduler import JobState, SchedulerError
from dlbench.results.records import Outcome, Record
from dlbench.suites.case import Case
from dlbench.suites.suite import load_suite
from tests.fakes import records as fakes
from tests.launch.test_each_node import SITE, SUITE, Nodes, submit
from tests.launch.test_jobs import finish


@pytest.fixture
def site(tmp_path):
    (tmp_path / "here.toml").write_text(SITE)
    (tmp_path / "fleet.toml").write_text(SUITE)
    return tmp_path


class Queue(Nodes):
    """A Slurm whose first `running` jobs run while others wait for `reason`; all end after some looks at the queue."""

    def __init__(self, reason="Priority", looks=99, sacct="", running=0):
        super().__init__({"n1": "idle", "n2": "idle"})
        self.reason, self.looks, self.sacct, self.at_end = reason, looks, sacct, lambda: None
        self.running = running

    def __call__(self, argv, environment=None):
        if argv[0] == "squeue":
            self.looks -= 1
            if self.looks == 0:
                self.at_end()
                self.queue.clear()
            if self.reason == "down":
                raise SchedulerError("squeue failed: no controller")
            states = ["RUNNING|None"] * self.running + [f"PENDING|{self.reason}"] * len(self.queue)
            return "".join(f"{n}|{state}|0:00|10:00|\n" for n, state in zip(self.queue, states, strict=False))
        if argv[0] == "sacct" and "JobIDRaw" in " ".join(argv):
            return self.sacct
        return super().__call__(argv, environment)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(job_watch, "PAUSE_S", 0.0)
    monkeypatch.setattr(job_watch, "SETTLE_S", 0.0)


@pytest.mark.parametrize(
    "reason",
    ["PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "QOSMaxNodePerUserLimit", "InvalidQOS",
     "AssocMaxCpuPerJobLimit", "QOSMaxWallDurationPerJobLimit", "DependencyNeverSatisfied", "JobHeldUser"],
)  # fmt: skip
def test_a_job_that_cannot_start_is_named_in_one_line_after_submission(monkeypatch, site, capsys, reason):
    assert submit(monkeypatch, site, Queue(reason), "--no-report") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "cannot start" in line]
    assert line.startswith(f"dlbench: job 101 cannot start: {reason} (")


@pytest.mark.parametrize("reason", ["Priority", "Resources", "None", "Dependency", "BeginTime", "JobArrayTaskLimit"])
def test_a_job_that_only_waits_is_not_named(monkeypatch, site, capsys, reason):
    assert submit(monkeypatch, site, Queue(reason), "--no-report") == 0
    assert "cannot start" not in capsys.readouterr().err


def test_a_limit_per_user_only_waits_while_other_jobs_of_the_user_run():
    waiting = JobState("2", "PENDING", "QOSMaxNodePerUserLimit")
    assert job_watch.blocking_reason(waiting, [waiting]) is not None
    assert job_watch.blocking_reason(waiting, [waiting, JobState("1", "RUNNING")]) is None


def test_nodes_beyond_a_limit_per_user_are_submitted_and_wait(monkeypatch, site, capsys):
    slurm = Queue("QOSMaxJobsPerUserLimit", running=1)
    assert submit(monkeypatch, site, slurm, "--each-node") == 0
    assert len(slurm.submitted()) == 2
    assert "cannot start" not in capsys.readouterr().err


def test_jobs_start_after_the_job_asked_for(monkeypatch, site, capsys):
    slurm = Queue()
    assert submit(monkeypatch, site, slurm, "--after", "41", "--after", "42_3") == 0
    assert "--dependency=afterany:41:42_3" in slurm.submitted()[0]
    assert "--dependency=afterany:41:42_3:101" in slurm.submitted()[1]
    with pytest.raises(SystemExit) as caught:
        submit(monkeypatch, site, slurm, "--after", "x;y")
    assert caught.value.code == 2


def finish_all(results):
    (submission,) = jobs.submission_folders(results)
    suite = jobs.submitted_suite(jobs.read_submission(submission))
    for number in range(len(suite.cases())):
        finish(results, suite, number)


@pytest.mark.parametrize("complete", [True, False])
def test_waiting_ends_with_0_if_all_cases_ended_and_with_1_otherwise(monkeypatch, site, capsys, complete):
    slurm = Queue(looks=4)
    if complete:
        slurm.at_end = lambda: finish_all(site / "results")
    assert submit(monkeypatch, site, slurm, "--no-report", "--wait") == (0 if complete else 1)
    lines = [line for line in capsys.readouterr().out.splitlines() if "processes" in line]
    assert lines[0].endswith("0 done, 0 running, 0 failed, 0 out of memory, 2 missing; 1 job queued or running")
    assert f"{2 if complete else 0} done" in lines[-1]
    assert main(["status", "--results", str(site / "results"), "--watch"]) == (0 if complete else 1)


def test_waiting_survives_a_scheduler_that_is_away_for_a_while(monkeypatch, site, capsys):
    slurm = Queue(looks=3)
    submit(monkeypatch, site, slurm, "--no-report")
    slurm.reason, slurm.looks = "down", 4
    slurm.at_end = lambda: setattr(slurm, "reason", "Priority")
    assert main(["status", "--results", str(site / "results"), "--watch"]) == 1
    assert capsys.readouterr().err.count("no controller; trying again") == 1


def test_a_scheduler_that_stays_away_ends_the_waiting(monkeypatch, site):
    slurm = Queue()
    submit(monkeypatch, site, slurm, "--no-report")
    slurm.reason = "down"
    assert main(["status", "--results", str(site / "results"), "--watch"]) == 2


def test_status_of_a_folder_lists_all_campaigns_below_it_and_sums_nodes_up(monkeypatch, site, capsys):
    slurm = Queue()
    submit(monkeypatch, site, slurm, "--each-node")
    finish_all(site / "results" / "nodes" / "n1")
    given = [str(site / "fleet.toml"), "--site", str(site / "here.toml")]
    main(["submit", *given, "--results", str(site / "other")])
    capsys.readouterr()
    assert main(["status", "--results", str(site)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{site}/other: fleet: 2 processes: 0 done, 0 running, 0 failed, 0 out of memory, 2 missing; "
        "2 jobs queued or running",
        f"{site}/results: fleet on 2 nodes or GPUs: 4 processes: 2 done, 0 running, 0 failed, 0 out of memory, "
        "2 missing; 2 jobs queued or running",
    ]
    assert main(["status", "--results", str(site), "--json"]) == 0
    assert [one["counts"]["done"] for one in json.loads(capsys.readouterr().out)] == [0, 2]


def test_each_gpu_gets_a_job_that_has_all_gpus_and_sees_one(monkeypatch, site, capsys):
    text = (site / "here.toml").read_text()
    (site / "here.toml").write_text(f'{text}[gpus]\nrequest = "gres"\nper_node = 2\n')
    slurm = Queue()
    assert submit(monkeypatch, site, slurm, "--each-gpu", "--nodes", "n2") == 0
    scripts = sorted((site / "results" / "nodes" / "n2").glob("gpu*/jobs/*/job.sh"))
    assert [script.parts[-4] for script in scripts] == ["gpu0", "gpu1"]
    text = scripts[1].read_text()
    assert "#SBATCH --gres=gpu:2\n" in text
    assert "#SBATCH --nodelist=n2\n" in text
    assert "inside=(env CUDA_VISIBLE_DEVICES=1 python3)" in text
    assert "submitted for 2 GPUs" in capsys.readouterr().err
    assert submit(monkeypatch, site, slurm, "--each-gpu", "-P", "devices_per_node=2") == 2


def test_each_gpu_needs_gpus(monkeypatch, site, capsys):
    assert submit(monkeypatch, site, Queue(), "--each-gpu") == 2
    assert "has no GPUs" in capsys.readouterr().err


SACCT = "101|101|5000\n101.batch|101.batch|\n101.0|101.0|5000\n"


@pytest.mark.parametrize(
    ("sacct", "expected"),
    [
        (SACCT, "Slurm recorded 5.00 kJ (whole nodes, during the whole job), dlbench measured 300 J (devices, only "
                "during the timed steps)"),
        ("101|101|0\n101.0|101.0|0\n", "Slurm recorded no energy"),
        ("101|101|\n101.0|101.0|100\n", "Slurm recorded 100 J (whole nodes, during the whole job), dlbench "
                                        "measured 300 J (devices, only during the timed steps); "
         "Slurm's energy is lower, so one of them is wrong"),
    ],
    ids=["accounted", "no plugin", "steps only, and less"],
)  # fmt: skip
def test_status_shows_the_energy_that_slurm_accounted_beside_the_measured_one(
    monkeypatch, site, capsys, sacct, expected
):
    results = site / "results"
    slurm = Queue(sacct=sacct)
    submit(monkeypatch, site, slurm, "--no-report")
    finish_all(results)
    (folder, *_) = attempts.list_attempt_folders(results)
    system = dataclasses.replace(fakes.GPU, slurm_job_id="101")
    record = fakes.record(Case("lenet5", device="cuda"), system, energy_j=300.0)
    (folder / "result.json").write_text(Outcome("ok", ranks=record.ranks).to_json())
    slurm.queue.clear()
    assert main(["status", "--results", str(results), "--energy"]) == 0
    assert expected in capsys.readouterr().out


def test_energy_of_array_tasks_is_summed(monkeypatch):
    monkeypatch.setattr(scheduler, "call_scheduler", lambda argv: "7_0|8|100\n7_0.0|8.0|100\n7_1|7|50\n9|9|1\n")
    assert accounted_energy.sacct_energy(["7", "9"]) == (
        {"7": 150.0, "9": 1.0},
        {"8": "7", "8.0": "7", "7": "7", "9": "9"},
    )
    assert JobEnergy(None, 3.0).energy_text == "Slurm recorded no energy"


def test_without_accounting_there_is_no_energy(monkeypatch):
    def refuse(argv):
        raise SchedulerError("sacct failed: Slurm accounting storage is disabled")

    monkeypatch.setattr(scheduler, "call_scheduler", refuse)
    assert accounted_energy.sacct_energy(["7"]) == ({}, {})


def test_time_and_node_hours_are_learned_from_earlier_records(site, capsys):
    suite = load_suite(site / "fleet.toml", ["batch_size=1,2,3", "nodes=2"])
    (site / "results").mkdir()
    assert time_estimate.estimate_time(suite, site / "results") is None
    for number, wall_s in enumerate((100.0, 300.0)):
        finish(site / "results", suite, number)
        folder = attempts.list_attempt_folders(site / "results")[-1]
        record = Record.from_json((folder / "record.json").read_text())
        write_record(folder, dataclasses.replace(record, wall_s=wall_s))
    found = time_estimate.estimate_time(suite, site / "results")
    assert (found.time_s, found.node_s, found.known, found.total) == (600.0, 1200.0, 2, 3)
    words = [str(site / "fleet.toml"), "-P", "batch_size=1,2,3", "-P", "nodes=2", "--results", str(site / "results")]
    assert main(["plan", *words]) == 0
    assert (
        "estimate: 10 min, 0.33 node-hours in total (2 of 3 processes were measured before; other processes "
        "are estimated with the median of these)" in capsys.readouterr().err
    )
    assert main(["submit", *words, "--site", str(site / "here.toml"), "--dry-run"]) == 0
    assert "estimate: 10 min" in capsys.readouterr().err


def test_only_waiting_jobs_have_a_lasting_reason():
    assert job_watch.blocking_reason(JobState("1", "RUNNING", "PartitionTimeLimit")) is None
    assert job_watch.blocking_reason(JobState("1", "PENDING", "")) is None


def test_a_folder_without_campaigns_is_named(tmp_path, capsys):
    assert main(["status", "--results", str(tmp_path), "--watch"]) == 2
    assert "has no submissions" in capsys.readouterr().err
    assert Path(tmp_path).is_dir()
