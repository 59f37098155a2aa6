import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from dlbench.errors import BadInput, StoreError
from dlbench.launch import attempts, claims, jobs, scheduler
from dlbench.launch.attempts import write_record
from dlbench.launch.batch_systems import BATCH_SYSTEMS
from dlbench.launch.case_counts import CaseCounts, count_cases
from dlbench.launch.scheduler import JobState, SchedulerError
from dlbench.launch.sites import ContainerSettings, GpuSettings, ReportJobSettings, Site, SlurmSettings
from dlbench.results.records import Record
from dlbench.suites.suite import load_suite

ENDED = ("FAILED", "TIMEOUT", "GONE", "CANCELLED")
SITE = Site("here", "here.toml", slurm=SlurmSettings(cpus_per_task=1), report=ReportJobSettings(time_limit="10"))


class FakeSlurm:
    """Takes the calls; jobs stay in the queue until `ended` has them."""

    def __init__(self):
        self.calls, self.environments, self.queue, self.refuse = [], [], {}, None

    def __call__(self, argv, environment=None):
        self.calls.append(list(argv))
        self.environments.append(environment)
        if argv[0] == self.refuse:
            raise SchedulerError(f"{argv[0]} failed: no")
        if argv[0] == "sbatch" and str(self.refuse) in argv[-1]:
            raise SchedulerError("sbatch failed: Batch job submission failed: Job violates accounting/QOS policy")
        if argv[0] == "sbatch":
            number = str(100 + sum(call[0] == "sbatch" for call in self.calls))
            self.queue[number] = "RUNNING"
            return f"{number};cluster\n"
        if argv[0] == "squeue":
            return "".join(f"{n}|{state}|None|0:05|10:00|n1\n" for n, state in self.queue.items() if state not in ENDED)
        if argv[0] == "scancel":
            for number in argv[1:]:
                del self.queue[number]
            return ""
        if argv[:2] == ["scontrol", "-o"]:
            return f"JobId={argv[-1]} JobState={self.queue.get(argv[-1], 'COMPLETED')} Reason=None"
        raise SchedulerError(f"{argv[0]} failed: not here")

    def submitted(self):
        return [call for call in self.calls if call[0] == "sbatch"]


@pytest.fixture
def slurm(monkeypatch):
    fake = FakeSlurm()
    monkeypatch.setattr(scheduler, "call_scheduler", fake)
    return fake


@pytest.fixture
def suite(tmp_path):
    file = tmp_path / "my suite.toml"
    axes = 'model = ["lenet5"]\nbatch_size = [1, 2, 3]\nnodes = [1, 2]\n'
    file.write_text(f'name = "mine"\n[axes]\n{axes}[protocol]\nprocesses = 1\n')
    return load_suite(file)


def prepare(suite, tmp_path, **more):
    return jobs.prepare_submission(suite, (), SITE, tmp_path / "results", **more)


def finish(root, suite, number, status="ok", device="cpu", system="sys"):
    case = suite.cases(device=device)[number]
    attempt = attempts.create_attempt(root, case, suite.name, suite.version, system, claims.owner_identity())
    write_record(
        attempt.folder,
        Record(attempt.id, case.id, suite.name, suite.version, case.to_dict(), attempt.started_at, "", status,
               system_key=system),
    )  # fmt: skip


def test_a_submission_is_the_campaign_and_a_report_that_comes_after_it_whatever_happens(slurm, suite, tmp_path):
    taken = jobs.submit(prepare(suite, tmp_path))
    assert [(job.job_id, job.kind) for job in taken] == [("101", "campaign"), ("102", "report")]
    assert slurm.submitted()[0][:2] == ["sbatch", "--parsable"]
    assert "--dependency=afterany:101" in slurm.submitted()[1]
    assert Path(slurm.submitted()[0][-1]).read_text().startswith("#!/bin/bash")


def test_nothing_is_written_before_submitting(slurm, suite, tmp_path):
    prepare(suite, tmp_path)
    assert not (tmp_path / "results").exists()


def test_the_suite_is_kept_as_it_was_submitted(slurm, suite, tmp_path):
    submission = prepare(suite, tmp_path)
    jobs.submit(submission)
    Path(suite.source).write_text("changed")
    assert load_suite(submission.suite_file).cases() == suite.cases()
    assert str(submission.suite_file) in submission.scripts[0].text


