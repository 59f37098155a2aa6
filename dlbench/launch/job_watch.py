"""Watching of campaigns: jobs that cannot start, waiting for the end, and all campaigns below a folder."""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlbench.launch import batch_systems, each_node, jobs, scheduler
from dlbench.launch.case_counts import CaseCounts, count_cases
from dlbench.launch.scheduler import JobState, SchedulerError

#: Pause between two looks at the queue [s], and before the second look at a new job.
PAUSE_S, SETTLE_S = 20.0, 2.0
#: A scheduler that fails so many times in a row ends the waiting.
MAX_FAILURES = 90
#: Reasons for which a job waits until somebody changes something, with their meaning.
_BLOCKING_REASONS = {
    r"PartitionTimeLimit": "its time limit exceeds the partition's limit",
    r"PartitionNodeLimit": "it needs more or fewer nodes than the partition allows",
    r"BadConstraints|NodeNotAvail|Can Never Run.*": "no node has the resources that it requests",
    r"(?:QOS|Assoc|Association)\w*PerJob\w*|MaxMemPerLimit|QOS\w*NotSatisfied": "it exceeds the limit for one job",
    r"(?:QOS|Assoc)\w*PerUser\w*": "it exceeds the limit for one user",
    r"Invalid(?:Account|QOS)|(?:Account|QOS)NotAllowed": "the account or QOS may not use this partition",
    r"DependencyNeverSatisfied": "it depends on a job that failed",
    r"JobHeld\w*": "the job is held",
}
#: Folders inside a results folder that contain no campaign.
_FOLDERS_NOT_SEARCHED = ("attempts", "jobs", "report", "profiles", "claims")
_SUMMED_COUNTS = ("total", "done", "running", "failed", "out_of_memory")
#: Campaigns are searched so many levels below a folder.
_MAX_DEPTH = 4


@dataclass(frozen=True)
class CampaignSummary:
    """One suite in a results folder, or in the folders of all its nodes."""

    folder: str
    suite: str
    counts: CaseCounts  # summed over nodes
    active_jobs: int
    nodes: int  # 0: not measured node by node


def blocking_reason(state: JobState, queued: Sequence[JobState] = ()) -> str | None:
    """Return why a waiting job cannot start before something is changed; None if it only has to wait.

    Args:
        queued: all jobs of this user; while one runs, a limit per user may only be in use.
    """
    if state.state != "PENDING":
        return None
    for pattern, meaning in _BLOCKING_REASONS.items():
        if found := re.match(pattern, state.reason.strip()):
            in_use = "PerUser" in found[0] and any(job.state == "RUNNING" for job in queued)
            return None if in_use else f"{found[0]} ({meaning})"
    return None


def blocked_job_lines(submitted: Sequence[jobs.SubmittedJob]) -> list[str]:
    """Look at new jobs in the queue; return one line for each reason why some cannot start.

    The scheduler may need a moment: jobs without a reason are looked at twice.
    """
    measuring = {job.job_id for job in submitted if job.kind == "campaign"}
    for pause_s in (0.0, SETTLE_S):
        time.sleep(pause_s)
        try:
            queued = _queued_jobs(submitted)
        except SchedulerError:
            return []
        states = [state for state in queued if scheduler.base_job_id(state.id) in measuring]
        if not any(state.state == "PENDING" and state.reason in ("", "None") for state in states):
            break
    stuck: dict[str, list[str]] = {}
    for state in states:
        if reason := blocking_reason(state, queued):
            stuck.setdefault(reason, []).append(state.id)
    return [
        f"job {ids[0]}{f' and {len(ids) - 1} more' if ids[1:] else ''} cannot start: {reason}; "
        f"cancel {'these jobs' if ids[1:] else 'this job'}, correct the cause, and submit again"
        for reason, ids in stuck.items()
    ]


