"""Rank launchers: pure functions from a case, its attempt folder and options to the launch command.

| launcher | starts the ranks by | rendezvous by |
|---|---|---|
| local | this process, or `dlbench.launch.spawn` where a case has several ranks; one machine | RANK, MASTER_ADDR, ... |
| torchrun | `python -m torch.distributed.run`, on several nodes one per node under srun | its own store |
| mpirun | Open MPI's or MPICH's mpirun | mpi4py broadcasts rank 0's address and port |
| srun | Slurm, one task per device | MASTER_ADDR and DLBENCH_MASTER_PORTS of the job |

Every rank sees all devices of its node and takes that of its local rank. `dlbench.worker.ranks.context` detects which
rank a process is.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dlbench.errors import BadInput, UnknownName
from dlbench.ports import parse_ports
from dlbench.suites.case import Case

Launcher = Callable[[Case, Path], list[str]]
#: The module that does the request in a folder.
WORKER_MODULE = "dlbench.worker"
#: Default rendezvous port of torchrun on several nodes (DLBENCH_MASTER_PORTS or MASTER_PORT override it).
DEFAULT_PORT = 29_400


@dataclass(frozen=True)
class LauncherOptions:
    """Options of a launcher besides the case."""

    python: str = sys.executable
    #: The mpirun to call, and its implementation: "mpich" or "openmpi".
    mpirun: str = "mpirun"
    mpi: str = "mpich"
    #: Open MPI runs as root only with two options.
    as_root: bool = False
    #: torchrun on several nodes: name or address of the first node, and rendezvous port.
    address: str | None = None
    port: int = DEFAULT_PORT
    #: Cores per task of the job (srun does not inherit them), and all cores of the job on this node.
    cpus_per_task: int | None = None
    cpus_on_node: int | None = None


def local_command(case: Case, folder: Path, options: LauncherOptions | None = None) -> list[str]:
    """Launch on this machine: a direct child, or several under a spawner. Raises BadInput for several nodes."""
    options = options or LauncherOptions()
    if case.nodes > 1:
        raise BadInput(
            f"launcher 'local' starts processes only on this machine, but a case needs {case.nodes} nodes; use "
            f"--launcher srun, mpirun or torchrun"
        )
    worker = [options.python, "-m", WORKER_MODULE, str(folder)]
    if case.world_size == 1 and not case.is_distributed:
        return worker
    return [options.python, "-m", "dlbench.launch.spawn", str(case.world_size), "--", *worker]


def torchrun_command(case: Case, folder: Path, options: LauncherOptions) -> list[str]:
    """Launch by torchrun: an agent per node starts its ranks, srun the agents. Raises BadInput without an address."""
    agent = [options.python, "-m", "torch.distributed.run"]
    ranks = [f"--nnodes={case.nodes}", f"--nproc-per-node={case.devices_per_node}", "--max-restarts=0"]
    worker = ["-m", WORKER_MODULE, str(folder)]
    if case.nodes == 1:
        return [*agent, "--standalone", *ranks, *worker]
    if options.address is None:
        raise BadInput(
            f"torchrun on {case.nodes} nodes needs the address of the first node; set MASTER_ADDR to an address "
            f"that all nodes can reach"
        )
    meet = ["--rdzv-backend=c10d", f"--rdzv-endpoint={options.address}:{options.port}", f"--rdzv-id={folder.name}"]
    step = ["srun", "--kill-on-bad-exit=1", "--wait=60", f"--nodes={case.nodes}", f"--ntasks={case.nodes}"]
    # The agent needs the cores of all its ranks.
    step += _cores_option(options, case, case.devices_per_node)
    return [*step, "--ntasks-per-node=1", *agent, *meet, *ranks, *worker]


def mpirun_command(case: Case, folder: Path, options: LauncherOptions) -> list[str]:
    """Launch by mpirun; with `python -m mpi4py` an exception in one rank ends all."""
    worker = [options.python, "-m", "mpi4py", "-m", WORKER_MODULE, str(folder)]
    if options.mpi == "openmpi":
        placed = ["--map-by", f"ppr:{case.devices_per_node}:node:oversubscribe", "--bind-to", "none"]
        root = ["--allow-run-as-root"] if options.as_root else []
        return [options.mpirun, "-n", str(case.world_size), *root, *placed, *worker]
    return [options.mpirun, "-n", str(case.world_size), "-ppn", str(case.devices_per_node), *worker]


def srun_command(case: Case, folder: Path, options: LauncherOptions) -> list[str]:
    """Launch by srun: one task per rank; if one fails, Slurm ends the others."""
    step = ["srun", "--kill-on-bad-exit=1", "--wait=60", f"--nodes={case.nodes}", f"--ntasks={case.world_size}"]
    step += [*_cores_option(options, case, 1), f"--ntasks-per-node={case.devices_per_node}"]
    # The name identifies the step if srun itself is killed; see `scheduler.cancel_steps`.
    return [*step, f"--job-name={folder.name}", options.python, "-m", WORKER_MODULE, str(folder)]


def _cores_option(options: LauncherOptions, case: Case, num_ranks: int) -> list[str]:
    """Return the option for the cores of a task with `num_ranks` ranks; empty if the job does not define cores."""
    if not options.cpus_per_task or not options.cpus_on_node:
        return []
    # More ranks than the job was submitted for share its cores.
    cores = min(options.cpus_per_task, options.cpus_on_node // case.devices_per_node)
    return [f"--cpus-per-task={cores * num_ranks}"] if cores else []


LAUNCHERS: dict[str, Callable[[Case, Path, LauncherOptions], list[str]]] = {
    "local": local_command,
    "torchrun": torchrun_command,
    "mpirun": mpirun_command,
    "srun": srun_command,
}


def find_launcher(name: str, environment: Mapping[str, str] | None = None) -> Launcher:
    """The launcher `name`, configured for this machine. Raises UnknownName, or BadInput without its program."""
    environment = os.environ if environment is None else environment
    if name not in LAUNCHERS:
        raise UnknownName("launcher", name, LAUNCHERS, "--launcher")
    address = environment.get("MASTER_ADDR")
    ports = parse_ports(environment.get("DLBENCH_MASTER_PORTS") or environment.get("MASTER_PORT", ""))
    options = LauncherOptions(
        as_root=os.geteuid() == 0,
        address=environment.get("DLBENCH_MASTER_ADDR", address),
        port=ports[0] if ports else DEFAULT_PORT,
        cpus_per_task=_parse_integer_or_none(environment.get("SLURM_CPUS_PER_TASK")),
        cpus_on_node=_parse_integer_or_none(environment.get("SLURM_CPUS_ON_NODE")),
    )
    if name == "mpirun":
        program = _find_program("mpirun", "pip install mpich mpi4py, or load the cluster's MPI module")
        options = replace(options, mpirun=program, mpi=mpi_implementation(_program_version(program)))
    if name == "srun":
        _find_program("srun", "run inside a Slurm allocation")
    start = LAUNCHERS[name]
    return lambda case, folder: start(case, folder, options)


#: More processes than any node has devices or cores would exhaust the machine before they fail.
MAX_RANKS_PER_NODE = 1024
#: Launchers that may bind a rank to fewer cores than the calling process has.
_CORE_BINDING_LAUNCHERS = ("srun", "mpirun")


def rank_probe_argv(name: str, launcher: Launcher, models: Sequence[str] = ()) -> list[str]:
    """The command that probes the devices of a rank (see `dlbench.launch.probe`); [] if those of this process."""
    if name not in _CORE_BINDING_LAUNCHERS:
        return []
    *words, _ = launcher(Case("any"), Path("probe"))
    return [*words, "--probe", *models]


def check_launcher(launcher: Launcher, cases: list[Case]) -> None:
    """Check before the first case that the launcher can start all cases. Raises BadInput if it cannot."""
    for case in cases:
        if case.devices_per_node > MAX_RANKS_PER_NODE:
            raise BadInput(f"devices_per_node is {case.devices_per_node}; at most {MAX_RANKS_PER_NODE} are possible")
        launcher(case, Path("attempt"))


def mpi_implementation(version: str) -> str:
    """The implementation, by `mpirun --version`: "openmpi", or "mpich" for Hydra (MPICH, Intel MPI)."""
    words = version.lower()
    return "openmpi" if any(sign in words for sign in ("open mpi", "open-mpi", "openmpi", "prte")) else "mpich"


def _parse_integer_or_none(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _find_program(name: str, hint: str) -> str:
    """Find the program next to the current Python (virtual environment), else on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    if found is None:
        raise BadInput(f"--launcher {name}: program '{name}' was not found; {hint}")
    return found


def _program_version(program: str) -> str:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr
