"""Job scripts for Slurm: pure functions from a site and a job to a readable script, which also runs by hand.

If every case has one rank, the whole campaign runs inside the container, as one step:

    srun --ntasks=1  [container]  python3 -m dlbench run SUITE --results RESULTS

Cases of several ranks are supervised from the job's first node, outside the container; each case is one step:

    python3 -m dlbench run SUITE --results RESULTS --launcher srun --  srun {ranks}  [container]  python3

In both modes claims in the results folder distribute the cases over all running jobs and array tasks.
"""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dlbench.errors import BadInput
from dlbench.launch import job_script, runtimes
from dlbench.launch.containers import ContainerWrapping
from dlbench.launch.launchers import WORKER_MODULE, Launcher
from dlbench.launch.sites import Site
from dlbench.suites.case import Case

#: Exit status of srun after a failure of Slurm; programs never return it.
SLURM_EXIT_ERROR = 119
#: Placeholder in a step command for the node and rank options of the case.
RANKS_MARK = "{ranks}"

_SIGNAL_HANDLER_LINES = r"""
# Shortly before the time limit Slurm sends USR1 to this script only; a shell runs traps only during `wait`. The
# campaign then ends the running case as preempted; finished cases are stored.
child='' received='' signals=0
# shellcheck disable=SC2034,SC2329
pass_on() {
  received=$1 signals=$((signals + 1))
  [ -z "$child" ] || kill -s "$1" "$child" 2>/dev/null || true
}
trap 'pass_on USR1' USR1
trap 'pass_on TERM' TERM INT
# shellcheck disable=SC2329
watched() {
  local status=0 seen=$signals
  [ "$seen" -eq 0 ] || return 130
  "$@" &
  child=$!
  wait "$child" || status=$?
  while [ "$seen" -ne "$signals" ]; do # a signal ends `wait`, not the child
    seen=$signals status=0
    wait "$child" || status=$?
  done
  child=''
  return "$status"
}
"""

_RETRY_LINES = rf"""
# Exit status of srun if Slurm itself failed, for example without a controller; programs never return it.
export SLURM_EXIT_ERROR={SLURM_EXIT_ERROR}
# If Slurm could not start a step, wait for its controller and try again.
patiently() {{
  local status
  for _ in {{1..5}}; do
    status=0
    "$@" || status=$?
    [ "$status" -eq "$SLURM_EXIT_ERROR" ] || break
    echo "Slurm did not start a step of job $SLURM_JOB_ID; waiting for its controller to try again" >&2
    for _ in {{1..360}}; do
      sleep 10
      [ "${{signals:-0}}" -eq 0 ] || return 130
      if [[ $(scontrol ping 2>/dev/null) == *" UP"* ]]; then break; fi
    done
  done
  return "$status"
}}
"""


def campaign_script(site: Site, job: job_script.Job) -> str:
    """The script of the measuring job or array. Raises BadInput if the site lacks something or a path is invalid."""
    _check_job(site, job)
    wrapping = job_script.container_wrapping(site, job, gpus=site.has_gpus, nodes=job.nodes)
    if job.has_several_ranks:
        python, overrides = job_script.quote_command(site.python_outside_container), job_script.override_options(job)
        supervisor = f'watched {python} -m dlbench run "$suite"{overrides}'
        run = [
            "# dlbench runs outside the container. It starts each case as a job step and replaces {ranks} by the "
            "step's node and rank options.",
            f'{supervisor} --results "$results" \\',
            f'  --launcher srun -- "${{step[@]}}" \'{RANKS_MARK}\' "${{inside[@]}}" || status=$?',
        ]
    else:
        run = [
            f'patiently watched "${{step[@]}}" --nodes=1 --ntasks=1 "${{inside[@]}}" \\\n'
            f'  -m dlbench run "$suite"{job_script.override_options(job)} --results "$results" || status=$?'
        ]
    return _job_script(
        f"Suite {job.suite} at site {site.name}",
        _campaign_directives(site, job),
        job_script.environment_setup_lines(site, job, wrapping),
        [f"suite={job_script.quote_for_shell(job.suite_file)}"],
        _rendezvous_lines(site) if job.has_several_ranks else [],
        _step_lines(site, wrapping, each_node=True, options=site.slurm.srun),
        _RETRY_LINES.strip().splitlines(),
        _SIGNAL_HANDLER_LINES.strip().splitlines(),
        _container_setup_lines(wrapping),
        [
            "# Check on every node: Python, results folder, mounts, free space. Stop if a check fails.",
            "# All nodes must see the token file: on a node-local folder of the same name, results would be lost.",
            'token=$(mktemp "$results/jobs/.node-check-$SLURM_JOB_ID-XXXXXX")',
            "status=0",
            'patiently "${step[@]}" "${each_node[@]}" "${inside[@]}" \\\n'
            '  -m dlbench doctor --node --results "$results" --token "$token" || status=$?',
            'rm -f "$token"',
            '[ "$status" -eq 0 ] || exit "$status"',
        ],
        run,
        _requeue_lines(site, wrapping),
        ['exit "$status"'],
    )


