"""Slurm's commands, called and read: sbatch, squeue, scontrol, scancel, and sacct where accounting is on."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlbench.errors import DlbenchError

#: Slurm's client commands can block while the controller is away [s].
TIMEOUT_S = 60.0
#: States of a job that will not run any more.
ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
         "REVOKED", "TIMEOUT", "GONE")  # fmt: skip

#: A step that Slurm failed is tried so often, with this pause at least, and waits at most so long for the controller
#: where Slurm does not tell the job when it ends [s].
STEP_TRIES = 5
PAUSE_S = 10.0
PATIENCE_S = 3600.0
#: How srun says that no step was made, and that a node of it died.
_NOT_STARTED = re.compile(
    r"^srun: (?:error: )?(.*(?:Unable to confirm allocation|Unable to create step|Unable to contact slurm controller|"
    r"Expired or invalid job|Socket timed out|Slurm job \d+ has expired|Zero Bytes were transmitted).*)",
    re.MULTILINE,
)
_NODE_FAILED = re.compile(
    r"^(?:srun|slurmstepd\S*): (?:error: )?(.*(?:Node failure on|DUE TO NODE FAILURE).*)", re.MULTILINE
)
#: What the record of a case begins with whose step Slurm failed.
STEP_FAILED = "Slurm failed its step: "
#: States of a job that say nothing about the case that it measured.
_NODE_LOST = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED")


class SchedulerError(DlbenchError):
    """Slurm is not there, or refused what it was asked."""


@dataclass(frozen=True)
class JobState:
    """What Slurm says of a job, or of one task of an array."""

    id: str  # 17, or 17_3, or 17_[4-9%2]
    state: str  # PENDING, RUNNING, ...; GONE where Slurm remembers nothing
    reason: str = ""
    elapsed: str = ""
    limit: str = ""
    nodes: str = ""

    @property
    def ended(self) -> bool:
        """Whether the job will not run any more."""
        return self.state in ENDED


def sbatch_argv(script: Path, dependency: str | None = None, array: str | None = None) -> list[str]:
    """The command that submits a script.

    Args:
        script: the file.
        dependency: such as ``afterany:17``.
        array: replaces the script's own array, such as ``0-3%2``.
    """
    options = [f"--dependency={dependency}"] if dependency else []
    options += [f"--array={array}"] if array else []
    return ["sbatch", "--parsable", *options, str(script)]


def submit(script: Path, dependency: str | None = None, array: str | None = None) -> str:
    """Hand a script to sbatch as `sbatch_argv` says; gives the job's id.

    Raises:
        SchedulerError: sbatch refused it.
    """
    # Submitted from inside a job, sbatch would take that job's settings for its own.
    answer = call(sbatch_argv(script, dependency, array), environment=without_job(os.environ))
    job_id = answer.strip().splitlines()[-1].partition(";")[0] if answer.strip() else ""
    if not job_id.isdigit():
        raise SchedulerError(f"sbatch gave no job id for {script}, but: {answer.strip() or 'nothing'}")
    return job_id


def states(job_ids: Sequence[str]) -> list[JobState]:
    """The state of these jobs, one entry per queued or running array task; an ended job is one entry.

    Raises:
        SchedulerError: squeue does not answer.
    """
    if not job_ids:
        return []
    answer = call(["squeue", "--noheader", "--user", str(os.getuid()), "--format=%i|%T|%r|%M|%l|%N"])
    queued = [JobState(*line.strip().split("|", 5)) for line in answer.splitlines() if line.count("|") >= 5]
    found = []
    for job_id in job_ids:
        tasks = [job for job in queued if base_id(job.id) == job_id]
        found += tasks or [ended_state(job_id)]
    return found


def ended_state(job_id: str) -> JobState:
    """What is still known of a job that has left the queue: from scontrol, then from sacct, then nothing."""
    try:
        # The controller forgets a job after some minutes (MinJobAge).
        answer = call(["scontrol", "-o", "show", "job", job_id])
    except SchedulerError:
        return _accounted(job_id)
    seen = re.findall(r"\bJobState=(\w+)", answer)
    worst = next((state for state in seen if state != "COMPLETED"), "COMPLETED")
    return JobState(job_id, worst if seen else "GONE")


def _accounted(job_id: str) -> JobState:
    try:
        answer = call(["sacct", "--noheader", "--allocations", "--parsable2", "--format=State", "--jobs", job_id])
    except SchedulerError:
        return JobState(job_id, "GONE")
    # Such as "CANCELLED by 1000".
    seen = [line.split()[0] for line in answer.splitlines() if line.strip()]
    return JobState(job_id, next((state for state in seen if state != "COMPLETED"), seen[0] if seen else "GONE"))


def cancel(job_ids: Iterable[str]) -> None:
    """End these jobs, queued or running.

    Raises:
        SchedulerError: scancel refused.
    """
    call(["scancel", *job_ids])


def end_steps(name: str) -> int:
    """End the steps called `name` of the job around this process, on all of its nodes; gives how many there were.

    A step outlives its srun: were that killed, the ranks on other nodes would go on, and hold the next case's cores.
    """
    job_id = os.environ.get("SLURM_JOB_ID")
    if not job_id:
        return 0
    try:
        answer = call(["squeue", "--noheader", "--steps", f"--jobs={job_id}", "--format=%i|%j"])
        steps = [line.strip().partition("|")[0] for line in answer.splitlines() if line.strip().endswith(f"|{name}")]
        if steps:
            call(["scancel", *steps])
    except SchedulerError:
        return 0  # inside of a container there are no commands of Slurm
    return len(steps)


def step_failure(said: str, began: bool = False) -> str | None:
    """Why Slurm itself ended a step or did not start it, in its words; None where srun says nothing of that.

    Args:
        said: the end of what srun has written to stderr.
        began: whether something ran in the step: srun may complain of a slow controller then, and go on.
    """
    found = _NODE_FAILED.search(said) or (None if began else _NOT_STARTED.search(said))
    return found[1].strip("* ") if found else None


def wait_for_controller(working: Callable[[], None] = lambda: None) -> bool:
    """Wait until Slurm's controller answers, for as long as this job has; gives whether it does.

    Args:
        working: called now and then, to show that this process is alive.
    """
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    left_s = float(end) - time.time() if end.isdecimal() else PATIENCE_S
    until = time.monotonic() + min(left_s, PATIENCE_S)
    while True:
        time.sleep(PAUSE_S)
        working()
        try:
            if " UP" in call(["scontrol", "ping"]):
                return True
        except SchedulerError:
            pass  # it ends so where the controller is down, and hangs where it is stopped
        if time.monotonic() > until:
            return False


def this_job() -> dict[str, Any]:
    """The job around this process and how often it was requeued, for the owner of an attempt; {} outside of a job."""
    job_id = os.environ.get("SLURM_JOB_ID")
    return {"slurm_job_id": job_id, "slurm_restarts": os.environ.get("SLURM_RESTART_COUNT", "0")} if job_id else {}


def why_job_was_lost(owner: Mapping[str, Any]) -> str | None:
    """What ended the job of an attempt that was left open, where that says nothing about its case; else None.

    Args:
        owner: what `this_job` gave to it, among other things.
    """
    job_id, now = owner.get("slurm_job_id"), this_job()
    if not isinstance(job_id, str) or not job_id.isdecimal():
        return None
    if now.get("slurm_job_id") == job_id:
        if now["slurm_restarts"] == owner.get("slurm_restarts"):
            return None
        return f"job {job_id} was requeued while this case ran: its node failed, or it was preempted"
    state = ended_state(job_id).state
    return f"job {job_id} ended as {state} while this case ran" if state in _NODE_LOST else None


def max_array_size() -> int | None:
    """One more than the highest index of an array's task; None where Slurm does not say."""
    try:
        answer = call(["scontrol", "show", "config"])
    except SchedulerError:
        return None
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer, re.MULTILINE)
    return int(found.group(1)) if found else None


def base_id(job_id: str) -> str:
    """`17` of `17_3` and of `17_[4-9%2]`."""
    return job_id.partition("_")[0]


def without_job(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what a surrounding job has put into it; where Slurm's configuration is, stays.

    Outside of a job all of it stays: SBATCH_ACCOUNT or SLURM_JWT are then the user's own.
    """
    if "SLURM_JOB_ID" not in environment:
        return dict(environment)
    return {
        name: value
        for name, value in environment.items()
        if name == "SLURM_CONF" or not name.startswith(("SLURM_", "SRUN_", "SBATCH_"))
    }


def call(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """What a command of Slurm prints.

    Raises:
        SchedulerError: it is not installed, does not answer or refuses; in Slurm's own words.
    """
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise SchedulerError(f"{argv[0]} is not on PATH: run this on a login node of the cluster") from None
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"{argv[0]} gave no answer within {TIMEOUT_S:.0f} s: is Slurm's controller up?") from None
    if done.returncode != 0:
        said = " ".join(line.removeprefix(f"{argv[0]}: error: ") for line in done.stderr.strip().splitlines())
        raise SchedulerError(f"{argv[0]} failed: {said or f'exit status {done.returncode}'}")
    return done.stdout
