"""Container runtimes: pure functions from an image and the surroundings of a command to its prefix.

srun runs outside the container, mpirun and local inside:  srun OPTIONS  PREFIX  python3 -m dlbench ...
Each runtime loses, hides or copies different things; the comments describe them and their effect on measurements.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from dlbench.errors import BadInput

Argv = tuple[str, ...]

#: What a person may set to change how ranks meet, in a profile or around `dlbench submit`; see
#: `worker.ranks.rendezvous`.
OVERRIDE_VARIABLES = ("DLBENCH_MASTER_ADDR", "DLBENCH_MASTER_PORTS", "DLBENCH_INTERFACE", "DLBENCH_RENDEZVOUS_S")

#: Variables that exist only in a running rank. Runtimes with an empty environment pass them by name.
PASSED_VARIABLES = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
    *("SLURM_JOB_ID", "SLURM_JOB_PARTITION", "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES", "SLURM_ARRAY_JOB_ID"),
    *("SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_STEP_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    *("SLURM_NODEID", "SLURM_CPUS_PER_TASK", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE", "SLURMD_NODENAME"),
    *OVERRIDE_VARIABLES,
)
#: Variables of srun's MPI plugins.
PASSED_MPI_VARIABLES = (
    *("PMI_FD", "PMI_RANK", "PMI_SIZE", "PMI_JOBID", "PMIX_RANK", "PMIX_NAMESPACE", "PMIX_HOSTNAME"),
    *("PMIX_SERVER_URI2", "PMIX_SERVER_URI21", "PMIX_SERVER_URI3", "PMIX_SERVER_URI4", "PMIX_SERVER_URI41"),
    *("PMIX_SERVER_TMPDIR", "PMIX_SYSTEM_TMPDIR", "PMIX_SECURITY_MODE", "PMIX_GDS_MODULE", "PMIX_BFROP_BUFFER_TYPE"),
)


@dataclass(frozen=True)
class Mount:
    """A folder of the host that is seen inside the container."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class CommandRequirements:
    """What a command in a container needs, whatever the runtime."""

    workdir: str
    mounts: tuple[Mount, ...] = ()
    variables: Argv = ()  # names; values come from the environment of the process that starts the container
    gpus: bool = False
    mpi: bool = False  # srun starts the ranks through an MPI plugin
    nodes: int = 1
    user: str = ""  # "uid:gid" of the person, for runtimes that would make root's files
    name: str = "dlbench"  # of containers made for one job
    options: Argv = ()  # the profile's own options for the runtime


@dataclass(frozen=True)
class ContainerWrapping:
    """Commands and options by which a runtime runs a command in the container."""

    srun: Argv = ()  # options of srun itself
    prefix: Argv = ()  # the words before the command
    environment: dict[str, str] = field(default_factory=dict)  # to be set outside, before
    prepare: tuple[Argv, ...] = ()  # commands on every node, before the first step
    prepare_once: bool = False  # the store is shared: on one node is enough
    cleanup: tuple[Argv, ...] = ()  # where `prepare` ran, at the end
    digest: Argv = ()  # prints what the image really is, where only the node can tell


#: Nothing of the host's environment goes in but by name, and a name that is not set goes in as an empty text: an empty
#: CUDA_VISIBLE_DEVICES hides every GPU. So each rank names what it has. The names are $0, Enroot's options follow up to
#: `--`, then the container and its command.
_ENROOT_START = (
    'options=(); while [ "$1" != -- ]; do options+=("$1"); shift; done; '
    'for name in $0; do [ -z "${!name+set}" ] || options+=(--env "$name"); done; '
    'exec enroot start "${options[@]}" "$2-$SLURMD_NODENAME" "${@:3}"'
)
#: Enroot stores unpacked images in the user's home, possibly shared by nodes: the name contains the node.
_ENROOT_CREATE = 'exec enroot create --name "$0-$SLURMD_NODENAME" "$1"'
#: Leftovers of a job that was cancelled or reached its limit (no step starts then): its containers, and its folder in
#: /tmp. The next job removes those of this user and of jobs no longer in the queue.
_IF_JOB_ENDED = (
    # A queue that lacks the current job belongs to another cluster: do nothing.
    'jobs=$(squeue --noheader --user="$(id -un)" --format=%A) && grep -qx "$SLURM_JOB_ID" <<<"$jobs" || exit 0; '
    'ended() { [[ $1 =~ ^[0-9]+$ ]] && ! grep -qx "$1" <<<"$jobs"; }; '
)
_SWEEP_FOLDERS = (
    "for folder in /tmp/dlbench-*; do "
    'if [ -d "$folder" ] && [ ! -L "$folder" ] && [ -O "$folder" ] && ended "${folder#/tmp/dlbench-}"; then '
    'rm -rf "$folder"; fi; done; true'
)
_ENROOT_SWEEP = (
    f"{_IF_JOB_ENDED}for name in $(enroot list); do id=${{name#dlbench-}}; "
    'case $name in dlbench-*-"$SLURMD_NODENAME") '
    'if ended "${id%%-*}"; then enroot remove --force "$name"; fi ;; esac; done; '
    f"{_SWEEP_FOLDERS}"
)
_ENROOT_REMOVE = 'enroot remove --force "$0-$SLURMD_NODENAME"; rm -rf "/tmp/$0"'
#: pyxis stores named containers in Enroot, with a prefix; it reads the site's configuration, not the job's variables.
_PYXIS_ENROOT = "env -u ENROOT_DATA_PATH enroot"
_PYXIS_SWEEP = (
    f"{_IF_JOB_ENDED}for name in $({_PYXIS_ENROOT} list); do "
    'case $name in pyxis_dlbench-* | pyxis_[0-9]*_dlbench-*) if ended "${name##*dlbench-}"; then '
    f'{_PYXIS_ENROOT} remove --force "$name"; fi ;; esac; done; {_SWEEP_FOLDERS}'
)


