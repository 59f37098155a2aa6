"""PBS Professional and OpenPBS: job scripts, and calls of qsub, qstat, qdel, qselect and pbsnodes.

PBS starts no ranks. On one node dlbench starts them itself, inside the container if there is one:

    [container]  python3 -m dlbench run SUITE --results RESULTS

On several nodes mpirun of the site starts them, without a container; it finds the nodes in PBS_NODEFILE.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dlbench.errors import BadInput
from dlbench.launch import job_script
from dlbench.launch.containers import ContainerWrapping
from dlbench.launch.scheduler import (
    JobState,
    SchedulerError,
    base_job_id,
    call_scheduler,
    job_state_from_tasks,
    user_name,
)
from dlbench.launch.sites import Site

#: States of jobs and subjobs, as qstat prints them.
_STATE_NAMES = {"B": "RUNNING", "E": "RUNNING", "H": "PENDING", "M": "PENDING", "Q": "PENDING", "R": "RUNNING",
           "S": "SUSPENDED", "T": "PENDING", "U": "SUSPENDED", "W": "PENDING"}  # fmt: skip
#: Exit status of a job that a signal ended: 256 and its number, or 128 and its number.
_KILLED_EXIT_CODES = (271, 265, 143, 137)


def campaign_script(site: Site, job: job_script.Job) -> str:
    """The script of the measuring job or array. Raises BadInput if the site lacks something or a path is invalid."""
    _check_job(site, job)
    wrapping = _container_wrapping(site, job, gpus=site.has_gpus)
    inside = job_script.bash_array("inside", [*wrapping.prefix, *site.software.python])
    launcher = " --launcher mpirun" if job.nodes > 1 else ""
    return job_script.assemble_script(
        f"Suite {job.suite} at site {site.name}",
        _campaign_directives(site, job),
        _JOB_ID_CHECK,
        job_script.environment_setup_lines(site, job, wrapping),
        [f"suite={job_script.quote_for_shell(job.suite_file)}", inside],
        [
            "# Check the first node: Python, results folder, mounts, free space. Stop if a check fails.",
            '"${inside[@]}" -m dlbench doctor --node --results "$results"',
        ],
        [
            "# PBS sends no signal before the time limit: `timeout` stops the running case (as preempted); finished "
            "cases are stored.",
            "trap : TERM USR1",
            "status=0",
            f'{_timeout_command(site)}"${{inside[@]}}" -m dlbench run \\\n'
            f'  "$suite"{job_script.override_options(job)} --results "$results"{launcher} || status=$?',
        ],
        ['exit "$status"'],
    )


def report_script(site: Site, job: job_script.Job) -> str:
    """Return the script of the report job, which collects the results; it needs one core and no GPU."""
    wrapping = _container_wrapping(site, job, gpus=False)
    inside = job_script.bash_array("inside", [*wrapping.prefix, *site.software.python])
    memory = f":mem={_pbs_memory(site.report.memory)}" if site.report.memory else ""
    directives = _common_directives(f"{job.suite}-report", site.report.partition or site.pbs.queue, site, job)
    return job_script.assemble_script(
        f"Report of suite {job.suite}",
        [
            *directives,
            f"#PBS -l select=1:ncpus=1{memory}",
            *([f"#PBS -l walltime={site.report.time_limit}"] if site.report.time_limit else []),
        ],
        _JOB_ID_CHECK,
        job_script.environment_setup_lines(site, job, wrapping),
        [
            inside,
            '"${inside[@]}" -m dlbench collect --results "$results"',
            '"${inside[@]}" -m dlbench report "$results" -o "$results/report"',
        ],
    )


_JOB_ID_CHECK = ': "${PBS_JOBID:?is not set: submit this with qsub, or run it with bash inside an interactive job}"'


def restrict_jobs_to_node(site: Site, node: str) -> Site:
    """Return the site with its jobs bound to a node."""
    return replace(site, pbs=replace(site.pbs, resources=(*site.pbs.resources, f"host={node}")))


def submit_argv(file: Path, dependency: str | None = None, array: str | None = None) -> list[str]:
    """Return the command that submits a script; see `BatchSystem.submit_argv`."""
    options = ["-W", f"depend={dependency}"] if dependency else []
    # An array of PBS has two subjobs at least; the second one finds nothing to do.
    options += ["-J", re.sub(r"^0-0\b", "0-1", array)] if array else []
    return ["qsub", *options, str(file)]


def queued_jobs() -> list[JobState]:
    """All jobs and subjobs of this user that are queued or running. Raises SchedulerError if PBS does not answer."""
    ids = call_scheduler(["qselect", "-u", user_name()]).split()
    return [state for state in _query_job_states(ids) if not state.ended] if ids else []


def query_ended_state(job_id: str) -> JobState:
    """Return the state of a job that left the queue, if PBS keeps a history."""
    try:
        found = _query_job_states([job_id], "-x")
    except SchedulerError:
        found = []
    return JobState(job_id, job_state_from_tasks([state.state for state in found]))


def node_states(queue: str | None = None) -> dict[str, str]:
    """The state of each node; PBS binds none to a queue, so `queue` has no effect. Raises SchedulerError."""
    found: dict[str, str] = {}
    name = ""
    for line in call_scheduler(["pbsnodes", "-a"]).splitlines():
        if line and not line[0].isspace():
            name = line.strip()
        elif name and line.strip().startswith("state = "):
            found[name] = line.partition("=")[2].strip()
    return found


def _query_job_states(ids: Sequence[str], *options: str) -> list[JobState]:
    """Read `qstat -f`: blocks of `key = value`, with long values continued after a tab."""
    text = call_scheduler(["qstat", "-f", "-t", *options, *ids]).replace("\n\t", "")
    states = [_parse_job_state(block) for block in re.split(r"^(?:Job Id|Job): *", text, flags=re.MULTILINE)[1:]]
    # An array is listed besides its subjobs.
    arrays = {base_job_id(state.id) for state in states if re.match(r"\d+\[\d", state.id)}
    return [state for state in states if "[]" not in state.id or base_job_id(state.id) not in arrays]


def _parse_job_state(block: str) -> JobState:
    first, _, rest = block.partition("\n")
    pairs = dict(line.strip().split(" = ", 1) for line in rest.splitlines() if " = " in line)
    letter, status = pairs.get("job_state", ""), pairs.get("Exit_status", "")
    if letter in ("F", "X"):
        killed = not status or (status.isdecimal() and int(status) in _KILLED_EXIT_CODES)
        state = "COMPLETED" if status == "0" else "CANCELLED" if killed and letter == "F" else "FAILED"
        state = "COMPLETED" if letter == "X" and not status else state
    else:
        state = _STATE_NAMES.get(letter, "UNKNOWN")
    nodes = dict.fromkeys(part.partition("/")[0] for part in pairs.get("exec_host", "").split("+") if part)
    elapsed, limit = pairs.get("resources_used.walltime", ""), pairs.get("Resource_List.walltime", "")
    return JobState(first.strip(), state, pairs.get("comment", ""), elapsed, limit, ",".join(nodes))


def _check_job(site: Site, job: job_script.Job) -> None:
    job_script.check_paths_and_gpus(site, job)
    if site.pbs.max_nodes is not None and job.nodes > site.pbs.max_nodes:
        raise BadInput(f"{job.suite} needs {job.nodes} nodes; {site.file} allows {site.pbs.max_nodes} (pbs.max_nodes)")
    if site.pbs.cpus_per_node is None:
        raise BadInput(f"{site.file} has no pbs.cpus_per_node; set it to the number of cores of a node")
    if job.nodes > 1 and site.container.runtime != "none":
        raise BadInput(f'{site.file}: with PBS, cases of several nodes run without a container; set runtime = "none"')


def _container_wrapping(site: Site, job: job_script.Job, gpus: bool) -> ContainerWrapping:
    wrapping = job_script.container_wrapping(site, job, gpus=gpus, nodes=1)
    if wrapping.srun or wrapping.prepare or any(job_script.JOB_ID_MARK in word for word in wrapping.prefix):
        raise BadInput(f"{site.file}: {site.container.runtime} does not run with PBS; use apptainer or none")
    return wrapping


def _campaign_directives(site: Site, job: job_script.Job) -> list[str]:
    gpus = site.gpus.per_node if job.all_gpus else job.ranks_per_node
    chunk = [
        f"select={job.nodes}",
        f"ncpus={site.pbs.cpus_per_node}",
        f"mpiprocs={job.ranks_per_node}",
        *([f"ngpus={gpus}"] if site.gpus.request != "none" else []),
        *([f"mem={_pbs_memory(site.pbs.memory)}"] if site.pbs.memory else []),
        *site.pbs.resources,
    ]
    throttle = f"%{job.throttle}" if job.throttle else ""
    return [
        *_common_directives(job.suite, site.pbs.queue, site, job),
        f"#PBS -l {':'.join(chunk)}",
        f"#PBS -l place=scatter{':excl' if site.pbs.exclusive else ''}",
        *([f"#PBS -l walltime={site.pbs.time_limit}"] if site.pbs.time_limit else []),
        "#PBS -r y",
        *([f"#PBS -J 0-{job.array - 1}{throttle}"] if job.array > 1 else []),
        *(f"#PBS {directive}" for directive in site.pbs.directives),
    ]


def _common_directives(name: str, queue: str | None, site: Site, job: job_script.Job) -> list[str]:
    return [
        f"#PBS -N {name}",
        *([f"#PBS -q {queue}"] if queue else []),
        *([f"#PBS -A {site.pbs.account}"] if site.pbs.account else []),
        "#PBS -j oe",
        f"#PBS -o {job.results}/jobs/",
    ]


def _pbs_memory(size: str) -> str:
    """Return a size in PBS's units: 64gb for 64G; a plain number is MB, as in Slurm."""
    return f"{size}mb" if size.isdecimal() else f"{size.lower()}b"


def _timeout_command(site: Site) -> str:
    """Return the command that ends a campaign shortly before the time limit; "" without a limit."""
    if not site.pbs.time_limit:
        return ""
    hours, minutes, seconds = map(int, site.pbs.time_limit.split(":"))
    limit_s = 3600 * hours + 60 * minutes + seconds
    # With --foreground only dlbench gets the signal, not the processes that measure.
    return f"timeout --foreground --signal=USR1 {max(limit_s - site.pbs.warn_before_s, limit_s // 2)} "