def wait_for_jobs(
    folders: Sequence[Path], on_change: Callable[[list[CampaignSummary]], None], on_problem: Callable[[str], None]
) -> bool:
    """Wait until no job of these results folders is queued or running; return whether all their cases have ended.

    Args:
        folders: results folders with submissions.
        on_change: called at first, and when the numbers changed.
        on_problem: called with a message when the scheduler does not answer, and for jobs that cannot start.

    Raises:
        SchedulerError: the scheduler failed `MAX_FAILURES` times in a row.
    """
    shown: list[CampaignSummary] = []
    failures = 0
    known: set[str] = set()
    while True:
        try:
            waiting = _queued_jobs(_all_submitted_jobs(folders))
            failures = 0
        except SchedulerError as error:
            failures += 1
            if failures == 1:
                on_problem(f"{error}; trying again")
            if failures >= MAX_FAILURES:
                raise
            time.sleep(PAUSE_S)
            continue
        ids = {job.job_id for job in _all_submitted_jobs(folders)}
        for state in waiting:
            reason = blocking_reason(state, waiting) if scheduler.base_job_id(state.id) in ids else None
            if reason and state.id not in known:
                known.add(state.id)
                on_problem(f"job {state.id} cannot start: {reason}")
        found = summarize_campaigns(folders, waiting)
        if found != shown:
            on_change(found)
            shown = found
        if not any(one.active_jobs for one in found):
            return all(one.counts.num_to_measure == 0 for one in found)
        time.sleep(PAUSE_S)


def summarize_campaigns(folders: Sequence[Path], waiting: Sequence[JobState] | None = None) -> list[CampaignSummary]:
    """Summarise the submissions of these results folders; folders of single nodes are summed up.

    Args:
        folders: as `results_folders_below` gives them.
        waiting: all queued and running jobs of this user; None asks the scheduler, and counts none if it fails.
    """
    if waiting is None:
        try:
            waiting = _queued_jobs(_all_submitted_jobs(folders))
        except SchedulerError:
            waiting = []
    active = {scheduler.base_job_id(state.id) for state in waiting}
    sums: dict[tuple[str, str], list[tuple[CaseCounts, int, bool]]] = {}
    for folder in folders:
        for submission in map(jobs.read_submission, jobs.submission_folders(folder)):
            own = [job for job in jobs.submitted_jobs(folder) if job.script.startswith(f"{submission.folder.name}/")]
            running = sum(job.job_id in active for job in own)
            root, is_node = _find_fleet_folder(folder)
            for number, one in enumerate(count_cases(folder, jobs.submitted_suite(submission))):
                sums.setdefault((str(root), submission.suite), []).append((one, 0 if number else running, is_node))
    found = []
    for (folder_name, suite), parts in sums.items():
        counts, running_jobs, nodes = zip(*parts, strict=True)
        totals = {name: sum(getattr(one, name) for one in counts) for name in _SUMMED_COUNTS}
        found.append(CampaignSummary(folder_name, suite, CaseCounts(**totals), sum(running_jobs), sum(nodes)))
    return found


def results_folders_below(root: Path) -> list[Path]:
    """Return the results folders with submissions, `root` itself or below it."""
    return sorted(_subfolders_to_search(root, _MAX_DEPTH))


def _subfolders_to_search(folder: Path, depth: int) -> Iterator[Path]:
    submitted = next((folder / "jobs").glob("*/submission.json"), None) is not None
    if submitted:
        yield folder
    if depth == 0:
        return
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for name in names:
        # A results folder holds only the results of its nodes and GPUs.
        of_unit = name == each_node.NODES_FOLDER or re.fullmatch(r"gpu\d+", name)
        inside = of_unit if submitted else name not in _FOLDERS_NOT_SEARCHED
        if inside and not name.startswith("."):
            yield from _subfolders_to_search(folder / name, depth - 1)


def _find_fleet_folder(folder: Path) -> tuple[Path, bool]:
    """Return the results folder of a fleet for the folder of one of its nodes or GPUs, and whether it is one."""
    for parent in (folder.parent, folder.parent.parent):
        if parent.name == each_node.NODES_FOLDER:
            return parent.parent, True
    return folder, False


def _all_submitted_jobs(folders: Sequence[Path]) -> list[jobs.SubmittedJob]:
    return [job for folder in folders for job in jobs.submitted_jobs(folder)]


def _queued_jobs(submitted: Sequence[jobs.SubmittedJob]) -> list[JobState]:
    """All jobs of this user in the batch systems that took these jobs. Raises SchedulerError if one is silent."""
    return [
        state
        for name in sorted({job.scheduler for job in submitted})
        for state in batch_systems.BATCH_SYSTEMS[name].queued()
    ]