def wrap_with_docker(image: str, needs: CommandRequirements) -> ContainerWrapping:
    """`docker run`: on one node only. Raises BadInput if several are asked for."""
    if needs.nodes > 1:
        raise BadInput(
            f"docker cannot run on {needs.nodes} nodes: a Docker engine is limited to its node, and Slurm does not "
            f"control its processes; use enroot, pyxis or apptainer"
        )
    own = (
        *(("--gpus", "all") if needs.gpus else ()),
        # NCCL and the loaders of PyTorch need more shared memory than Docker's 64 MB.
        *("--ipc=host", "--network=host"),
        # Claims and attempts identify their owner by process id, which is valid only in the host's PID namespace.
        "--pid=host",
        # NCCL registers memory with the network card; an engine inside a container may not raise limits.
        *(("--ulimit", "memlock=-1", "--ulimit", "stack=67108864") if needs.gpus else ()),
        # The user has no home and no name inside: caches go to /tmp, and PyTorch needs the name.
        *(() if needs.user in ("", "0:0") else ("--user", needs.user, "--env", "HOME=/tmp", "--env", "USER")),
    )
    # Not --volume, which creates a missing source as an empty folder owned by root.
    mounts = [
        f"type=bind,source={mount.source},target={mount.target}{',readonly' if mount.read_only else ''}"
        for mount in needs.mounts
    ]
    return _wrap_with_engine("docker", image, needs, own, _option_per_value("--mount", mounts))


def wrap_with_podman(image: str, needs: CommandRequirements) -> ContainerWrapping:
    """`podman run`; GPUs come through the CDI file that `nvidia-ctk cdi generate` writes."""
    own = (
        *(("--device", "nvidia.com/gpu=all") if needs.gpus else ()),
        *("--ipc=host", "--network=host", "--pid=host"),
        "--security-opt=label=disable",
        # Without root no limit can be raised: keep those of the node.
        "--ulimit=host",
        *(() if needs.user in ("", "0:0") else ("--userns=keep-id",)),
    )
    mounts = _option_per_value("--volume", [_volume_option_value(mount) for mount in needs.mounts])
    return _wrap_with_engine("podman", image, needs, own, mounts)


def _wrap_with_engine(
    engine: str, image: str, needs: CommandRequirements, own: Argv, mounts: Argv
) -> ContainerWrapping:
    """Return how an engine that understands Docker's options runs a command, with its `own` options for this node."""
    prefix = (
        *(engine, "run", "--rm", *own),
        # Killing the client leaves the container running: it is found by its label.
        *("--label", f"dlbench={needs.name}"),
        *mounts,
        *("--workdir", needs.workdir),
        # By name: values are those of each rank, and are not visible in process lists.
        *_option_per_value("--env", _container_variable_names(needs)),
        *needs.options,
        image,
    )
    remove = f'{engine} ps --quiet --filter "label=dlbench=$1" | xargs -r {engine} rm --force'
    digest = (engine, "image", "inspect", "--format", "{{.Id}}", image)
    return ContainerWrapping(prefix=prefix, cleanup=(("sh", "-c", remove, "sh", needs.name),), digest=digest)


