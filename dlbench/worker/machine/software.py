"""What surrounds the measurement on any Linux: container, libraries, environment, repository, job. Missing is None."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

#: Environment variables that can change a result, by prefix.
PREFIXES = ("CUDA_", "CUBLAS_", "CUDNN_", "NCCL_", "NVIDIA_", "OMP_", "KMP_", "GOMP_", "MKL_", "ONEDNN_", "OPENBLAS_",
            "TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "TRITON_", "SLURM_", "SRUN_", "OMPI_", "PMIX_", "PMI_", "MPICH_",
            "UCX_", "FI_", "HIP_", "ROCR_", "HSA_", "MIOPEN_", "LD_", "MALLOC_", "GLIBC_TUNABLES")  # fmt: skip
#: Single ones: the place among the ranks.
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: A name with one of these words in it is left out, whatever its prefix.
SECRET_WORDS = ("TOKEN", "SECRET", "PASSW", "CREDENTIAL", "API_KEY", "_JWT", "PRIVATE", "AUTH")
#: Markers in the environment that name a runtime, and the variable that names its image.
RUNTIME_VARIABLES = (
    ("pyxis", "PYXIS_CONTAINER_IMAGE", "PYXIS_CONTAINER_IMAGE"),
    ("pyxis", "SLURM_SPANK_OPTION_pyxis_container_image", "SLURM_SPANK_OPTION_pyxis_container_image"),
    ("apptainer", "APPTAINER_CONTAINER", "APPTAINER_CONTAINER"),
    ("apptainer", "SINGULARITY_CONTAINER", "SINGULARITY_CONTAINER"),
    ("enroot", "ENROOT_ROOTFS", "ENROOT_ROOTFS"),
    ("udocker", "UDOCKER_CONTAINER", "UDOCKER_CONTAINER"),
)
#: The launcher can say what no marker tells from inside: the image, with its digest.
IMAGE_VARIABLE = "DLBENCH_CONTAINER_IMAGE"
RUNTIME_VARIABLE = "DLBENCH_CONTAINER_RUNTIME"
#: Paths of the driver's and the network's libraries outside of the container, as the job script found them there.
HOST_LIBRARIES_VARIABLE = "DLBENCH_HOST_LIBRARIES"


def container(environment: Mapping[str, str], root: Path = Path("/")) -> tuple[str | None, str | None]:
    """Runtime and image of the container around this process; (None, None) outside of one.

    The runtime is read from its own marks: variables first, then files. The image is known where the runtime or the
    launcher put it into the environment.
    """
    image = environment.get(IMAGE_VARIABLE)
    if environment.get(RUNTIME_VARIABLE):
        return environment[RUNTIME_VARIABLE], image
    for runtime, mark, image_variable in RUNTIME_VARIABLES:
        if environment.get(mark):
            return runtime, image or environment.get(image_variable)
    if (root / "run/.containerenv").exists():
        return "podman", image or _podman_image(root / "run/.containerenv")
    if (root / ".dockerenv").exists():
        return "docker", image
    if (root / ".singularity.d").exists():
        return "apptainer", image
    if (root / "etc/rc.local").exists() and (root / "etc/enroot").exists():
        return "enroot", image
    return (environment["container"], image) if environment.get("container") else (None, image)


def _podman_image(file: Path) -> str | None:
    found = re.search(r'^image="(.*)"$', read_text(file) or "", re.MULTILINE)
    return found.group(1) if found else None


def environment_of_interest(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that can change a result, sorted, without secrets."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if (name.startswith(PREFIXES) or name in NAMES) and not any(word in name.upper() for word in SECRET_WORDS)
    }


def loaded_libraries(maps: Path = Path("/proc/self/maps")) -> list[str]:
    """Real paths of the shared libraries mapped into this process, each once; versions show in their names."""
    paths = set()
    for line in (read_text(maps) or "").splitlines():
        columns = line.split(maxsplit=5)
        if len(columns) == 6 and re.search(r"\.so(\.|$)", columns[5]):
            paths.add(columns[5])
    return sorted({str(Path(path).resolve()) for path in paths if "cpython" not in Path(path).name})


def linked_libraries(files: Iterable[Path]) -> list[str] | None:
    """What `ldd` says that these libraries are linked with, as "libcudnn.so.9 => its real path", each once.

    None where there is no ldd or no such file. Beside what is mapped, this shows what was not found.
    """
    command = ["ldd", *map(str, files)]
    if len(command) == 1:
        return None
    try:
        done = subprocess.run(
            command, env=os.environ | {"LC_ALL": "C"}, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.findall(r"^\s*(\S+) => (not found|/.*?)(?: \(0x[0-9a-f]+\))?$", done.stdout, re.MULTILINE)
    links = {f"{name} => {Path(path).resolve() if path.startswith('/') else path}" for name, path in found}
    return sorted(links) or None


def host_libraries(environment: Mapping[str, str]) -> list[str] | None:
    """The libraries that the container's runtime brings in from outside, by their paths there; None where unknown."""
    return environment.get(HOST_LIBRARIES_VARIABLE, "").split(":") if environment.get(HOST_LIBRARIES_VARIABLE) else None


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Commit of the checkout that holds `folder`, and whether tracked files differ from it; None outside of one."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    # --no-optional-locks: a status must not touch the index of a checkout that others work in.
    # safe.directory: in a container the checkout may belong to another user; its Python runs here all the same.
    command = ["git", "--no-optional-locks", "-c", "safe.directory=*", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def os_name(root: Path = Path("/")) -> str | None:
    """PRETTY_NAME of os-release, such as "Debian GNU/Linux 12 (bookworm)"."""
    for file in (root / "etc/os-release", root / "usr/lib/os-release"):
        found = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', read_text(file) or "", re.MULTILINE)
        if found:
            return found.group(1)
    return None


def read_text(file: Path) -> str | None:
    """Content of `file` without white space at its ends; None where it cannot be read."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return None


def slurm_job(environment: Mapping[str, str] | None = None) -> str | None:
    """Id of the Slurm job around this process."""
    return (os.environ if environment is None else environment).get("SLURM_JOB_ID")