def report_script(site: Site, job: job_script.Job) -> str:
    """Return the script of the report job, which collects the results; it needs one node and no GPU."""
    wrapping = job_script.container_wrapping(site, job, gpus=False, nodes=1)
    once = 'patiently "${step[@]}" --nodes=1 --ntasks=1 "${inside[@]}"'
    return _job_script(
        f"Report of suite {job.suite}",
        _report_directives(site, job),
        job_script.environment_setup_lines(site, job, wrapping),
        [],
        [],
        _step_lines(site, wrapping, each_node=bool(wrapping.prepare or wrapping.cleanup) and not wrapping.prepare_once),
        _RETRY_LINES.strip().splitlines(),
        _container_setup_lines(wrapping),
        [
            f'{once} -m dlbench collect --results "$results"',
            f'{once} -m dlbench report "$results" -o "$results/report"',
        ],
    )


def step_launcher(step: Sequence[str], nodes: Sequence[str] = ()) -> Launcher:
    """Return a launcher that starts each case by this step command, with `{ranks}` replaced by node and rank options.

    Args:
        step: such as ``srun --mpi=none {ranks} apptainer exec x.sif python3``; the worker's module and folder follow.
        nodes: of the job, in Slurm's order, where that is known. Cases of fewer nodes run on the first of them, for
            the ranks meet at the first of all, and Slurm would deal out such steps in turns.

    Raises:
        BadInput: the step has no `{ranks}`; every case would get all nodes of the job.
    """
    _insert_rank_options(step, [])

    def launch_case(case: Case, folder: Path) -> list[str]:
        ranks = [f"--nodes={case.nodes}", f"--ntasks={case.world_size}", f"--ntasks-per-node={case.devices_per_node}"]
        if case.nodes < len(nodes):
            ranks.append(f"--nodelist={','.join(nodes[: case.nodes])}")
        # By its name the step is found again when srun itself was killed, see `scheduler.cancel_steps`.
        ranks.append(f"--job-name={folder.name}")
        return [*_insert_rank_options(step, ranks), "-m", WORKER_MODULE, str(folder)]

    return launch_case


def rank_probe_argv(step: Sequence[str], models: Sequence[str] = ()) -> list[str]:
    """The command that probes the Python inside a step, on one node. Raises BadInput if the step has no `{ranks}`."""
    argv = _insert_rank_options(step, ["--nodes=1", "--ntasks=1", "--ntasks-per-node=1"])
    return [*argv, "-m", WORKER_MODULE, "--probe", *models]


def _insert_rank_options(step: Sequence[str], ranks: list[str]) -> list[str]:
    if RANKS_MARK not in step:
        raise BadInput(
            f"the launch command '{shlex.join(step)}' has no {RANKS_MARK}; put it into the command, at "
            f"the place of the options for nodes and ranks"
        )
    at = list(step).index(RANKS_MARK)
    return [*step[:at], *ranks, *step[at + 1 :]]


def _check_job(site: Site, job: job_script.Job) -> None:
    job_script.check_paths_and_gpus(site, job)
    if site.slurm.max_nodes is not None and job.nodes > site.slurm.max_nodes:
        raise BadInput(
            f"{job.suite} needs {job.nodes} nodes; {site.file} allows {site.slurm.max_nodes} (slurm.max_nodes)"
        )
    _check_cores_per_rank(site, job)
    if runtimes.RUNTIME_RECORDS[site.container.runtime].shares_node and site.has_gpus and not site.slurm.exclusive:
        raise BadInput(
            f"{site.container.runtime} uses all GPUs of a node, including those of other jobs; set slurm.exclusive = "
            f"true in {site.file}"
        )


