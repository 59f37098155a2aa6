"""Calls of the scheduler, and of Slurm's commands: sbatch, squeue, scontrol, scancel, and sacct if accounting is on."""

import getpass
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlbench.errors import DlbenchError

#: Timeout of Slurm's commands, which block while the controller is down [s].
TIMEOUT_S = 60.0
#: States of an ended job.
ENDED_STATES = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
         "REVOKED", "TIMEOUT", "GONE")  # fmt: skip

#: Attempts for a step that Slurm failed to start, pause between them [s], longest wait for the controller [s].
STEP_TRIES = 5
PAUSE_S = 10.0
CONTROLLER_TIMEOUT_S = 3600.0
#: Messages of srun: no step was created; a node of the step died.
_STEP_NOT_STARTED = re.compile(
    r"^srun: (?:error: )?(.*(?:Unable to confirm allocation|Unable to create step|Unable to contact slurm controller|"
    r"Expired or invalid job|Socket timed out|Slurm job \d+ has expired|Zero Bytes were transmitted).*)",
    re.MULTILINE,
)
_NODE_FAILED = re.compile(
    r"^(?:srun|slurmstepd\S*): (?:error: )?(.*(?:Node failure on|DUE TO NODE FAILURE).*)", re.MULTILINE
)
#: Prefix of the error in a record whose step Slurm failed.
STEP_FAILED_PREFIX = "Slurm failed its step: "
#: Job states that are not caused by the measured case.
_NODE_LOST_STATES = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED")


class SchedulerError(DlbenchError):
    """The scheduler is not installed, does not answer, or refused a request."""


@dataclass(frozen=True)
class JobState:
    """State of a job, or of one task of an array, from Slurm."""

    id: str  # 17, or 17_3, or 17_[4-9%2]
    state: str  # PENDING, RUNNING, ...; GONE where Slurm remembers nothing
    reason: str = ""
    elapsed: str = ""
    limit: str = ""
    nodes: str = ""

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self.state in ENDED_STATES


def sbatch_argv(script: Path, dependency: str | None = None, array: str | None = None) -> list[str]:
    """Return the command that submits a script; see `BatchSystem.submit_argv`."""
    options = [f"--dependency={dependency}"] if dependency else []
    options += [f"--array={array}"] if array else []
    return ["sbatch", "--parsable", *options, str(script)]


def queued_jobs() -> list[JobState]:
    """All jobs and array tasks of this user that are queued or running. Raises SchedulerError if squeue is silent."""
    answer = call_scheduler(["squeue", "--noheader", "--user", str(os.getuid()), "--format=%i|%T|%r|%M|%l|%N"])
    return [JobState(*line.strip().split("|", 5)) for line in answer.splitlines() if line.count("|") >= 5]


def query_ended_state(job_id: str) -> JobState:
    """Return the state of a job that left the queue, from scontrol or sacct if they still list it."""
    try:
        # The controller deletes a job after some minutes (MinJobAge).
        answer = call_scheduler(["scontrol", "-o", "show", "job", job_id])
    except SchedulerError:
        return _sacct_state(job_id)
    return JobState(job_id, job_state_from_tasks(re.findall(r"\bJobState=(\w+)", answer)))


def _sacct_state(job_id: str) -> JobState:
    argv = ["sacct", "--noheader", "--allocations", "--parsable2", "--format=State", "--jobs", job_id]
    try:
        lines = call_scheduler(argv).splitlines()
    except SchedulerError:
        lines = []
    return JobState(
        job_id, job_state_from_tasks([line.split()[0] for line in lines if line.strip()])
    )  # CANCELLED by 1000


def job_state_from_tasks(states: Sequence[str]) -> str:
    """Return the state of a job from those of its tasks: the first that did not complete; GONE without any."""
    return next((state for state in states if state != "COMPLETED"), "COMPLETED" if states else "GONE")


def cancel_steps(name: str) -> int:
    """Cancel the steps called `name` of the current job, on all of its nodes; return their number.

    A step outlives a killed srun: its ranks on other nodes would keep the cores of the next case busy.
    """
    job_id = os.environ.get("SLURM_JOB_ID")
    if not job_id:
        return 0
    try:
        answer = call_scheduler(["squeue", "--noheader", "--steps", f"--jobs={job_id}", "--format=%i|%j"])
        steps = [line.strip().partition("|")[0] for line in answer.splitlines() if line.strip().endswith(f"|{name}")]
        if steps:
            call_scheduler(["scancel", *steps])
    except SchedulerError:
        return 0  # Slurm's commands are missing inside a container
    return len(steps)


