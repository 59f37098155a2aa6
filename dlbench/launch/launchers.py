"""How a case's processes are started: pure functions from a case, its attempt folder and options to an argv.

| launcher | who starts the ranks | how they find each other |
|---|---|---|
| local | this process, or `dlbench.launch.spawn` where a case has several ranks; one machine | RANK, MASTER_ADDR, ... |
| torchrun | `python -m torch.distributed.run`, on several nodes one per node under srun | its own store |
| mpirun | Open MPI's or MPICH's mpirun | mpi4py tells rank 0's address and port |
| srun | Slurm, one task per device | MASTER_ADDR and DLBENCH_MASTER_PORTS of the job |

Every rank sees all devices of its node and takes that of its local rank. `dlbench.worker.ranks.context` detects which
rank a process is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlbench.errors import BadInput, UnknownName
from dlbench.ports import ports_of
from dlbench.suites.case import Case

Launcher = Callable[[Case, Path], list[str]]
#: The module that does the request in a folder.
WORKER = "dlbench.worker"
#: Where torchrun's ranks of several nodes meet, unless DLBENCH_MASTER_PORTS or MASTER_PORT says something else.
DEFAULT_PORT = 29_400


@dataclass(frozen=True)
class Options:
    """What a launcher must know besides the case."""

    python: str = sys.executable
    #: The mpirun to call, and whose it is: "mpich" or "openmpi".
    mpirun: str = "mpirun"
    mpi: str = "mpich"
    #: Open MPI refuses root unless told twice.
    as_root: bool = False
    #: torchrun over several nodes: a name or address of the first node, and the port of its rendezvous.
    address: str | None = None
    port: int = DEFAULT_PORT
    #: Cores of each task of the job, which srun no longer takes from it by itself, and all that it has on this node.
    cpus_per_task: int | None = None
    cpus_on_node: int | None = None


def local(case: Case, folder: Path, options: Options | None = None) -> list[str]:
    """Processes of this machine: one as a direct child, several under a spawner that ends them together.

    Raises:
        BadInput: the case needs several nodes.
    """
    options = options or Options()
    _one_node(case, "local")
    worker = [options.python, "-m", WORKER, str(folder)]
    if case.world_size == 1 and not case.is_distributed:
        return worker
    return [options.python, "-m", "dlbench.launch.spawn", str(case.world_size), "--", *worker]


def torchrun(case: Case, folder: Path, options: Options) -> list[str]:
    """One agent per node, which starts the ranks of its node; srun starts the agents where there are several nodes.

    Raises:
        BadInput: several nodes, and nobody says where they meet.
    """
    agent = [options.python, "-m", "torch.distributed.run"]
    ranks = [f"--nnodes={case.nodes}", f"--nproc-per-node={case.devices_per_node}", "--max-restarts=0"]
    worker = ["-m", WORKER, str(folder)]
    if case.nodes == 1:
        return [*agent, "--standalone", *ranks, *worker]
    if options.address is None:
        raise BadInput(
            f"torchrun on {case.nodes} nodes needs the address of the first one: set MASTER_ADDR to a name or address "
            "that every node reaches"
        )
    meet = ["--rdzv-backend=c10d", f"--rdzv-endpoint={options.address}:{options.port}", f"--rdzv-id={folder.name}"]
    step = ["srun", "--kill-on-bad-exit=1", "--wait=60", f"--nodes={case.nodes}", f"--ntasks={case.nodes}"]
    # The agent's cores are those of all its ranks.
    step += _cores(options, case, case.devices_per_node)
    return [*step, "--ntasks-per-node=1", *agent, *meet, *ranks, *worker]


def mpirun(case: Case, folder: Path, options: Options) -> list[str]:
    """MPI starts the ranks; through `python -m mpi4py` an exception in one of them ends all."""
    worker = [options.python, "-m", "mpi4py", "-m", WORKER, str(folder)]
    if options.mpi == "openmpi":
        placed = ["--map-by", f"ppr:{case.devices_per_node}:node:oversubscribe", "--bind-to", "none"]
        root = ["--allow-run-as-root"] if options.as_root else []
        return [options.mpirun, "-n", str(case.world_size), *root, *placed, *worker]
    return [options.mpirun, "-n", str(case.world_size), "-ppn", str(case.devices_per_node), *worker]


def srun(case: Case, folder: Path, options: Options) -> list[str]:
    """Slurm starts one task per rank; if one fails it ends the others."""
    step = ["srun", "--kill-on-bad-exit=1", "--wait=60", f"--nodes={case.nodes}", f"--ntasks={case.world_size}"]
    # By its name the step is found again when srun itself was killed, see `scheduler.end_steps`.
    step += [*_cores(options, case, 1), f"--ntasks-per-node={case.devices_per_node}", f"--job-name={folder.name}"]
    return [*step, options.python, "-m", WORKER, str(folder)]


def _cores(options: Options, case: Case, num_ranks: int) -> list[str]:
    """The cores of a task that is so many ranks of a case; nothing where the job says nothing of cores."""
    if not options.cpus_per_task or not options.cpus_on_node:
        return []
    # More ranks than the job was made for share what there is.
    cores = min(options.cpus_per_task, options.cpus_on_node // case.devices_per_node)
    return [f"--cpus-per-task={cores * num_ranks}"] if cores else []


LAUNCHERS: dict[str, Callable[[Case, Path, Options], list[str]]] = {
    "local": local,
    "torchrun": torchrun,
    "mpirun": mpirun,
    "srun": srun,
}


def find(name: str, environment: Mapping[str, str] | None = None) -> Launcher:
    """The launcher called `name`, with what this machine says about it.

    Raises:
        UnknownName: there is no such launcher.
        BadInput: its program is not installed.
    """
    environment = os.environ if environment is None else environment
    if name not in LAUNCHERS:
        raise UnknownName("launcher", name, LAUNCHERS, "--launcher")
    address = environment.get("MASTER_ADDR")
    ports = ports_of(environment.get("DLBENCH_MASTER_PORTS") or environment.get("MASTER_PORT", ""))
    options = Options(
        as_root=os.geteuid() == 0,
        address=environment.get("DLBENCH_MASTER_ADDR", address),
        port=ports[0] if ports else DEFAULT_PORT,
        cpus_per_task=_number(environment.get("SLURM_CPUS_PER_TASK")),
        cpus_on_node=_number(environment.get("SLURM_CPUS_ON_NODE")),
    )
    if name == "mpirun":
        program = _program("mpirun", "pip install mpich mpi4py, or load the cluster's MPI module")
        options = Options(**{**vars(options), "mpirun": program, "mpi": mpi_of(_version_of(program))})
    if name == "srun":
        _program("srun", "run inside of a Slurm allocation")
    start = LAUNCHERS[name]
    return lambda case, folder: start(case, folder, options)


#: These may bind a rank to fewer cores than the process that calls them has.
_BINDING = ("srun", "mpirun")


def probe_argv(name: str, launcher: Launcher, models: Sequence[str] = ()) -> list[str]:
    """The words that ask a worker what it sees where this launcher starts it; see `dlbench.launch.probe`.

    Nothing where it sees what this process sees.
    """
    if name not in _BINDING:
        return []
    *words, _ = launcher(Case("any"), Path("probe"))
    return [*words, "--probe", *models]


def check(launcher: Launcher, cases: list[Case]) -> None:
    """Find out before the first case whether the launcher can start all of them.

    Raises:
        BadInput: one of them cannot be started so.
    """
    for case in cases:
        launcher(case, Path("attempt"))


def mpi_of(version: str) -> str:
    """Whose mpirun it is, by what `mpirun --version` prints: "openmpi" or "mpich" (Hydra: MPICH, Intel MPI)."""
    words = version.lower()
    return "openmpi" if any(sign in words for sign in ("open mpi", "open-mpi", "openmpi", "prte")) else "mpich"


def _one_node(case: Case, name: str) -> None:
    if case.nodes > 1:
        raise BadInput(
            f"the launcher '{name}' starts processes on this machine alone, but a case asks for {case.nodes} nodes; "
            "take --launcher srun, mpirun or torchrun"
        )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _program(name: str, hint: str) -> str:
    """The program beside our Python, as in a virtual environment, or else in PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise BadInput(f"--launcher {name}: there is no program '{name}' here; {hint}")
    return found


def _version_of(program: str) -> str:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr
