"""Measurement of a suite on every node, or every GPU, separately: one job and one results folder for each.

    results/nodes/n7/        a results folder like any other: attempts, claims, jobs, Parquet files
    results/nodes/n7/gpu0/   the same for one GPU

Nodes therefore share no claims, and each node measures every case. Run the same command again to submit missing cases:
of nodes that were down, or whose job was killed.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlbench.errors import BadInput, DlbenchError
from dlbench.launch import batch_systems, case_counts, jobs, scheduler
from dlbench.launch.jobs import SubmittedJob
from dlbench.launch.sites import Site
from dlbench.safe_names import why_unsafe_name
from dlbench.suites.suite import Suite

NODES_FOLDER = "nodes"
#: States of a node in which no job starts; a star after a state means that the node does not respond.
_UNAVAILABLE_STATE = re.compile(r"down|drain|fail|maint|unk|power|reboot|offline|stale|\*$", re.IGNORECASE)


@dataclass(frozen=True)
class NodeOrGpu:
    """What one job measures: a node, or one of its GPUs."""

    node: str
    gpu: int | None = None


@dataclass(frozen=True)
class NodesPlan:
    """Nodes or GPUs to measure now, and those skipped, by reason."""

    submit: tuple[NodeOrGpu, ...]
    away: tuple[NodeOrGpu, ...] = ()  # down or drained: tried when the command is run again
    done: tuple[NodeOrGpu, ...] = ()  # nothing is missing
    active: tuple[NodeOrGpu, ...] = ()  # with a job that is queued or running


def node_or_gpu_folder(results: Path, unit: NodeOrGpu) -> Path:
    """Return the results folder of a node or GPU."""
    folder = results / NODES_FOLDER / unit.node
    return folder if unit.gpu is None else folder / f"gpu{unit.gpu}"


def plan_nodes(
    suite: Suite, site: Site, results: Path, wanted: Sequence[str] | None, each_gpu: bool = False
) -> NodesPlan:
    """Sort the requested nodes by the action they need.

    Args:
        wanted: node names; None for all nodes of the site's partition.
        each_gpu: one job per GPU of a node.

    Raises:
        BadInput: a case needs several nodes or GPUs, the scheduler has no such node, or no node is left.
        SchedulerError: the scheduler does not answer.
    """
    if each_gpu and not site.gpus.per_node:
        raise BadInput(f"--each-gpu: {site.file} has no GPUs; set gpus.per_node")
    if each_gpu and any(case.devices_per_node > 1 for case in suite.cases()):
        raise BadInput(f"--each-gpu: {suite.name} has cases that need several GPUs; add -P devices_per_node=1")
    several = sorted({case.nodes for case in suite.cases() if case.nodes > 1})
    if several:
        raise BadInput(
            f"--each-node: {suite.name} has cases that need {several[0]} nodes; add -P nodes=1 to measure single nodes"
        )
    states = batch_systems.BATCH_SYSTEMS[site.scheduler].node_states(site.partition)
    nodes = list(dict.fromkeys(wanted)) if wanted is not None else list(states)
    unknown = [node for node in nodes if node not in states or why_unsafe_name(node)]
    if unknown:
        where = f"partition {site.partition}" if site.partition else "this cluster"
        listing = "pbsnodes -a" if site.scheduler == "pbs" else "sinfo --Node"
        raise BadInput(f"--nodes: {where} has no node '{unknown[0]}'; `{listing}` lists them")
    if not nodes:
        raise BadInput("--each-node: the scheduler lists no nodes; check the partition in the site profile")
    units = [NodeOrGpu(node, gpu) for node in nodes for gpu in (range(site.gpus.per_node) if each_gpu else [None])]
    queued = _folders_with_jobs(site, [node_or_gpu_folder(results, unit) for unit in units])
    kinds: dict[str, list[NodeOrGpu]] = {"submit": [], "away": [], "done": [], "active": []}
    for unit in units:
        folder = node_or_gpu_folder(results, unit)
        counts = case_counts.count_cases(folder, suite) if folder.is_dir() else []
        done = bool(counts) and all(one.num_to_measure == 0 for one in counts)
        kind = "active" if folder in queued else "done" if done else "submit"
        kinds["away" if kind == "submit" and _UNAVAILABLE_STATE.search(states[unit.node]) else kind].append(unit)
    return NodesPlan(**{kind: tuple(found) for kind, found in kinds.items()})


def prepare_unit_submission(
    suite: Suite, overrides: Sequence[str], site: Site, results: Path, unit: NodeOrGpu
) -> jobs.Submission:
    """Prepare the submission for one node or GPU."""
    bound = batch_systems.BATCH_SYSTEMS[site.scheduler].restrict_jobs_to_node(site, unit.node)
    if unit.gpu is not None:
        # No scheduler binds a job to a certain GPU: the job has all of them, and its Python sees one.
        python = ("env", f"CUDA_VISIBLE_DEVICES={unit.gpu}", *site.software.python)
        bound = dataclasses.replace(bound, software=dataclasses.replace(site.software, python=python))
    folder = node_or_gpu_folder(results, unit)
    return jobs.prepare_submission(suite, overrides, bound, folder, report=False, all_gpus=unit.gpu is not None)


def submit(
    submissions: Iterable[jobs.Submission], after: Sequence[str], on_taken: Callable[[SubmittedJob], None]
) -> tuple[list[SubmittedJob], DlbenchError | None]:
    """Submit them; return the accepted ones, and the error that stopped submission (usually a job limit)."""
    taken: list[SubmittedJob] = []
    for submission in submissions:
        try:
            taken += jobs.submit(submission, after, on_taken)
        except scheduler.SchedulerError as error:
            return taken, error
    return taken, None


def _folders_with_jobs(site: Site, folders: Sequence[Path]) -> set[Path]:
    """Return the folders with a queued or running job, by a single call of the scheduler."""
    owners = {job.job_id: folder for folder in folders for job in jobs.submitted_jobs(folder)}
    ids = {scheduler.base_job_id(state.id) for state in batch_systems.BATCH_SYSTEMS[site.scheduler].queued()}
    return {folder for job_id, folder in owners.items() if job_id in ids}