def step_failure_message(said: str, began: bool = False) -> str | None:
    """Return Slurm's message why it ended or did not start a step; None if srun printed no such message.

    Args:
        said: end of srun's stderr.
        began: whether the step ran; srun may then warn about a slow controller and go on.
    """
    found = _NODE_FAILED.search(said) or (None if began else _STEP_NOT_STARTED.search(said))
    return found[1].strip("* ") if found else None


def wait_for_controller(working: Callable[[], None] = lambda: None) -> bool:
    """Wait until Slurm's controller answers or the job ends; return whether it does. Calls `working` regularly."""
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    left_s = float(end) - time.time() if end.isdecimal() else CONTROLLER_TIMEOUT_S
    until = time.monotonic() + min(left_s, CONTROLLER_TIMEOUT_S)
    while True:
        time.sleep(PAUSE_S)
        working()
        try:
            if " UP" in call_scheduler(["scontrol", "ping"]):
                return True
        except SchedulerError:
            pass  # the command fails if the controller is down, and hangs if it is stopped
        if time.monotonic() > until:
            return False


def current_job() -> dict[str, Any]:
    """Return the current job id and its restart count, for the owner of an attempt; {} outside a job."""
    job_id = os.environ.get("SLURM_JOB_ID")
    return {"slurm_job_id": job_id, "slurm_restarts": os.environ.get("SLURM_RESTART_COUNT", "0")} if job_id else {}


def job_loss_reason(owner: Mapping[str, Any]) -> str | None:
    """Why the job of an open attempt with this `owner` ended (see `current_job`), if not by the case; else None."""
    job_id, now = owner.get("slurm_job_id"), current_job()
    if not isinstance(job_id, str) or not job_id.isdecimal():
        return None
    if now.get("slurm_job_id") == job_id:
        if now["slurm_restarts"] == owner.get("slurm_restarts"):
            return None
        return f"job {job_id} was requeued while this case ran, because its node failed or the job was preempted"
    state = query_ended_state(job_id).state
    return f"job {job_id} ended with state {state} while this case ran" if state in _NODE_LOST_STATES else None


def node_states(partition: str | None = None) -> dict[str, str]:
    """The state of each node in Slurm. Raises SchedulerError if sinfo does not answer."""
    where = [f"--partition={partition}"] if partition else []
    answer = call_scheduler(["sinfo", "--noheader", "--Node", *where, "--format=%N|%T"])
    pairs = [line.strip().partition("|") for line in answer.splitlines() if "|" in line]
    # A node of several partitions is listed in each.
    return {name: state for name, _, state in pairs}


def max_array_size() -> int | None:
    """Return Slurm's MaxArraySize (highest array index plus one); None if unknown."""
    try:
        answer = call_scheduler(["scontrol", "show", "config"])
    except SchedulerError:
        return None
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer, re.MULTILINE)
    return int(found.group(1)) if found else None


def base_job_id(job_id: str) -> str:
    """Return the id of the whole job: `17` for `17_3` and `17_[4-9%2]`, `17[]` for PBS's `17[3].server`."""
    found = re.match(r"\s*(\d+)(\[)?", job_id)
    return f"{found[1]}{'[]' if found[2] else ''}" if found else ""


def user_name() -> str:
    """Return the name of this user; its number where the system knows no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def without_job_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the variables of the current job; the place of Slurm's configuration stays.

    Outside a job nothing is removed: SBATCH_ACCOUNT or SLURM_JWT are then settings of the user.
    """
    if "SLURM_JOB_ID" not in environment:
        return dict(environment)
    return {
        name: value
        for name, value in environment.items()
        if name == "SLURM_CONF" or not name.startswith(("SLURM_", "SRUN_", "SBATCH_"))
    }


def call_scheduler(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Run a command of the scheduler; return its output. Raises SchedulerError, with its message, if it fails."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise SchedulerError(f"{argv[0]} is not on PATH; run this on a login node of the cluster") from None
    except subprocess.TimeoutExpired:
        raise SchedulerError(
            f"{argv[0]} gave no answer within {TIMEOUT_S:.0f} s; check the scheduler with `scontrol ping` (Slurm) or "
            f"`qstat -B` (PBS)"
        ) from None
    if done.returncode != 0:
        said = " ".join(line.removeprefix(f"{argv[0]}: error: ") for line in done.stderr.strip().splitlines())
        raise SchedulerError(f"{argv[0]} failed: {said or f'exit status {done.returncode}'}")
    return done.stdout
