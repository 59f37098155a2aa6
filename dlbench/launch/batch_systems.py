"""The batch systems that run campaigns, each as one record of functions.

`jobs` and `each_node` use these functions only; the site's profile chooses the system.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dlbench.launch import pbs, scheduler, slurm
from dlbench.launch.job_script import Job
from dlbench.launch.scheduler import JobState, SchedulerError, base_job_id
from dlbench.launch.sites import Site


@dataclass(frozen=True)
class BatchSystem:
    """One batch system: its scripts and its commands."""

    title: str
    campaign_script: Callable[[Site, Job], str]
    report_script: Callable[[Site, Job], str]
    #: From a script, a dependency such as `afterany:17`, and an array such as `0-3%2`, which replaces the script's own.
    submit_argv: Callable[[Path, str | None, str | None], list[str]]
    queued: Callable[[], list[JobState]]
    query_ended_state: Callable[[str], JobState]
    cancel_command: str
    node_states: Callable[[str | None], dict[str, str]]
    restrict_jobs_to_node: Callable[[Site, str], Site]
    max_array_size: Callable[[], int | None] = lambda: None

    def submit(self, script: Path, dependency: str | None = None, array: str | None = None) -> str:
        """Submit a script; return the job id. Raises SchedulerError if it was refused."""
        argv = self.submit_argv(script, dependency, array)
        # Inside a job, the new job would inherit that job's settings.
        answer = scheduler.call_scheduler(argv, environment=scheduler.without_job_variables(os.environ))
        job_id = base_job_id(answer.strip().splitlines()[-1]) if answer.strip() else ""
        if not job_id:
            raise SchedulerError(f"{argv[0]} printed no job id for {script}: {answer.strip() or 'nothing'}")
        return job_id

    def cancel(self, job_ids: Iterable[str]) -> None:
        """Cancel these jobs, queued or running. Raises SchedulerError if the system refuses."""
        scheduler.call_scheduler([self.cancel_command, *job_ids])

    def states(self, job_ids: Iterable[str]) -> list[JobState]:
        """The states of jobs: one per waiting or running array task, or ended job. Raises SchedulerError."""
        job_ids = list(job_ids)
        waiting: dict[str, list[JobState]] = {}
        for state in self.queued() if job_ids else []:
            waiting.setdefault(base_job_id(state.id), []).append(state)
        return [state for job_id in job_ids for state in waiting.get(job_id) or [self.query_ended_state(job_id)]]


BATCH_SYSTEMS = {
    "slurm": BatchSystem(
        title="Slurm",
        campaign_script=slurm.campaign_script,
        report_script=slurm.report_script,
        submit_argv=scheduler.sbatch_argv,
        queued=scheduler.queued_jobs,
        query_ended_state=scheduler.query_ended_state,
        cancel_command="scancel",
        node_states=scheduler.node_states,
        restrict_jobs_to_node=slurm.restrict_jobs_to_node,
        max_array_size=scheduler.max_array_size,
    ),
    "pbs": BatchSystem(
        title="PBS",
        campaign_script=pbs.campaign_script,
        report_script=pbs.report_script,
        submit_argv=pbs.submit_argv,
        queued=pbs.queued_jobs,
        query_ended_state=pbs.query_ended_state,
        cancel_command="qdel",
        node_states=pbs.node_states,
        restrict_jobs_to_node=pbs.restrict_jobs_to_node,
    ),
}
