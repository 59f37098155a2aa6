"""Rank of this process among those that measure one case together.

Found in the environment, in this order (`detect_rank`): explicit RANK and WORLD_SIZE (torchrun,
`dlbench.launch.spawn`); Open MPI's OMPI_COMM_WORLD_*; PMIX_RANK or PMI_RANK (MPICH, Intel MPI, PMIx); SLURM_PROCID,
only if SLURM_NTASKS equals the required number of ranks: under mpirun inside a job it is that of the daemon. A number
of ranks different from that of the case is an error: with the wrong `srun --mpi` every rank silently believes that it
is 0 of 1.

What all processes must agree on goes through `RankContext.broadcast`, and what rank 0 must know of all of them through
`RankContext.all_gather`; `dlbench.worker.ranks.process_group` gives a context its group.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from dlbench.errors import BadInput

T = TypeVar("T")


class CommunicationGroup(Protocol):
    """Communication interface of a `RankContext`."""

    backend: str

    def broadcast(self, value: Any) -> Any:
        """See `RankContext.broadcast`."""

    def all_gather(self, value: Any) -> list[Any]:
        """See `RankContext.all_gather`."""

    def barrier(self) -> None:
        """See `RankContext.barrier`."""


@dataclass(frozen=True)
class RankContext:
    """Rank of this process, its device on this node, the number of ranks, and their communication group."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    group: CommunicationGroup | None = field(default=None, compare=False)

    def broadcast(self, value: T) -> T:
        """Return the `value` of rank 0 on every rank. All ranks must call it at the same step."""
        if self.group is None:
            return value
        agreed: T = self.group.broadcast(value)
        return agreed

    def all_gather(self, value: T) -> list[T]:
        """Return the values of all ranks, by rank, on every rank. All ranks must call it."""
        return [value] if self.group is None else self.group.all_gather(value)

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.group is not None:
            self.group.barrier()


@dataclass(frozen=True)
class DetectedRank:
    """Rank of this process, from the environment."""

    rank: int
    local_rank: int
    world_size: int
    local_size: int | None  # ranks on this node; None if unknown
    source: str  # source variable, or "none"


def detect_rank(environ: Mapping[str, str], asked: int) -> DetectedRank:
    """Detect the rank of this process from the environment, for a case of `asked` ranks.

    Raises:
        BadInput: the environment has another number of ranks, or none for a case of several ranks.
    """
    found = (
        _rank_from_variables(environ, _OWN_VARIABLES, "RANK and WORLD_SIZE")
        or _rank_from_variables(environ, _OPEN_MPI_VARIABLES, _OPEN_MPI_VARIABLES[0])
        or _pmi_rank(environ)
        or _slurm_rank(environ, asked)
    )
    if found is None:
        found = DetectedRank(0, 0, 1, 1, "none")
    if found.world_size == asked and 0 <= found.rank < asked:
        return found
    if found.source == "none":
        reason = "the environment has only one rank: use --launcher local, torchrun, "
        reason += "mpirun or srun; under srun, check `srun --mpi=list`"
    else:
        reason = f"according to {found.source}, this process is rank {found.rank} of {found.world_size}"
    raise BadInput(f"the case needs {asked} ranks, but {reason}.")


#: Variables of the rank and the number of ranks, in all and on this node.
_OWN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_OPEN_MPI_VARIABLES = tuple(f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"))


def _rank_from_variables(environ: Mapping[str, str], names: Iterable[str], source: str) -> DetectedRank | None:
    rank, size, local, local_size = (_environment_number(environ, name) for name in names)
    if rank is None or size is None:
        return None
    return DetectedRank(rank, rank if local is None else local, size, local_size, source)


def _pmi_rank(environ: Mapping[str, str]) -> DetectedRank | None:
    for name in ("PMIX_RANK", "PMI_RANK"):
        rank = _environment_number(environ, name)
        # PMIx has no variable for the number of ranks; under srun the step has one.
        size = _first_environment_number(environ, "PMI_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
        if rank is not None and size is not None:
            local = _first_environment_number(environ, "MPI_LOCALRANKID", "PALS_LOCAL_RANKID", "SLURM_LOCALID")
            local_size = _first_environment_number(environ, "MPI_LOCALNRANKS", "PALS_LOCAL_SIZE")
            return DetectedRank(
                rank, rank if local is None else local, size, local_size or _tasks_per_node(environ, size), name
            )
    return None


def _slurm_rank(environ: Mapping[str, str], asked: int) -> DetectedRank | None:
    rank, size = _environment_number(environ, "SLURM_PROCID"), _environment_number(environ, "SLURM_NTASKS")
    if rank is None or size != asked:
        return None
    local = _environment_number(environ, "SLURM_LOCALID")
    return DetectedRank(rank, rank if local is None else local, size, _tasks_per_node(environ, size), "SLURM_PROCID")


def _tasks_per_node(environ: Mapping[str, str], size: int) -> int | None:
    """Parse tasks per node from "4" or "4(x2)"; None if unknown."""
    text = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_NTASKS_PER_NODE") or ""
    first = text.partition("(")[0].partition(",")[0]
    return min(size, int(first)) if first.isdigit() else None


def _first_environment_number(environ: Mapping[str, str], *names: str) -> int | None:
    return next((n for n in (_environment_number(environ, name) for name in names) if n is not None), None)


def _environment_number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    return int(text) if text.isdigit() else None
