"""Measurement of a suite on every node separately: one job and one results folder per node.

    results/nodes/n7/        a results folder like any other: attempts, claims, jobs, Parquet files

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
from dlbench.launch import jobs, scheduler
from dlbench.launch.counts import count
from dlbench.launch.jobs import SubmittedJob
from dlbench.launch.sites import Site
from dlbench.names import why_unsafe
from dlbench.suites.suite import Suite

FOLDER = "nodes"
#: States of a node in which no job starts; a star after a state means that the node does not respond.
_AWAY = re.compile(r"down|drain|fail|maint|unk|power|reboot|\*$", re.IGNORECASE)


@dataclass(frozen=True)
class Plan:
    """Nodes to measure now, and those skipped, by reason."""

    submit: tuple[str, ...]
    away: tuple[str, ...] = ()  # down or drained: tried when the command is run again
    done: tuple[str, ...] = ()  # nothing is missing
    active: tuple[str, ...] = ()  # with a job that is queued or running


def folder_of(results: Path, node: str) -> Path:
    """Return the results folder of a node."""
    return results / FOLDER / node


def node_states(partition: str | None = None) -> dict[str, str]:
    """Return the state of each node in Slurm.

    Raises:
        SchedulerError: sinfo does not answer.
    """
    where = [f"--partition={partition}"] if partition else []
    answer = scheduler.call(["sinfo", "--noheader", "--Node", *where, "--format=%N|%T"])
    pairs = [line.strip().partition("|") for line in answer.splitlines() if "|" in line]
    # A node of several partitions is listed in each.
    return {name: state for name, _, state in pairs}


def plan(suite: Suite, site: Site, results: Path, wanted: Sequence[str] | None) -> Plan:
    """Sort the requested nodes by the action they need.

    Args:
        wanted: node names; None for all nodes of the site's partition.

    Raises:
        BadInput: a case needs several nodes, Slurm has no such node, or no node is left.
        SchedulerError: Slurm does not answer.
    """
    several = sorted({case.nodes for case in suite.cases() if case.nodes > 1})
    if several:
        raise BadInput(
            f"--each-node: {suite.name} has cases of {several[0]} nodes; add -P nodes=1 to measure single nodes"
        )
    states = node_states(site.slurm.partition)
    nodes = list(dict.fromkeys(wanted)) if wanted is not None else list(states)
    unknown = [node for node in nodes if node not in states or why_unsafe(node)]
    if unknown:
        where = f"partition {site.slurm.partition}" if site.slurm.partition else "this Slurm"
        raise BadInput(f"--nodes: {where} has no node '{unknown[0]}'; `sinfo --Node` lists them")
    if not nodes:
        raise BadInput("--each-node: Slurm lists no node; check the site's partition")
    queued = _queued([folder_of(results, node) for node in nodes])
    kinds: dict[str, list[str]] = {"submit": [], "away": [], "done": [], "active": []}
    for node in nodes:
        folder = folder_of(results, node)
        kind = "active" if folder in queued else "done" if _is_done(folder, suite) else "submit"
        kinds["away" if kind == "submit" and _AWAY.search(states[node]) else kind].append(node)
    return Plan(**{kind: tuple(names) for kind, names in kinds.items()})


def prepare(suite: Suite, overrides: Sequence[str], site: Site, results: Path, node: str) -> jobs.Submission:
    """Prepare the submission for one node."""
    directives = (*site.slurm.directives, f"--nodelist={node}")
    bound = dataclasses.replace(site, slurm=dataclasses.replace(site.slurm, directives=directives))
    return jobs.prepare(suite, overrides, bound, folder_of(results, node), report=False)


def submit(
    submissions: Iterable[jobs.Submission], on_taken: Callable[[SubmittedJob], None]
) -> tuple[list[SubmittedJob], DlbenchError | None]:
    """Submit them; return the accepted ones, and the error that stopped submission (usually a job limit)."""
    taken: list[SubmittedJob] = []
    for submission in submissions:
        try:
            taken += jobs.submit(submission, on_taken=on_taken)
        except scheduler.SchedulerError as error:
            return taken, error
    return taken, None


def _is_done(folder: Path, suite: Suite) -> bool:
    counts = count(folder, suite) if folder.is_dir() else []
    return bool(counts) and all(one.remaining == 0 for one in counts)


def _queued(nodes: Sequence[Path]) -> set[Path]:
    """Return the folders with a queued or running job, by a single call of Slurm."""
    owners = {job.job_id: folder for folder in nodes for job in jobs.submitted(folder)}
    return {
        owners[scheduler.base_id(state.id)] for state in scheduler.queued() if scheduler.base_id(state.id) in owners
    }