def test_the_same_question_makes_the_same_submission_and_another_another(suite, tmp_path):
    assert prepare(suite, tmp_path) == prepare(suite, tmp_path)
    assert prepare(suite, tmp_path).folder != prepare(suite, tmp_path, array=2).folder


def test_a_job_for_each_node_count_measures_its_own_cases(slurm, suite, tmp_path):
    submission = prepare(suite, tmp_path, by_nodes=True)
    one, two, _ = submission.scripts
    assert "#SBATCH --nodes=1\n" in one.text
    assert "-P nodes=1 " in one.text
    assert "#SBATCH --nodes=2\n" in two.text
    assert "-P nodes=2 " in two.text
    jobs.submit(submission)
    assert "--dependency=afterany:101:102" in slurm.submitted()[2]


def test_a_site_with_gpus_measures_them_and_one_without_refuses_what_needs_them(suite, tmp_path):
    with_gpus = replace(SITE, gpus=GpuSettings("gres", None, 4))
    unasked = replace(SITE, gpus=GpuSettings("none", None, 4))
    for site in (with_gpus, unasked):
        submission = jobs.prepare_submission(suite, (), site, tmp_path / "results")
        assert "-P device=cuda" in submission.scripts[0].text
        assert submission.overrides == ("device=cuda",)
    assert "-P device" not in prepare(suite, tmp_path).scripts[0].text
    on_cpu = load_suite(suite.source, ["device=cpu"])
    assert (
        "device=cuda" not in jobs.prepare_submission(on_cpu, ("device=cpu",), with_gpus, tmp_path / "r").scripts[0].text
    )
    with pytest.raises(BadInput, match=r"requires device 'cuda', but here.toml has no GPUs .*-P device=cpu"):
        jobs.prepare_submission(load_suite(suite.source, ["device=cuda"]), ("device=cuda",), SITE, tmp_path / "r")


def test_an_array_has_at_most_a_task_for_each_case(suite, tmp_path):
    assert "#SBATCH --array=0-5\n" in prepare(suite, tmp_path, array=50, throttle=9).scripts[0].text
    assert "#SBATCH --array=0-3%2\n" in prepare(suite, tmp_path, array=4, throttle=2).scripts[0].text


def test_a_script_that_slurm_refuses_is_an_error_and_earlier_ones_are_on_record(slurm, suite, tmp_path, monkeypatch):
    answers = iter(["7\n", "sbatch: told you\n"])
    monkeypatch.setattr(scheduler, "call_scheduler", lambda argv, environment=None: next(answers))
    with pytest.raises(SchedulerError, match="printed no job id"):
        jobs.submit(prepare(suite, tmp_path))
    assert [job.job_id for job in jobs.submitted_jobs(tmp_path / "results")] == ["7"]


