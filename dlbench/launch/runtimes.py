"""Container runtimes: one record each, used by launcher, site check, image import and doctor.

The functions that run commands in a container and clean up are in `containers`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dlbench.launch import containers
from dlbench.launch.containers import Argv, CommandRequirements, ContainerWrapping


@dataclass(frozen=True)
class ImageFile:
    """Image format that is a file on a shared disk."""

    kind: str
    magic: bytes  # how the file begins, from byte `offset` on
    offset: int
    fetch: Callable[[str, Path], list[str]]  # the command that fetches a source into the file


@dataclass(frozen=True)
class ContainerRuntime:
    """Properties of one runtime, besides its command prefix."""

    wrap: Callable[[str, CommandRequirements], ContainerWrapping]  # raises BadInput for what it does not support
    program: str | None = None  # is on PATH where the runtime is
    image_file: ImageFile | None = None  # None: images are in a store of its own, under a name
    pull: tuple[str, ...] = ("pull", "tag", "inspect")  # what the store can do
    needs_user_namespaces: bool = False
    shares_node: bool = False  # what it starts Slurm neither binds nor counts
    engine_query: Argv = ()  # answers where this user may use the engine
    gpu_files: tuple[str, ...] = ()  # without any of these there is no GPU inside
    storage_advice: str | None = None  # it unpacks images: what moves the place to a disk of the node
    storage_query: Argv = ()  # prints where; without it Enroot's settings say so


def _apptainer_pull_command(source: str, target: Path) -> list[str]:
    # Enroot separates registry and image by '#'; Apptainer uses '/'.
    plain = source.replace("#", "/")
    if plain.startswith("dockerd://"):
        # Without a tag Enroot uses latest; Apptainer requires one.
        name = plain.removeprefix("dockerd://")
        tagged = ":" in name.rpartition("/")[2] or "@" in name
        plain = f"docker-daemon:{name}" if tagged else f"docker-daemon:{name}:latest"
    return ["apptainer", "pull", str(target), plain]


_SQUASHFS = ImageFile("squashfs", b"hsqs", 0, lambda source, file: ["enroot", "import", "--output", str(file), source])

RUNTIME_RECORDS = {
    "none": ContainerRuntime(lambda image, needs: ContainerWrapping()),
    "docker": ContainerRuntime(
        containers.wrap_with_docker,
        "docker",
        shares_node=True,
        engine_query=("docker", "info", "--format", "{{.ServerVersion}}"),
    ),
    "podman": ContainerRuntime(
        containers.wrap_with_podman,
        "podman",
        shares_node=True,
        needs_user_namespaces=True,
        gpu_files=("/etc/cdi/*", "/var/run/cdi/*"),
        storage_advice="set graphroot in ~/.config/containers/storage.conf to a local disk of the node",
        storage_query=("podman", "info", "--format", "{{.Store.GraphRoot}}"),
    ),
    "enroot": ContainerRuntime(
        containers.wrap_with_enroot,
        "enroot",
        _SQUASHFS,
        needs_user_namespaces=True,
        storage_advice="set environment.ENROOT_DATA_PATH in the profile to a local disk of the nodes",
    ),
    "pyxis": ContainerRuntime(
        containers.wrap_with_pyxis,
        "enroot",
        _SQUASHFS,
        needs_user_namespaces=True,
        storage_advice="ask the administrators to set ENROOT_DATA_PATH in /etc/enroot/enroot.conf to a local disk, "
        "such as /tmp/enroot-data/user-$(id -u); pyxis ignores the variable in the profile and in the job. Until the "
        "administrators have set it, use slurm.max_nodes = 1",
    ),
    "apptainer": ContainerRuntime(
        containers.wrap_with_apptainer,
        "apptainer",
        ImageFile("SIF", b"SIF_MAGIC", 32, _apptainer_pull_command),
        needs_user_namespaces=True,
    ),
    "udocker": ContainerRuntime(containers.wrap_with_udocker, "udocker", pull=("pull",)),
}
RUNTIMES = tuple(RUNTIME_RECORDS)
#: Programs of all runtimes, each once.
PROGRAMS = tuple(dict.fromkeys(record.program for record in RUNTIME_RECORDS.values() if record.program))
