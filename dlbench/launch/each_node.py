"""Measurement of a suite on every node, or every GPU, separately: one job and one results folder for each.

    results/nodes/n7/        a results folder like any other: attempts, claims, jobs, Parquet files
    results/nodes/n7/gpu0/   the same for one GPU

Nodes therefore share no claims, and each node measures every case. Run the same command again to submit missing cases:
of nodes that were down, or whose job was killed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlbench.errors import BadInput, DlbenchError
from dlbench.launch import batch, jobs, scheduler
from dlbench.launch.counts import count
from dlbench.launch.jobs import SubmittedJob
from dlbench.launch.sites import Site
from dlbench.names import why_unsafe
from dlbench.suites.suite import Suite

FOLDER = "nodes"
#: States of a node in which no job starts; a star after a state means that the node does not respond.
_AWAY = re.compile(r"down|drain|fail|maint|unk|power|reboot|offline|stale|\*$", re.IGNORECASE)


@dataclass(frozen=True)
class Unit:
    """What one job measures: a node, or one of its GPUs."""

    node: str
    gpu: int | None = None


@dataclass(frozen=True)
class Plan:
    """Nodes or GPUs to measure now, and those skipped, by reason."""

    submit: tuple[Unit, ...]
    away: tuple[Unit, ...] = ()  # down or drained: tried when the command is run again
    done: tuple[Unit, ...] = ()  # nothing is missing
    active: tuple[Unit, ...] = ()  # with a job that is queued or running


def folder_of(results: Path, unit: Unit) -> Path:
    """Return the results folder of a node or GPU."""
    folder = results / FOLDER / unit.node
    return folder if unit.gpu is None else folder / f"gpu{unit.gpu}"


def plan(suite: Suite, site: Site, results: Path, wanted: Sequence[str] | None, each_gpu: bool = False) -> Plan:
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
        raise BadInput(f"--each-gpu: {suite.name} has cases of several GPUs; add -P devices_per_node=1")
    several = sorted({case.nodes for case in suite.cases() if case.nodes > 1})
    if several:
        raise BadInput(
            f"--each-node: {suite.name} has cases of {several[0]} nodes; add -P nodes=1 to measure single nodes"
        )
    states = batch.of(site).node_states(site.partition)
    nodes = list(dict.fromkeys(wanted)) if wanted is not None else list(states)
    unknown = [node for node in nodes if node not in states or why_unsafe(node)]
    if unknown:
        where = f"partition {site.partition}" if site.partition else "this cluster"
        listing = "pbsnodes -a" if site.scheduler == "pbs" else "sinfo --Node"
        raise BadInput(f"--nodes: {where} has no node '{unknown[0]}'; `{listing}` lists them")
    if not nodes:
        raise BadInput("--each-node: the scheduler lists no node; check the site's partition")
    units = [Unit(node, gpu) for node in nodes for gpu in (range(site.gpus.per_node) if each_gpu else [None])]
    queued = _queued(site, [folder_of(results, unit) for unit in units])
    kinds: dict[str, list[Unit]] = {"submit": [], "away": [], "done": [], "active": []}
    for unit in units:
        folder = folder_of(results, unit)
        kind = "active" if folder in queued else "done" if _is_done(folder, suite) else "submit"
        kinds["away" if kind == "submit" and _AWAY.search(states[unit.node]) else kind].append(unit)
    return Plan(**{kind: tuple(found) for kind, found in kinds.items()})


def prepare(suite: Suite, overrides: Sequence[str], site: Site, results: Path, unit: Unit) -> jobs.Submission:
    """Prepare the submission for one node or GPU."""
    bound = batch.of(site).on_node(site, unit.node)
    if unit.gpu is not None:
        # No scheduler binds a job to a certain GPU: the job has all of them, and its Python sees one.
        python = ("env", f"CUDA_VISIBLE_DEVICES={unit.gpu}", *site.software.python)
        bound = dataclasses.replace(bound, software=dataclasses.replace(site.software, python=python))
    folder = folder_of(results, unit)
    return jobs.prepare(suite, overrides, bound, folder, report=False, all_gpus=unit.gpu is not None)


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


def _is_done(folder: Path, suite: Suite) -> bool:
    counts = count(folder, suite) if folder.is_dir() else []
    return bool(counts) and all(one.remaining == 0 for one in counts)


def _queued(site: Site, folders: Sequence[Path]) -> set[Path]:
    """Return the folders with a queued or running job, by a single call of the scheduler."""
    owners = {job.job_id: folder for folder in folders for job in jobs.submitted(folder)}
    ids = {scheduler.base_id(state.id) for state in batch.of(site).queued()}
    return {folder for job_id, folder in owners.items() if job_id in ids}