def wrap_with_enroot(image: str, needs: CommandRequirements) -> ContainerWrapping:
    """`enroot start` of a container that `enroot create` has unpacked on every node."""
    # Fields of fstab, separated by colons.
    mounts = [
        f"{mount.source}:{mount.target}{':none:x-create=auto,rbind,ro' if mount.read_only else ''}"
        for mount in needs.mounts
    ]
    prefix = (
        *("bash", "-c", _ENROOT_START, " ".join(_container_variable_names(needs, _nvidia_variables(needs)))),
        "--rw",
        *_option_per_value("--mount", mounts),
        *needs.options,
        *("--", needs.name),
    )
    return ContainerWrapping(
        prefix=prefix,
        # Enroot stores files of a run there by default; the folder of the login node is missing on other nodes.
        environment={**_nvidia_variables(needs), "XDG_RUNTIME_DIR": f"/tmp/{needs.name}"},
        prepare=(("bash", "-c", _ENROOT_SWEEP), ("bash", "-c", _ENROOT_CREATE, needs.name, image)),
        cleanup=(("bash", "-c", _ENROOT_REMOVE, needs.name),),
    )


def wrap_with_pyxis(image: str, needs: CommandRequirements) -> ContainerWrapping:
    """Options of srun, which the pyxis plugin of Slurm adds; never on sbatch, whose script would run inside."""
    mounts = ",".join(_volume_option_value(mount) for mount in needs.mounts)
    srun = (
        f"--container-image={image}",
        # Named, so that the steps of a job unpack the image only once.
        f"--container-name={needs.name}",
        *((f"--container-mounts={mounts}",) if mounts else ()),
        f"--container-workdir={needs.workdir}",
        # The environment of the host is passed, but values of the image override it unless named.
        f"--container-env={','.join((*needs.variables, *_nvidia_variables(needs)))}",
        *needs.options,
    )
    # Some sites keep named containers after the job, which would fill the disk of the node.
    return ContainerWrapping(
        srun=srun,
        environment=_nvidia_variables(needs),
        prepare=(("bash", "-c", _PYXIS_SWEEP),),
        cleanup=((*_PYXIS_ENROOT.split(), "remove", "--force", f"pyxis_{needs.name}"),),
    )


def wrap_with_apptainer(image: str, needs: CommandRequirements) -> ContainerWrapping:
    """`apptainer exec`, with the host's environment; never `--cleanenv`, which would remove the variables of ranks."""
    prefix = (
        *("apptainer", "exec"),
        *(("--nv",) if needs.gpus else ()),
        *_option_per_value("--bind", [_volume_option_value(mount) for mount in needs.mounts]),
        *("--pwd", needs.workdir),
        *needs.options,
        image,
    )
    return ContainerWrapping(prefix=prefix)


def wrap_with_udocker(image: str, needs: CommandRequirements) -> ContainerWrapping:
    """`udocker run` in mode F3 (library preload). The driver is copied in at set-up, hence a set-up for each job.

    Raises BadInput if a mount is read-only, which udocker does not support.
    """
    if any(mount.read_only for mount in needs.mounts):
        raise BadInput("udocker has no read-only mounts; remove ':ro' from container.mounts")
    prefix = (
        *("udocker", "run", "--hostenv"),
        *[f"--volume={mount.source}:{mount.target}" for mount in needs.mounts],
        f"--workdir={needs.workdir}",
        *needs.options,
        needs.name,
    )
    setup = ("udocker", "setup", "--execmode=F3", *(("--nvidia",) if needs.gpus else ()), needs.name)
    return ContainerWrapping(
        prefix=prefix,
        prepare=(("udocker", "create", f"--name={needs.name}", image), setup),
        prepare_once=True,
        cleanup=(("udocker", "rm", needs.name),),
    )


def _container_variable_names(needs: CommandRequirements, more: Iterable[str] = ()) -> Argv:
    of_mpi = PASSED_MPI_VARIABLES if needs.mpi else ()
    return tuple(dict.fromkeys((*needs.variables, *more, *PASSED_VARIABLES, *of_mpi)))


def _option_per_value(option: str, values: list[str] | Argv) -> Argv:
    return tuple(word for value in values for word in (option, value))


def _volume_option_value(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"


def _nvidia_variables(needs: CommandRequirements) -> dict[str, str]:
    """Variables of NVIDIA's runtime: without the first there is no GPU inside, without the second no libcuda."""
    if not needs.gpus:
        return {"NVIDIA_VISIBLE_DEVICES": "void"}
    return {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
