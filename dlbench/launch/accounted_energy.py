"""The energy that Slurm accounted for a job (ConsumedEnergy), beside the energy that dlbench measured in it.

Slurm counts all nodes over the whole job, dlbench its devices within the timed windows: Slurm's must be larger.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from dlbench.launch import attempts, jobs, scheduler
from dlbench.launch.scheduler import SchedulerError


def add_job_energy(found: list[jobs.SubmissionStatus], results: Path) -> list[jobs.SubmissionStatus]:
    """Return the states with the energy of each ended job of Slurm."""
    ended = {job.job_id for one in found for job, state in one.jobs if state.ended and job.scheduler == "slurm"}
    accounted, bases = sacct_energy(ended)
    measured = _measured_job_energy_j(results, bases)
    energies = {job_id: jobs.JobEnergy(accounted.get(job_id), measured.get(job_id)) for job_id in ended}
    own = [[job.job_id for job, _ in one.jobs if job.job_id in ended] for one in found]
    return [dataclasses.replace(one, energy={i: energies[i] for i in ids}) for one, ids in zip(found, own, strict=True)]


def sacct_energy(job_ids: Iterable[str]) -> tuple[dict[str, float], dict[str, str]]:
    """Return the energy of each job [J] by sacct, and the job id of each array task's own id.

    Jobs without accounted energy are missing.
    """
    wanted = ",".join(sorted(job_ids))
    if not wanted:
        return {}, {}
    argv = ["sacct", "--noheader", "--parsable2", "--format=JobID,JobIDRaw,ConsumedEnergyRaw", f"--jobs={wanted}"]
    try:
        answer = scheduler.call_scheduler(argv)
    except SchedulerError:
        return {}, {}  # no accounting
    whole: dict[str, float] = {}  # of a job or array task
    steps: dict[str, float] = {}
    bases: dict[str, str] = {}
    for line in answer.splitlines():
        job_id, raw_id, text = (*line.strip().split("|"), "", "")[:3]
        bases[raw_id] = scheduler.base_job_id(job_id)
        energy_j = float(text) if text.isdecimal() else 0.0
        task, dot, _ = job_id.partition(".")
        into = steps if dot else whole
        into[task] = into.get(task, 0.0) + energy_j
    found: dict[str, float] = {}
    for task in whole | steps:
        # Older versions account steps only. Without an energy plugin both are 0.
        energy_j = whole.get(task) or steps.get(task, 0.0)
        if energy_j:
            found[scheduler.base_job_id(task)] = found.get(scheduler.base_job_id(task), 0.0) + energy_j
    return found, bases


def _measured_job_energy_j(results: Path, bases: Mapping[str, str]) -> dict[str, float]:
    """Return the energy that was measured in each job [J], over all its attempts."""
    found: dict[str, float] = {}
    for folder, head in attempts.find_closed_attempts(results):
        for system, measurement in attempts.read_full_record(folder, head).ranks:
            job_id = bases.get(system.slurm_job_id or "", system.slurm_job_id)
            if job_id and measurement.energy_j is not None:
                found[job_id] = found.get(job_id, 0.0) + measurement.energy_j
    return found