def _check_cores_per_rank(site: Site, job: job_script.Job) -> None:
    task, node, ranks = site.slurm.cpus_per_task, site.slurm.cpus_per_node, job.ranks_per_node
    if task is None and node is None:
        raise BadInput(
            f"{site.file} has neither slurm.cpus_per_node nor slurm.cpus_per_task; set one of them, otherwise Slurm "
            f"binds each rank to one core"
        )
    if node is not None and (task or 1) * ranks > node:
        cores = f" with {task} cores each (slurm.cpus_per_task)" if task else ""
        fix = f"set devices_per_node to at most {node}"
        if task and node >= ranks:
            fix = f"set slurm.cpus_per_task to at most {node // ranks}, or remove it"
        raise BadInput(
            f"{job.suite} needs {ranks} ranks per node{cores}; {site.file} has {node} cores per node "
            f"(slurm.cpus_per_node): {fix}"
        )


def unknown_cores_remark(site: Site, ranks_per_node: int) -> str:
    """Return what to check of the cores of a node where the site does not say how many it has; "" if nothing."""
    cores = site.slurm.cpus_per_task
    if site.has_gpus or site.slurm.cpus_per_node or cores is None or ranks_per_node == 1:
        return ""
    return (
        f"{ranks_per_node} ranks per node with {cores} cores each need nodes of {ranks_per_node * cores} cores; "
        f"replace slurm.cpus_per_task by slurm.cpus_per_node in {site.file}, then ranks share the cores of a node"
    )


def restrict_jobs_to_node(site: Site, node: str) -> Site:
    """Return the site with its jobs bound to a node."""
    return replace(site, slurm=replace(site.slurm, directives=(*site.slurm.directives, f"--nodelist={node}")))


def _job_script(title: str, directives: list[str], *sections: Sequence[str]) -> str:
    salloc = "# To run by hand: salloc with the options below, then run this file with bash inside the allocation."
    needed = "is not set: submit this with sbatch, or run it with bash inside an allocation"
    return job_script.assemble_script(
        title,
        [salloc, *(f"#SBATCH {directive}" for directive in directives)],
        f': "${{SLURM_JOB_ID:?{needed}}}"',
        *sections,
    )


