"""Software around the measurement: container, libraries, environment, repository, job. None if unknown."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

#: Prefixes of environment variables that can change a result.
PREFIXES = ("CUDA_", "CUBLAS_", "CUDNN_", "NCCL_", "NVIDIA_", "OMP_", "KMP_", "GOMP_", "MKL_", "ONEDNN_", "OPENBLAS_",
            "TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "TRITON_", "SLURM_", "SRUN_", "OMPI_", "PMIX_", "PMI_", "MPICH_",
            "UCX_", "FI_", "HIP_", "ROCR_", "HSA_", "MIOPEN_", "LD_", "MALLOC_", "GLIBC_TUNABLES")  # fmt: skip
#: Single ones: the place among the ranks.
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: Names that contain one of these words are excluded.
SECRET_WORDS = ("TOKEN", "SECRET", "PASSW", "CREDENTIAL", "API_KEY", "_JWT", "PRIVATE", "AUTH")
#: Variable with the image of a runtime -> the runtime.
RUNTIME_VARIABLES = {
    "PYXIS_CONTAINER_IMAGE": "pyxis",
    "SLURM_SPANK_OPTION_pyxis_container_image": "pyxis",
    "APPTAINER_CONTAINER": "apptainer",
    "SINGULARITY_CONTAINER": "apptainer",
    "ENROOT_ROOTFS": "enroot",
    "UDOCKER_CONTAINER": "udocker",
}
#: Variable in which the launcher passes the image with its digest.
IMAGE_VARIABLE = "DLBENCH_CONTAINER_IMAGE"
RUNTIME_VARIABLE = "DLBENCH_CONTAINER_RUNTIME"
#: Paths of driver and network libraries outside the container, found by the job script.
HOST_LIBRARIES_VARIABLE = "DLBENCH_HOST_LIBRARIES"


def detect_container(environment: Mapping[str, str], root: Path = Path("/")) -> tuple[str | None, str | None]:
    """Return runtime and image of the container of this process; (None, None) outside a container.

    The runtime is detected from variables, then files. The image is known if runtime or launcher set a variable.
    """
    image = environment.get(IMAGE_VARIABLE)
    if environment.get(RUNTIME_VARIABLE):
        return environment[RUNTIME_VARIABLE], image
    for variable, runtime in RUNTIME_VARIABLES.items():
        if environment.get(variable):
            return runtime, image or environment[variable]
    if (root / "run/.containerenv").exists():
        found = re.search(r'^image="(.*)"$', read_text_or_none(root / "run/.containerenv") or "", re.MULTILINE)
        return "podman", image or (found.group(1) if found else None)
    if (root / ".dockerenv").exists():
        return "docker", image
    if (root / ".singularity.d").exists():
        return "apptainer", image
    if (root / "etc/rc.local").exists() and (root / "etc/enroot").exists():
        return "enroot", image
    return (environment["container"], image) if environment.get("container") else (None, image)


def relevant_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables that can change a result, sorted, without secrets."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if (name.startswith(PREFIXES) or name in NAMES) and not any(word in name.upper() for word in SECRET_WORDS)
    }


def loaded_libraries(maps: Path = Path("/proc/self/maps")) -> list[str]:
    """Return the real paths of shared libraries mapped into this process, each once; names contain versions."""
    paths = set()
    for line in (read_text_or_none(maps) or "").splitlines():
        columns = line.split(maxsplit=5)
        if len(columns) == 6 and re.search(r"\.so(\.|$)", columns[5]):
            paths.add(columns[5])
    return sorted({str(Path(path).resolve()) for path in paths if "cpython" not in Path(path).name})


def linked_libraries(files: Iterable[Path]) -> list[str] | None:
    """Return the libraries linked by these libraries, from `ldd`, as "libcudnn.so.9 => its real path", each once.

    None without ldd or file. Also lists libraries that were not found.
    """
    command = ["ldd", *map(str, files)]
    done = _run_program(command, 30) if len(command) > 1 else None
    if done is None:
        return None
    found = re.findall(r"^\s*(\S+) => (not found|/.*?)(?: \(0x[0-9a-f]+\))?$", done.stdout, re.MULTILINE)
    links = {f"{name} => {Path(path).resolve() if path.startswith('/') else path}" for name, path in found}
    return sorted(links) or None


def host_libraries(environment: Mapping[str, str]) -> list[str] | None:
    """Return the libraries that the runtime mounts from the host, by host path; None if unknown."""
    return environment.get(HOST_LIBRARIES_VARIABLE, "").split(":") if environment.get(HOST_LIBRARIES_VARIABLE) else None


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Return the commit of the checkout of `folder`, and whether tracked files differ; None outside a checkout."""
    commit = _run_git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None, None
    changes = _run_git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit, None if changes is None else bool(changes)


def _run_git(folder: Path, *arguments: str) -> str | None:
    # --no-optional-locks: do not touch the index of a checkout in use. safe.directory: in a container the checkout may
    # belong to another user.
    done = _run_program(["git", "--no-optional-locks", "-c", "safe.directory=*", "-C", str(folder), *arguments], 10)
    return done.stdout.strip() if done is not None and done.returncode == 0 else None


def _run_program(argv: list[str], timeout_s: float) -> subprocess.CompletedProcess[str] | None:
    """Run a program with English output; None if it is missing or hangs."""
    environment = os.environ | {"LC_ALL": "C"}
    try:
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


def os_name(root: Path = Path("/")) -> str | None:
    """PRETTY_NAME of os-release, such as "Debian GNU/Linux 12 (bookworm)"."""
    for file in (root / "etc/os-release", root / "usr/lib/os-release"):
        found = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', read_text_or_none(file) or "", re.MULTILINE)
        if found:
            return found.group(1)
    return None


def read_text_or_none(file: Path) -> str | None:
    """Return the stripped content of `file`; None if it cannot be read."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return None
