"""Campaigns in Slurm or PBS: submit, show status, cancel, resume.

    results/jobs/<suite>-<digest>/   one submission: the suite and the scripts as submitted
      <suite>.toml  submission.json  job.sh  (job-nodes2.sh ...)  report.sh
    results/jobs/<job_id>.json       one job that the scheduler accepted
    results/jobs/<name>-<job_id>.out its output

The state of cases is read from attempt folders, not from job states: an OOM-killed step can end as COMPLETED.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shlex
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import dlbench
from dlbench import units
from dlbench.atomic_file import read_text, write_atomically
from dlbench.errors import BadInput, StoreError, convert_write_errors
from dlbench.json_text import load_json
from dlbench.launch import batch_systems, claims, images, job_script, scheduler
from dlbench.launch.case_counts import CaseCounts, count_cases
from dlbench.launch.scheduler import JobState, SchedulerError
from dlbench.launch.sites import Site
from dlbench.results.records import from_dict
from dlbench.safe_names import short_repr, why_unsafe_name
from dlbench.suites.case import Case
from dlbench.suites.suite import Suite, load_suite

#: At most six ASCII digits: no Slurm accepts a million tasks.
_ARRAY_SPEC = re.compile(r"([1-9][0-9]{0,6})(?:%([1-9][0-9]{0,6}))?")


class ReportJobRefused(SchedulerError):
    """The scheduler accepted the measuring jobs but refused the report job."""


@dataclass(frozen=True)
class JobScript:
    """One job script of a submission."""

    name: str  # of its file
    text: str
    kind: str  # "campaign" | "report"
    nodes: int = 1
    array: int = 1
    throttle: int | None = None
    chosen_nodes: int = 0  # node count of its cases; 0: all cases


@dataclass(frozen=True)
class Submission:
    """A suite with its job scripts for one site. Equal suites, options and sites give equal submissions."""

    folder: Path  # absolute
    suite: str
    suite_file: Path  # the copy inside the folder
    suite_text: str
    overrides: tuple[str, ...]
    site: str
    num_cases: int
    scripts: tuple[JobScript, ...]
    scheduler: str = "slurm"


@dataclass(frozen=True)
class SubmittedJob:
    """A job that the scheduler accepted."""

    job_id: str
    kind: str
    script: str  # relative to results/jobs
    suite: str
    site: str
    submitted_at: str
    submitted_by: str
    submitted_from: str
    scheduler: str = "slurm"


@dataclass(frozen=True)
class JobEnergy:
    """Energy of one job, by both; None where it was not accounted or not measured."""

    consumed_energy_j: float | None  # by Slurm: the job's nodes, from its start to its end
    measured_energy_j: float | None  # by dlbench: devices, within the windows of all attempts

    @property
    def energy_text(self) -> str:
        """Both values in one line; a contradiction is named."""
        accounted, measured = self.consumed_energy_j, self.measured_energy_j
        if accounted is None:
            return "Slurm recorded no energy"
        text = f"Slurm recorded {units.quantity_text(accounted, 'J')} (whole nodes, during the whole job)"
        if measured is None:
            return text
        less = "; Slurm's energy is lower, so one of them is wrong" if accounted < measured else ""
        return (
            f"{text}, dlbench measured {units.quantity_text(measured, 'J')} (devices, only during "
            f"the timed steps){less}"
        )


@dataclass(frozen=True)
class SubmissionStatus:
    """Status of one submission, as `dlbench status` shows it."""

    submission: str
    suite: str
    counts: tuple[CaseCounts, ...]
    jobs: tuple[tuple[SubmittedJob, JobState], ...] = field(default=())
    #: Error of the scheduler that hides the job states; None without error.
    slurm_error: str | None = None
    #: Accounted and measured energy of ended jobs, where asked for; see `accounted_energy`.
    energy: Mapping[str, JobEnergy] = field(default_factory=dict)


def jobs_folder(results: Path) -> Path:
    """Return the folder of submissions and jobs in a results folder."""
    return results / "jobs"


def prepare_submission(
    suite: Suite,
    overrides: Sequence[str],
    site: Site,
    results: Path,
    *,
    array: int = 1,
    throttle: int | None = None,
    by_nodes: bool = False,
    report: bool = True,
    report_only: bool = False,
    all_gpus: bool = False,
) -> Submission:
    """Prepare a submission without writing or submitting anything.

    Args:
        suite: the suite, with overrides applied.
        overrides: the `-P` options, for the job's command line.
        results: a folder on a disk shared by all nodes.
        array: number of jobs that share the cases; at most one per case.
        throttle: number of jobs that run at once.
        by_nodes: one job per node count.
        report: add a final job that writes the report.
        report_only: only that report job.
        all_gpus: request every GPU of a node, also where fewer ranks run.

    Raises:
        BadInput: the site cannot provide the resources that the suite needs.
    """
    results = results.resolve()
    cases = suite.cases()
    overrides = (*overrides, *_gpu_device_override(cases, site))
    text = Path(suite.source).read_text(encoding="utf-8")
    node_counts = sorted({case.nodes for case in cases}) if by_nodes else [0]
    whole = job_script.Job(
        suite=suite.name,
        suite_file="",
        results=str(results),
        overrides=tuple(overrides),
        checkout=source_checkout_folder(),
        user=f"{os.getuid()}:{os.getgid()}",
        image_digest=images.recorded_digest(site.container),
        all_gpus=all_gpus,
    )
    question = [text, repr(site), repr(whole), array, throttle, node_counts, report]
    question += ["report only"] if report_only else []
    digest = hashlib.sha256(json.dumps(question).encode()).hexdigest()[:8]
    folder = jobs_folder(results) / f"{suite.name}-{digest}"
    whole = dataclasses.replace(whole, suite_file=str(folder / f"{suite.name}.toml"))
    scripts = []
    if not report_only:
        scripts = [_campaign_script(site, whole, cases, nodes, array, throttle) for nodes in node_counts]
    if report or report_only:
        report_text = batch_systems.BATCH_SYSTEMS[site.scheduler].report_script(site, whole)
        scripts.append(JobScript("report.sh", report_text, "report"))
    return Submission(
        folder, suite.name, Path(whole.suite_file), text, tuple(overrides), site.name, len(cases), tuple(scripts),
        site.scheduler,
    )  # fmt: skip


def _gpu_device_override(cases: list[Case], site: Site) -> list[str]:
    """The override that keeps a job at a GPU site from measuring the CPU. Raises BadInput if GPUs are missing."""
    devices = {case.device for case in cases}
    if "cuda" in devices and not site.has_gpus:
        raise BadInput(
            f"the suite requires device 'cuda', but {site.file} has no GPUs (gpus.request, gpus.per_node); add -P "
            f"device=cpu to measure CPUs"
        )
    return ["device=cuda"] if devices == {"auto"} and site.has_gpus else []


def _campaign_script(
    site: Site, whole: job_script.Job, cases: list[Case], nodes: int, array: int, throttle: int | None
) -> JobScript:
    """Return the script for the cases with `nodes` nodes; 0 means all cases."""
    chosen = [case for case in cases if nodes in (0, case.nodes)]
    array = min(array, len(chosen))
    job = dataclasses.replace(
        whole,
        nodes=max(case.nodes for case in chosen),
        ranks_per_node=max(case.devices_per_node for case in chosen),
        overrides=(*whole.overrides, f"nodes={nodes}") if nodes else whole.overrides,
        array=array,
        throttle=throttle if throttle and throttle < array else None,
    )
    name = f"job-nodes{nodes}.sh" if nodes else "job.sh"
    text = batch_systems.BATCH_SYSTEMS[site.scheduler].campaign_script(site, job)
    return JobScript(name, text, "campaign", job.nodes, job.array, job.throttle, nodes)


def source_checkout_folder() -> str | None:
    """The folder of the checkout that this dlbench runs from; None where it is installed among the packages."""
    folder = Path(dlbench.__file__).resolve().parents[1]
    return str(folder) if (folder / "pyproject.toml").is_file() else None


def submission_text(submission: Submission, after: Sequence[str] = ()) -> str:
    """Return each script below its submit command; `ID1` stands for the job id of the first."""
    submit_argv = batch_systems.BATCH_SYSTEMS[submission.scheduler].submit_argv
    texts: list[str] = []
    for number, script in enumerate(submission.scripts):
        own = [f"ID{n}" for n in range(1, number + 1)] if script.kind == "report" else []
        argv = submit_argv(submission.folder / script.name, _dependency_on_end([*after, *own]), None)
        texts.append(f"# ---- {shlex.join(argv)}\n{script.text}")
    return "\n".join(texts)


def _dependency_on_end(job_ids: Sequence[str]) -> str | None:
    return f"afterany:{':'.join(job_ids)}" if job_ids else None


def submit(
    submission: Submission, after: Sequence[str] = (), on_taken: Callable[[SubmittedJob], None] = lambda job: None
) -> list[SubmittedJob]:
    """Write the submission folder and submit its scripts, the report after all others.

    Args:
        after: ids of other jobs that all scripts wait for.
        on_taken: called with each accepted job.

    Raises:
        StoreError: the results folder cannot be written.
        SchedulerError: the scheduler refused a script; jobs accepted before are recorded. `ReportJobRefused` if only
        the report was refused.
    """
    write_submission(submission)
    taken: list[SubmittedJob] = []
    for script in submission.scripts:
        before = [*after, *(job.job_id for job in taken if script.kind == "report")]
        job = _submit_script(submission, script, before)
        taken.append(job)
        on_taken(job)
    return taken


def write_submission(submission: Submission) -> None:
    """Write suite and scripts, which can also be run by hand. Raises StoreError if the folder cannot be written."""
    about = {
        "suite": submission.suite,
        "suite_file": submission.suite_file.name,
        "overrides": list(submission.overrides),
        "site": submission.site,
        "scheduler": submission.scheduler,
        "num_cases": submission.num_cases,
        "scripts": [{k: v for k, v in dataclasses.asdict(s).items() if k != "text"} for s in submission.scripts],
    }
    with convert_write_errors(submission.folder):
        submission.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(submission.suite_file, submission.suite_text)
        for script in submission.scripts:
            write_atomically(submission.folder / script.name, script.text)
        write_atomically(submission.folder / "submission.json", json.dumps(about, indent=1))


def _submit_script(
    submission: Submission, script: JobScript, before: Sequence[str], array: str | None = None
) -> SubmittedJob:
    folder, system = submission.folder, batch_systems.BATCH_SYSTEMS[submission.scheduler]
    try:
        job_id = system.submit(folder / script.name, _dependency_on_end(before), array)
    except SchedulerError as error:
        if script.kind != "report":
            raise
        raise ReportJobRefused(
            f"{system.title} refused the report job, but accepted the measuring jobs: {error}; run `dlbench resume "
            f"--results {folder.parents[1]}` to submit the report job again"
        ) from None
    job = SubmittedJob(
        job_id=job_id,
        kind=script.kind,
        script=f"{folder.name}/{script.name}",
        suite=submission.suite,
        site=submission.site,
        submitted_at=datetime.now(UTC).isoformat(timespec="seconds"),
        submitted_by=scheduler.user_name(),
        submitted_from=socket.gethostname(),
        scheduler=submission.scheduler,
    )
    file = folder.parent / f"{job_id}.json"
    try:
        write_atomically(file, json.dumps(dataclasses.asdict(job), indent=1))
    except OSError as error:
        raise StoreError(
            f"{system.title} accepted job {job_id}, but {file} cannot be written: {error.strerror or error}; run "
            f"`{system.cancel_command} {job_id}` to cancel it"
        ) from None
    return job


def submitted_jobs(results: Path) -> list[SubmittedJob]:
    """Return all submitted jobs of a results folder, oldest first."""
    found: list[SubmittedJob] = []
    for file in jobs_folder(results).glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            job: SubmittedJob = from_dict(SubmittedJob, load_json(read_text(file)))
            if not why_unsafe_name(job.script.partition("/")[0]) and job.scheduler in batch_systems.BATCH_SYSTEMS:
                found.append(job)
    return sorted(found, key=lambda job: (job.submitted_at, len(job.job_id), job.job_id))


def submission_folders(results: Path) -> list[Path]:
    """The folders of all submissions, in the order of their first jobs. Raises BadInput if there are none."""
    folders = [jobs_folder(results) / job.script.partition("/")[0] for job in submitted_jobs(results)]
    known = [folder for folder in dict.fromkeys(folders) if (folder / "submission.json").is_file()]
    if not known:
        how = f"run `dlbench submit SUITE --site SITE --results {results}` first"
        raise BadInput(f"'{results}' has no submissions; {how}")
    return known


def submission_statuses(results: Path) -> list[SubmissionStatus]:
    """Queue state and case counts of every submission of a results folder. Raises BadInput if there is none."""
    jobs = submitted_jobs(results)
    slurm_error = None
    try:
        seen = job_states(jobs)
    except SchedulerError as error:
        # Cases are counted from files, which needs no scheduler.
        slurm_error = str(error)
        seen = [JobState(job.job_id, "UNKNOWN") for job in jobs]
    found = []
    for folder in submission_folders(results):
        submission = read_submission(folder)
        own = {job.job_id: job for job in jobs if job.script.startswith(f"{folder.name}/")}
        states = [(own[scheduler.base_job_id(s.id)], s) for s in seen if scheduler.base_job_id(s.id) in own]
        counts = tuple(count_cases(results, submitted_suite(submission)))
        found.append(SubmissionStatus(folder.name, submission.suite, counts, tuple(states), slurm_error))
    return found


def job_states(jobs: Sequence[SubmittedJob]) -> list[JobState]:
    """The states of these jobs, one per queued or running array task. Raises SchedulerError if one is silent."""
    return [
        state
        for name, system in batch_systems.BATCH_SYSTEMS.items()
        for state in system.states([job.job_id for job in jobs if job.scheduler == name])
    ]


def read_submission(folder: Path) -> Submission:
    """Read `submission.json`, without the texts of its files; check types, and names that become paths."""
    file = folder / "submission.json"
    try:
        about = load_json(read_text(file))
        if not isinstance(about, dict) or not isinstance(about.get("scripts"), list):
            raise ValueError("it is not a JSON object with a list 'scripts'")
        scripts = tuple(from_dict(JobScript, {"text": ""} | script) for script in about["scripts"])
        for name in (about.get("suite_file"), *(script.name for script in scripts)):
            if why_unsafe_name(name):
                raise ValueError(f"{short_repr(name)} is not a valid file name: {why_unsafe_name(name)}")
        more = {"folder": folder, "suite_file": folder / about["suite_file"], "suite_text": "", "scripts": scripts}
        submission: Submission = from_dict(Submission, {"num_cases": 0} | about | more)
        if submission.scheduler not in batch_systems.BATCH_SYSTEMS:
            raise ValueError(f"it has the unknown scheduler {short_repr(submission.scheduler)}")
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"cannot read {file}: {error}") from error
    return submission


def submitted_suite(submission: Submission, nodes: int = 0) -> Suite:
    """Load the submitted suite, or its cases with `nodes` nodes."""
    return load_suite(submission.suite_file, [*submission.overrides, *([f"nodes={nodes}"] if nodes else [])])


def cancel_jobs(results: Path) -> list[str]:
    """Cancel the jobs of a results folder; return their ids. Raises BadInput if it has none, or SchedulerError."""
    submission_folders(results)
    active = set(active_jobs(results))
    jobs = [job for job in submitted_jobs(results) if job.job_id in active]
    _cancel_at_each_scheduler(jobs)
    return [job.job_id for job in jobs]


def _cancel_at_each_scheduler(jobs: Sequence[SubmittedJob]) -> None:
    for name in dict.fromkeys(job.scheduler for job in jobs):
        batch_systems.BATCH_SYSTEMS[name].cancel([job.job_id for job in jobs if job.scheduler == name])


def active_jobs(results: Path, kinds: Sequence[str] = ("campaign", "report")) -> list[str]:
    """Return the ids of queued and running jobs of these kinds."""
    states = job_states([job for job in submitted_jobs(results) if job.kind in kinds])
    return list(dict.fromkeys(scheduler.base_job_id(state.id) for state in states if not state.ended))


def resubmit_unfinished(
    results: Path, dry_run: bool = False, on_taken: Callable[[SubmittedJob], None] = lambda job: None
) -> list[SubmittedJob]:
    """Submit again scripts with missing cases and no queued job, and reports that were refused or killed.

    The jobs skip cases that are done.

    Args:
        dry_run: submit nothing; the returned jobs have the id "".
        on_taken: called with each accepted job.

    Raises:
        BadInput: nothing was submitted, or all cases are done or queued.
        SchedulerError: the scheduler does not answer or refused a job; `ReportJobRefused` if only the report was
        refused.
    """
    folders = submission_folders(results)
    jobs = submitted_jobs(results)
    states = job_states(jobs)
    active = {scheduler.base_job_id(state.id) for state in states if not state.ended}
    taken: list[SubmittedJob] = []
    running = 0
    for folder in folders:
        submission = read_submission(folder)
        own = [job for job in jobs if job.script.startswith(f"{folder.name}/")]
        at_work = [job.job_id for job in own if job.kind == "campaign" and job.job_id in active]
        left: dict[str, int] = {}
        for script in submission.scripts:
            if script.kind == "campaign" and not at_work:
                counts = count_cases(results, submitted_suite(submission, script.chosen_nodes))
                left[script.name] = max(one.num_to_measure for one in counts)
                running += sum(one.running for one in counts)
        chosen = [script for script in submission.scripts if left.get(script.name)]
        if chosen or _report_is_missing(results, own, states):
            chosen += [script for script in submission.scripts if script.kind == "report"]
        if chosen and not dry_run:
            # They would run too early, and they count against the user's limits.
            waiting = {scheduler.base_job_id(state.id) for state in states if state.state == "PENDING"}
            _cancel_at_each_scheduler([job for job in own if job.kind == "report" and job.job_id in waiting])
        taken += _resubmit(submission, chosen, left, at_work, dry_run, on_taken)
    if not taken:
        raise BadInput(f"nothing to resume for '{results}': {_nothing_to_resume_reason(active, running)}")
    return taken


def _report_is_missing(results: Path, own: list[SubmittedJob], states: list[JobState]) -> bool:
    """Whether the report of a submission (its jobs: `own`) was refused, or ended without a report."""
    if not own or own[-1].kind != "report":
        return True  # it runs after all other jobs
    state = next(state for state in states if scheduler.base_job_id(state.id) == own[-1].job_id)
    if state.state == "GONE":
        return not (results / "report" / "index.html").is_file()
    return state.ended and state.state != "COMPLETED"


def _nothing_to_resume_reason(active: set[str], running: int) -> str:
    if active:
        return f"jobs {', '.join(sorted(active))} are still queued or running; wait for them"
    if running:
        minutes = claims.DEAD_AFTER_S / 60
        return (
            f"{units.count_text(running, 'case')} may still run on other nodes. Killed cases are recognised after "
            f"{minutes:.0f} minutes: run the same command again after this time. All other cases have ended"
        )
    return "every case was measured or ran out of memory (use `dlbench run --fresh` to measure again)"


def _resubmit(
    submission: Submission,
    chosen: list[JobScript],
    left: dict[str, int],
    at_work: list[str],
    dry_run: bool,
    on_taken: Callable[[SubmittedJob], None],
) -> list[SubmittedJob]:
    """Submit the selected scripts of a submission, the report after the running jobs."""
    taken: list[SubmittedJob] = []
    for script in chosen:
        if dry_run:
            path = f"{submission.folder.name}/{script.name}"
            job = SubmittedJob("", script.kind, path, submission.suite, submission.site, "", "", "")
        else:
            array = _array_option(script, left[script.name]) if script.array > 1 else None
            before = [*at_work, *(job.job_id for job in taken)] if script.kind == "report" else []
            job = _submit_script(submission, script, before, array)
        taken.append(job)
        on_taken(job)
    return taken


def _array_option(script: JobScript, left: int) -> str:
    """Return the array option, such as `0-3%2`: 4 tasks, 2 at once; at most one task per missing case.

    An array of one stays an array, so that the name of its output is the same.
    """
    tasks = min(script.array, left)
    return f"0-{tasks - 1}{f'%{script.throttle}' if script.throttle and script.throttle < tasks else ''}"


def parse_array_option(text: str) -> tuple[int, int | None]:
    """Parse the number of tasks and the throttle from ``8`` or ``8%2``. Raises BadInput for another form."""
    found = _ARRAY_SPEC.fullmatch(text)
    if not found:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise BadInput(f"--array {shown!r}: use N or N%M (N jobs, at most M at once), such as 8%2")
    return int(found[1]), int(found[2]) if found[2] else None


def check_array_size(tasks: int, limit: int | None) -> None:
    """Raise BadInput if there are more tasks than `limit`, which is Slurm's MaxArraySize; None: no limit."""
    if limit is not None and tasks > limit:
        raise BadInput(
            f"--array {tasks}: this Slurm accepts at most {limit} tasks per array (MaxArraySize); use a smaller N"
        )