def test_a_results_folder_that_cannot_be_written_is_an_error_before_slurm_is_asked(slurm, suite, tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(StoreError, match="cannot write"):
        jobs.submit(prepare(suite, tmp_path))
    assert slurm.submitted() == []


def test_status_shows_the_queue_and_the_cases(slurm, suite, tmp_path):
    jobs.submit(prepare(suite, tmp_path))
    root = tmp_path / "results"
    finish(root, suite, 0)
    finish(root, suite, 1, "crashed")
    finish(root, suite, 2, "preempted")
    attempts.create_attempt(
        root, suite.cases(device="cpu")[3], suite.name, suite.version, "sys", claims.owner_identity()
    )
    del slurm.queue["101"]
    (status,) = jobs.submission_statuses(root)
    assert status.counts == (CaseCounts(6, done=1, running=1, failed=1, system_key="sys"),)
    assert status.counts[0].num_missing == 3
    assert [(job.kind, state.state) for job, state in status.jobs] == [("campaign", "COMPLETED"), ("report", "RUNNING")]


def test_status_of_a_folder_without_submissions_says_how_to_make_one(slurm, tmp_path):
    with pytest.raises(BadInput, match=r"has no submissions; run `dlbench submit"):
        jobs.submission_statuses(tmp_path)


def test_a_case_that_failed_once_and_was_measured_then_is_done(suite, tmp_path):
    for status in ("crashed", "ok"):
        finish(tmp_path, suite, 0, status)
    assert count_cases(tmp_path, suite)[0].done == 1
    assert count_cases(tmp_path, suite)[0].failed == 0


def test_two_kinds_of_machine_are_counted_apart(suite, tmp_path):
    finish(tmp_path, suite, 0, system="a")
    finish(tmp_path, suite, 1, system="b", device="cuda")
    assert [(c.system_key, c.done, c.num_missing) for c in count_cases(tmp_path, suite)] == [("a", 1, 5), ("b", 1, 5)]


def test_before_the_first_case_all_are_missing(suite, tmp_path):
    assert count_cases(tmp_path, suite) == [CaseCounts(6)]


def test_an_attempt_whose_owner_is_dead_is_missing_not_running(suite, tmp_path):
    dead = claims.owner_identity() | {"pid": 2**22 - 1}
    attempts.create_attempt(tmp_path, suite.cases(device="cpu")[0], suite.name, suite.version, "sys", dead)
    (counts,) = count_cases(tmp_path, suite)
    assert (counts.running, counts.num_missing) == (0, 6)


def test_cancel_ends_what_is_in_the_queue(slurm, suite, tmp_path):
    jobs.submit(prepare(suite, tmp_path))
    del slurm.queue["102"]
    assert jobs.cancel_jobs(tmp_path / "results") == ["101"]
    assert slurm.calls[-1] == ["scancel", "101"]
    assert jobs.cancel_jobs(tmp_path / "results") == []


def test_resume_submits_again_only_what_has_cases_left_and_no_job(slurm, suite, tmp_path):
    root = tmp_path / "results"
    jobs.submit(prepare(suite, tmp_path, array=4, throttle=1))
    with pytest.raises(BadInput, match="jobs 101, 102 are still queued or running"):
        jobs.resubmit_unfinished(root)
    slurm.queue.clear()
    for number in range(4):
        finish(root, suite, number)
    assert [job.job_id for job in jobs.resubmit_unfinished(root, dry_run=True)] == ["", ""]
    assert len(slurm.submitted()) == 2
    assert [job.kind for job in jobs.resubmit_unfinished(root)] == ["campaign", "report"]
    assert "--array=0-1%1" in slurm.submitted()[2]
    assert "--dependency=afterany:103" in slurm.submitted()[3]
    slurm.queue.clear()
    for number in (4, 5):
        finish(root, suite, number)
    with pytest.raises(BadInput, match="every case was measured or ran out of memory"):
        jobs.resubmit_unfinished(root)


def test_a_report_that_slurm_refuses_leaves_the_campaign_and_resume_submits_it_after_that(slurm, suite, tmp_path):
    root, shown = tmp_path / "results", []
    slurm.refuse = "report.sh"
    with pytest.raises(
        jobs.ReportJobRefused, match=r"refused the report job, .*QOS policy; run `dlbench resume --results"
    ):
        jobs.submit(prepare(suite, tmp_path), on_taken=shown.append)
    assert [(job.job_id, job.kind) for job in shown] == [("101", "campaign")]
    assert [job.job_id for job in jobs.submitted_jobs(root)] == ["101"]
    with pytest.raises(jobs.ReportJobRefused):
        jobs.resubmit_unfinished(root)
    slurm.refuse = None
    (report,) = jobs.resubmit_unfinished(root)
    assert (report.kind, "--dependency=afterany:101" in slurm.submitted()[-1]) == ("report", True)
    with pytest.raises(BadInput, match="still queued or running"):
        jobs.resubmit_unfinished(root)


@pytest.mark.parametrize(
    ("state", "written", "owed"),
    [
        ("FAILED", False, True),
        ("TIMEOUT", True, True),
        ("COMPLETED", False, False),
        ("GONE", False, True),
        ("GONE", True, False),
    ],
)
def test_a_report_that_was_killed_is_submitted_again_by_resume(slurm, suite, tmp_path, state, written, owed):
    root = tmp_path / "results"
    jobs.submit(prepare(suite, tmp_path))
    for number in range(6):
        finish(root, suite, number)
    slurm.queue = {"102": state}
    if written:
        (root / "report").mkdir()
        (root / "report" / "index.html").touch()
    if owed:
        assert [job.kind for job in jobs.resubmit_unfinished(root)] == ["report"]
        assert not any("--dependency" in word for word in slurm.submitted()[-1])
    else:
        with pytest.raises(BadInput, match="every case was measured or ran out of memory"):
            jobs.resubmit_unfinished(root)


def test_a_pending_report_does_not_block_resume_and_is_replaced(slurm, suite, tmp_path):
    root = tmp_path / "results"
    jobs.submit(prepare(suite, tmp_path))
    slurm.queue = {"102": "PENDING"}
    assert [job.kind for job in jobs.resubmit_unfinished(root, dry_run=True)] == ["campaign", "report"]
    assert slurm.queue == {"102": "PENDING"}
    assert [job.job_id for job in jobs.resubmit_unfinished(root)] == ["103", "104"]
    assert ["scancel", "102"] in slurm.calls
    assert "--dependency=afterany:103" in slurm.submitted()[-1]


def test_a_submission_without_a_report_is_never_given_one(slurm, suite, tmp_path):
    root = tmp_path / "results"
    jobs.submit(prepare(suite, tmp_path, report=False))
    slurm.queue.clear()
    assert [job.kind for job in jobs.resubmit_unfinished(root)] == ["campaign"]


def test_the_report_alone_can_be_submitted_after_what_is_at_work(slurm, suite, tmp_path):
    root = tmp_path / "results"
    jobs.submit(prepare(suite, tmp_path, report=False))
    only = prepare(suite, tmp_path, report_only=True)
    assert [script.name for script in only.scripts] == ["report.sh"]
    assert "--dependency" not in jobs.submission_text(only)
    (report,) = jobs.submit(only, jobs.active_jobs(root, ("campaign",)))
    assert report.kind == "report"
    assert "--dependency=afterany:101" in slurm.submitted()[-1]


def test_a_campaign_that_slurm_refuses_shows_what_it_took_before(slurm, suite, tmp_path):
    shown = []
    slurm.refuse = "job-nodes2.sh"
    with pytest.raises(SchedulerError) as caught:
        jobs.submit(prepare(suite, tmp_path, by_nodes=True), on_taken=shown.append)
    assert not isinstance(caught.value, jobs.ReportJobRefused)
    assert [job.job_id for job in shown] == ["101"]


def test_status_counts_the_cases_from_files_where_slurm_does_not_answer(slurm, suite, tmp_path):
    root = tmp_path / "results"
    jobs.submit(prepare(suite, tmp_path))
    finish(root, suite, 0)
    slurm.refuse = "squeue"
    (status,) = jobs.submission_statuses(root)
    assert status.counts[0].done == 1
    assert {state.state for _, state in status.jobs} == {"UNKNOWN"}
    assert status.slurm_error == "squeue failed: no"


def test_resume_leaves_out_the_scripts_whose_cases_have_all_ended(slurm, suite, tmp_path):
    root = tmp_path / "results"
    jobs.submit(prepare(suite, tmp_path, by_nodes=True))
    slurm.queue.clear()
    for number, case in enumerate(suite.cases(device="cpu")):
        if case.nodes == 1:
            finish(root, suite, number, "oom" if case.batch_size == 2 else "ok")
    assert [job.script.partition("/")[2] for job in jobs.resubmit_unfinished(root)] == ["job-nodes2.sh", "report.sh"]
    assert "--dependency=afterany:104" in slurm.submitted()[-1]


def test_what_is_out_of_memory_is_counted_apart_and_not_submitted_again(slurm, suite, tmp_path):
    root = tmp_path / "results"
    jobs.submit(prepare(suite, tmp_path))
    slurm.queue.clear()
    for number, status in enumerate(["ok", "oom", "unstable", "oom", "ok", "crashed"]):
        finish(root, suite, number, status)
    assert count_cases(root, suite) == [CaseCounts(6, done=3, failed=1, out_of_memory=2, system_key="sys")]
    assert len(jobs.resubmit_unfinished(root)) == 2
    slurm.queue.clear()
    finish(root, suite, 5, "oom")
    with pytest.raises(BadInput, match=r"was measured or ran out of memory .*--fresh"):
        jobs.resubmit_unfinished(root)


def test_out_of_memory_once_and_measured_with_fresh_is_done(suite, tmp_path):
    for status in ("oom", "ok", "crashed"):
        finish(tmp_path, suite, 0, status)
    (counts,) = count_cases(tmp_path, suite)
    assert (counts.done, counts.out_of_memory, counts.failed) == (1, 0, 0)


def test_resume_says_that_a_case_may_still_be_running_somewhere(slurm, suite, tmp_path):
    root = tmp_path / "results"
    jobs.submit(prepare(suite, tmp_path))
    slurm.queue.clear()
    for number in range(5):
        finish(root, suite, number)
    attempts.create_attempt(
        root, suite.cases(device="cpu")[5], suite.name, suite.version, "sys", claims.owner_identity()
    )
    with pytest.raises(
        BadInput, match=r"1 case may still run on other nodes\. Killed cases are recognised after 5 minutes"
    ):
        jobs.resubmit_unfinished(root)


@pytest.mark.parametrize(("text", "parsed"), [("8", (8, None)), ("8%2", (8, 2)), ("1", (1, None))])
def test_array_option(text, parsed):
    assert jobs.parse_array_option(text) == parsed


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "8%", "8%0", "8%%2", "a", "1-8", "٨", "8%٢", "²", "+8", " 8", "8\n", "1_0", "9" * 20, "9" * 5000],
)
def test_an_array_that_is_none_is_refused_in_one_line(text):
    with pytest.raises(BadInput, match="such as 8%2") as caught:
        jobs.parse_array_option(text)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 200


