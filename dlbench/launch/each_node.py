"""A suite measured on every node by itself: one job per node, each with a results folder of its own.

    results/nodes/n7/        a results folder like any other: attempts, claims, jobs, Parquet files

So nodes share no claims, a case that one node has measured is still missing on the others, and the same command later
submits what is missing: on nodes that were down, or whose job was killed.
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
#: States of a node in which no job starts; a star behind a state means that it does not answer.
_AWAY = re.compile(r"down|drain|fail|maint|unk|power|reboot|planned_down|\*$", re.IGNORECASE)


@dataclass(frozen=True)
class Plan:
    """Which nodes are to be measured now."""

    submit: tuple[str, ...]
    away: tuple[str, ...] = ()  # down or drained: tried when the command is run again
    done: tuple[str, ...] = ()  # nothing is missing
    active: tuple[str, ...] = ()  # with a job that is queued or running


def folder_of(results: Path, node: str) -> Path:
    """The results folder of a node."""
    return results / FOLDER / node


def folders(results: Path) -> list[Path]:
    """The results folders of all nodes that were measured or submitted."""
    return sorted(path for path in (results / FOLDER).glob("*") if path.is_dir())


def node_states(partition: str | None = None) -> dict[str, str]:
    """The state of each node that Slurm knows.

    Raises:
        SchedulerError: sinfo does not answer.
    """
    where = [f"--partition={partition}"] if partition else []
    answer = scheduler.call(["sinfo", "--noheader", "--Node", *where, "--format=%N|%T"])
    pairs = [line.strip().partition("|") for line in answer.splitlines() if "|" in line]
    # A node of several partitions is listed in each.
    return {name: state for name, _, state in pairs}


def plan(suite: Suite, site: Site, results: Path, wanted: Sequence[str] | None) -> Plan:
    """Sort the wanted nodes by what is to be done with them.

    Args:
        wanted: node names; None for all nodes of the site's partition.

    Raises:
        BadInput: a case needs several nodes, Slurm does not know a node, or no node is left.
        SchedulerError: Slurm does not answer.
    """
    several = sorted({case.nodes for case in suite.cases() if case.nodes > 1})
    if several:
        raise BadInput(f"--each-node: {suite.name} has cases of {several[0]} nodes; -P nodes=1 measures single nodes")
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
    """The submission of one node: that of the suite, bound to the node."""
    directives = (*site.slurm.directives, f"--nodelist={node}")
    bound = dataclasses.replace(site, slurm=dataclasses.replace(site.slurm, directives=directives))
    return jobs.prepare(suite, overrides, bound, folder_of(results, node), report=False)


def submit(
    submissions: Iterable[jobs.Submission], on_taken: Callable[[SubmittedJob], None]
) -> tuple[list[SubmittedJob], DlbenchError | None]:
    """Hand them to Slurm; gives those taken, and why it took no more (a limit of jobs, mostly)."""
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
    """The folders with a job that is queued or running; Slurm is asked once for all."""
    owners = {job.job_id: folder for folder in nodes for job in jobs.submitted(folder)}
    return {
        owners[scheduler.base_id(state.id)] for state in scheduler.queued() if scheduler.base_id(state.id) in owners
    }