def _campaign_directives(site: Site, job: job_script.Job) -> list[str]:
    slurm, gpus = site.slurm, site.gpus
    count = gpus.per_node if job.all_gpus else job.ranks_per_node
    amount = f"{gpus.type}:{count}" if gpus.type else f"{count}"
    throttle = f"%{job.throttle}" if job.throttle else ""
    wanted = [
        ("--job-name", job.suite),
        ("--partition", slurm.partition),
        ("--account", slurm.account),
        ("--qos", slurm.qos),
        ("--constraint", slurm.constraint),
        ("--nodes", str(job.nodes)),
        ("--ntasks-per-node", str(job.ranks_per_node)),
        # Without a number of the site, the ranks share the node.
        ("--cpus-per-task", str(slurm.cpus_per_task or (slurm.cpus_per_node or 1) // job.ranks_per_node)),
        ("--gres", f"gpu:{amount}" if gpus.request == "gres" else None),
        ("--gpus-per-node", amount if gpus.request == "gpus-per-node" else None),
        ("--exclusive", "" if slurm.exclusive else None),
        # An exclusive node provides all cores, but only the default share of memory.
        ("--mem", slurm.memory or ("0" if slurm.exclusive else None)),
        ("--time", slurm.time_limit),
        ("--signal", f"B:USR1@{slurm.warn_before_s}"),
        ("--requeue" if slurm.requeue else "--no-requeue", ""),
        ("--open-mode", "append"),
        ("--array", f"0-{job.array - 1}{throttle}" if job.array > 1 else None),
        ("--output", f"{job.results}/jobs/{'%x-%A_%a.out' if job.array > 1 else '%x-%j.out'}"),
    ]
    return _format_directives(site, wanted, slurm.directives)


def _report_directives(site: Site, job: job_script.Job) -> list[str]:
    wanted = [
        ("--job-name", f"{job.suite}-report"),
        ("--partition", site.report.partition or site.slurm.partition),
        ("--account", site.slurm.account),
        # A QOS belongs to a partition.
        ("--qos", site.report.qos or (site.slurm.qos if site.report.partition is None else None)),
        ("--nodes", "1"),
        ("--ntasks-per-node", "1"),
        ("--mem", site.report.memory),
        ("--time", site.report.time_limit),
        ("--open-mode", "append"),
        ("--output", f"{job.results}/jobs/%x-%j.out"),
    ]
    return _format_directives(site, wanted, site.report.directives)


def _format_directives(site: Site, wanted: list[tuple[str, str | None]], more: Sequence[str]) -> list[str]:
    known = [(name, value) for name, value in wanted if value is not None and name not in site.slurm.without]
    return [*(f"{name}={value}" if value else name for name, value in known), *more]


def _rendezvous_lines(site: Site) -> list[str]:
    given = site.network.master_address
    master = job_script.quote_for_shell(given) if given else '"${DLBENCH_MASTER_ADDR:-${nodes[0]}}"'
    return [
        "# Rendezvous of the ranks at the first free port; jobs on the same node get different ports.",
        'mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")',
        'export DLBENCH_JOB_NODES="${nodes[*]}"',
        f"export MASTER_ADDR={master}",
        # Ports from 32768 on may be used by outgoing connections.
        "port=$((20000 + SLURM_JOB_ID % 1200 * 10))",
        'export DLBENCH_MASTER_PORTS="${DLBENCH_MASTER_PORTS:-$port-$((port + 9))}"',
        'export MASTER_PORT="${DLBENCH_MASTER_PORTS%%[,-]*}"',
    ]


def _step_lines(site: Site, wrapping: ContainerWrapping, each_node: bool, options: Sequence[str] = ()) -> list[str]:
    mpi = [f"--mpi={site.slurm.mpi}"] if site.slurm.mpi else []
    step = ["srun", "--kill-on-bad-exit=1", "--wait=60", *mpi, *options, *wrapping.srun]
    everywhere = '--overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1'
    return [
        "# Since Slurm 22.05, srun does not inherit --cpus-per-task from the job.",
        '[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"',
        "# A job that was submitted without environment variables would pass none to its steps.",
        "export SLURM_EXPORT_ENV=ALL",
        "# Started by hand in an interactive step, all ranks would be bound to the cores of that step.",
        "unset SLURM_CPU_BIND SLURM_CPU_BIND_TYPE SLURM_CPU_BIND_LIST SLURM_CPU_BIND_VERBOSE",
        job_script.bash_array("step", step),
        job_script.bash_array("inside", [*wrapping.prefix, *site.software.python]),
        *([f"each_node=({everywhere})"] if each_node else []),
    ]


def _container_setup_lines(wrapping: ContainerWrapping) -> list[str]:
    where = "--overlap --nodes=1 --ntasks=1" if wrapping.prepare_once else '"${each_node[@]}"'
    lines = []
    if wrapping.cleanup:
        commands = [f"  srun {where} {job_script.quote_command(argv)} 2>/dev/null || true" for argv in wrapping.cleanup]
        lines += ["# shellcheck disable=SC2329", "tidy() {", *commands, "}", "trap tidy EXIT"]
        lines.append("tidy # remove files of an earlier run of this job, if it was killed and requeued")
    return lines + [f"patiently srun {where} {job_script.quote_command(argv)}" for argv in wrapping.prepare]


def _requeue_lines(site: Site, wrapping: ContainerWrapping) -> list[str]:
    if not site.slurm.requeue or site.slurm.max_requeues == 0:
        return []
    return [
        "# If the job is near its time limit and was not cancelled, requeue it to measure the missing cases.",
        'if [ "$status" -ge 128 ] && [ "$received" = USR1 ] && '
        f'[ "${{SLURM_RESTART_COUNT:-0}}" -lt {site.slurm.max_requeues} ]; then',
        # Slurm ends the script here; the job may restart on other nodes.
        *(["  tidy"] if wrapping.cleanup else []),
        '  scontrol requeue "$SLURM_JOB_ID" || echo "cannot requeue this job; run dlbench resume" >&2',
        "fi",
    ]