def test_an_array_that_slurm_would_refuse_is_refused_before(slurm):
    jobs.check_array_size(1001, None)
    with pytest.raises(BadInput, match="MaxArraySize"):
        jobs.check_array_size(1002, 1001)


def test_the_digest_of_an_imported_image_goes_into_the_script(suite, tmp_path):
    image = tmp_path / "x.sqsh"
    image.write_bytes(b"hsqs")
    image.with_name("x.sqsh.json").write_text(json.dumps({"digest": "sha256:abc", "bytes": 4}))
    site = Site("s", "s.toml", slurm=SlurmSettings(cpus_per_task=1), container=ContainerSettings("enroot", str(image)))
    text = jobs.prepare_submission(suite, (), site, tmp_path / "results").scripts[0].text
    assert f"DLBENCH_CONTAINER_IMAGE={image}@sha256:abc" in text


# --- Slurm's own programs: how they are called, and what is made of their answers.


@pytest.fixture
def program(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def program(name, script):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    return program


def test_sbatch_is_called_without_what_a_surrounding_job_has_set(program, tmp_path, monkeypatch):
    for name in ("SLURM_JOB_ID", "SRUN_CPUS_PER_TASK", "SBATCH_PARTITION", "SLURM_CONF"):
        monkeypatch.setenv(name, "x")
    program("sbatch", f'env >{tmp_path}/env; echo "$@" >{tmp_path}/args; echo 42')
    assert BATCH_SYSTEMS["slurm"].submit(Path("/r/job.sh"), "afterany:41") == "42"
    seen = (tmp_path / "env").read_text()
    assert "SLURM_CONF=x" in seen
    assert not any(name in seen for name in ("SLURM_JOB_ID", "SRUN_", "SBATCH_"))
    assert (tmp_path / "args").read_text() == "--parsable --dependency=afterany:41 /r/job.sh\n"


def test_a_refusal_is_told_in_slurm_s_words_on_one_line(program):
    program(
        "sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; echo 'sbatch: error: Batch no' >&2; exit 1"
    )
    with pytest.raises(SchedulerError, match=r"^sbatch failed: invalid partition specified: x Batch no$"):
        BATCH_SYSTEMS["slurm"].submit(Path("/r/job.sh"))


def test_without_slurm_the_message_says_where_to_go(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SchedulerError, match="sbatch is not on PATH; run this on a login node"):
        BATCH_SYSTEMS["slurm"].submit(Path("/r/job.sh"))


def test_a_controller_that_does_not_answer_is_said_to_be_away(program, monkeypatch):
    program("squeue", "exec sleep 10")
    monkeypatch.setattr(scheduler, "TIMEOUT_S", 0.2)
    with pytest.raises(SchedulerError, match="check the scheduler"):
        BATCH_SYSTEMS["slurm"].states(["1"])


def test_states_of_array_tasks_and_of_jobs_that_have_left(program):
    program("squeue", "echo '7_1|RUNNING|None|1:00|5:00|n2'; echo '7_[2-9%1]|PENDING|JobArrayTaskLimit|0:00|5:00|'; "
            "echo '99|RUNNING|None|0:00|5:00|n1'")  # fmt: skip
    program("scontrol", 'case "$4" in 8) echo JobState=COMPLETED; echo JobState=NODE_FAIL;; *) exit 1;; esac')
    program("sacct", 'case "$*" in *" 9") echo "CANCELLED by 1000";; *) exit 1;; esac')
    assert BATCH_SYSTEMS["slurm"].states(["7", "8", "9", "10"]) == [
        JobState("7_1", "RUNNING", "None", "1:00", "5:00", "n2"),
        JobState("7_[2-9%1]", "PENDING", "JobArrayTaskLimit", "0:00", "5:00", ""),
        JobState("8", "NODE_FAIL"),
        JobState("9", "CANCELLED"),
        JobState("10", "GONE"),
    ]
    assert [state.ended for state in BATCH_SYSTEMS["slurm"].states(["7", "10"])] == [False, False, True]


def test_steps_of_a_killed_srun_are_ended_by_their_name(program, tmp_path, monkeypatch):
    program(
        "squeue", f"echo \"$@\" >{tmp_path}/asked; echo '7.batch|job'; echo '7.3|the-case'; echo '7.4|another-the-case'"
    )
    program("scancel", f'echo "$@" >{tmp_path}/ended')
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert scheduler.cancel_steps("the-case") == 0
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert scheduler.cancel_steps("the-case") == 1
    assert "--jobs=7" in (tmp_path / "asked").read_text()
    assert (tmp_path / "ended").read_text() == "7.3\n"


def test_where_slurm_has_no_commands_there_are_no_steps_to_end(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert scheduler.cancel_steps("the-case") == 0


def test_max_array_size(program):
    program("scontrol", "echo 'MaxArraySize            = 1001'")
    assert scheduler.max_array_size() == 1001
    program("scontrol", "exit 1")
    assert scheduler.max_array_size() is None


# --- The commands.


def command(*arguments, path, cwd):
    root = Path(__file__).parents[2]
    import sys

    return subprocess.run(
        [sys.executable, "-m", "dlbench", *map(str, arguments)],
        env=os.environ | {"PATH": f"{path}:{os.environ['PATH']}", "PYTHONPATH": str(root)},
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_dry_run_prints_the_scripts_and_needs_no_slurm(suite, tmp_path):
    (tmp_path / "site.toml").write_text("[slurm]\ncpus_per_task = 1\n")
    done = command("submit", suite.source, "--site", "site.toml", "--dry-run", path=tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("#!/bin/bash") == 2
    assert not (tmp_path / "results").exists()
    commands = [line.split() for line in done.stdout.splitlines() if line.startswith("# ---- ")]
    assert [words[2:-1] for words in commands] == [
        ["sbatch", "--parsable"],
        ["sbatch", "--parsable", "--dependency=afterany:ID1"],
    ]
    assert [Path(words[-1]).name for words in commands] == ["job.sh", "report.sh"]
    assert "add --write to write the scripts to" in done.stderr


def test_a_dry_run_that_writes_leaves_all_that_the_script_needs_by_hand(suite, tmp_path):
    (tmp_path / "site.toml").write_text("[slurm]\ncpus_per_task = 1\n")
    done = command("submit", suite.source, "--site", "site.toml", "--dry-run", "--write", path=tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (job,) = (tmp_path / "results" / "jobs").glob("*/job.sh")
    assert f"bash {job}" in done.stderr
    (named,) = [line.partition("=")[2] for line in job.read_text().splitlines() if line.startswith("suite=")]
    assert load_suite(named).cases() == suite.cases()


def test_what_a_dry_run_prints_is_what_is_submitted(suite, tmp_path, program):
    (tmp_path / "site.toml").write_text("[slurm]\ncpus_per_task = 1\n")
    program("sbatch", "echo 5")
    program("scontrol", "exit 1")
    shown = command("submit", suite.source, "--site", "site.toml", "--dry-run", path=tmp_path, cwd=tmp_path).stdout
    done = command("submit", suite.source, "--site", "site.toml", path=tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "5"
    (job,) = (tmp_path / "results" / "jobs").glob("*/job.sh")
    assert f"sbatch --parsable {job}\n{job.read_text()}" in shown


def test_a_refused_report_is_said_on_one_line_below_the_ids_of_the_campaign(suite, tmp_path, program):
    (tmp_path / "site.toml").write_text("[slurm]\ncpus_per_task = 1\n")
    program("sbatch", 'case "$*" in *report.sh) echo "sbatch: error: MaxSubmitJobs" >&2; exit 1;; esac; echo 5')
    program("scontrol", "exit 1")
    program("squeue", "echo '5|RUNNING|None|1:00|5:00|n2'")
    done = command("submit", suite.source, "--site", "site.toml", path=tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stdout.split()[:2]) == (1, ["5", "campaign"])
    assert done.stderr.splitlines()[-1].startswith("dlbench: Slurm refused the report job, but accepted")
    program("sbatch", f'echo "$@" >{tmp_path}/args; echo 6')
    done = command("submit", suite.source, "--site", "site.toml", "--report-only", path=tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stdout.split()[:2]) == (0, ["6", "report"])
    assert "--dependency=afterany:5" in (tmp_path / "args").read_text()


def test_a_report_of_nothing_is_refused(suite, tmp_path):
    (tmp_path / "site.toml").write_text("[slurm]\ncpus_per_task = 1\n")
    done = command("submit", suite.source, "--site", "site.toml", "--report-only", path=tmp_path, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "does not exist; check --results" in done.stderr


def test_the_status_command_shows_what_files_tell_while_the_controller_is_away(suite, tmp_path, program):
    (tmp_path / "site.toml").write_text("[slurm]\ncpus_per_task = 1\n")
    program("sbatch", "echo 5")
    program("scontrol", "exit 1")
    command("submit", suite.source, "--site", "site.toml", path=tmp_path, cwd=tmp_path)
    program("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    done = command("status", path=tmp_path, cwd=tmp_path)
    assert done.returncode == 0
    assert "Unable to contact slurm controller; the states of the jobs are unknown" in done.stderr
    assert "6 processes: 0 done" in done.stdout
    assert "UNKNOWN" in done.stdout


def test_what_has_no_effect_in_the_profile_is_said_at_submission(suite, tmp_path):
    (tmp_path / "site.toml").write_text("[slurm]\ncpus_per_task = 1\n[software]\nhost_python = '/opt/python'\n")
    done = command("submit", suite.source, "--site", "site.toml", "--dry-run", path=tmp_path, cwd=tmp_path)
    assert done.returncode == 0
    assert "site.toml: software.host_python has no effect without a container" in done.stderr


def test_a_misspelt_network_is_found_before_it_costs_a_wait_in_the_queue(tmp_path, program):
    (tmp_path / "site.toml").write_text("[slurm]\ncpus_per_task = 1\n")
    (tmp_path / "s.toml").write_text('[axes]\nmodel = ["resnet5"]\n')
    program("sbatch", f"touch {tmp_path}/called")
    done = command("submit", "s.toml", "--site", "site.toml", path=tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "unknown model 'resnet5'" in done.stderr
    assert not (tmp_path / "called").exists()


def test_slurms_variables_stay_but_for_those_of_a_surrounding_job():
    own = {"SBATCH_ACCOUNT": "me", "SLURM_JWT": "token", "HOME": "/h"}
    assert scheduler.without_job_variables(own) == own
    inside = own | {"SLURM_JOB_ID": "7", "SLURM_CONF": "/c"}
    assert scheduler.without_job_variables(inside) == {"SLURM_CONF": "/c", "HOME": "/h"}
