"""`dlbench doctor`: looks at the place it runs in and says in plain words what is wrong and how to mend it.

Works on a bare login node, inside a job and inside a container. Standard library only; what needs torch is asked of
the worker's probe, a process of its own. Each check is a function from a `Place` to findings and raises nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dlbench.launch.sites import FILE_RUNTIMES, Site

# Levels of a finding: ok, as it should be; note, worth knowing; warn, measures but less or worse; fail, will not work.
MIB = 2**20
#: A campaign needs so much in its results folder, and PyTorch's compilers so much in the temporary one [bytes].
MIN_RESULTS_BYTES = 64 * MIB
MIN_TEMPORARY_BYTES = 1024 * MIB
#: NCCL and the loaders of PyTorch fail with Docker's 64 MB [bytes].
MIN_SHARED_MEMORY_BYTES = 512 * MIB
#: Claims are judged by the time of their files; a clock further off would make a living owner look dead [s].
MAX_CLOCK_OFFSET_S = 60.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    level: str
    text: str
    mend: str = ""


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    status: int
    out: str
    err: str = ""


def run_command(argv: Sequence[str], timeout_s: float = 30.0) -> Answer | None:
    """Run a command; None when it is not there or hangs."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Answer(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Place:
    """Where the doctor looks: a machine, or what a test puts in its stead."""

    site: Site | None = None
    results: Path | None = None
    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    run: Callable[..., Answer | None] = run_command
    which: Callable[[str], str | None] = shutil.which

    def read(self, path: str) -> str | None:
        """The file's text without blanks around it; None where it cannot be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(errors="replace").strip()
        except OSError:
            return None

    def exists(self, path: str) -> bool:
        """Whether the path is there."""
        return (self.root / path.lstrip("/")).exists()

    def names(self, pattern: str) -> list[str]:
        """Names of what matches the pattern under the root."""
        return sorted(path.name for path in self.root.glob(pattern.lstrip("/")))

    @property
    def runtime(self) -> str:
        """The container runtime of the site's profile, or "none"."""
        return self.site.container.runtime if self.site else "none"


Check = Callable[[Place], Iterator[Finding]]


def examine(place: Place, checks: Iterable[Check] | None = None) -> list[Finding]:
    """All findings, in the order of the checks. A check that breaks is itself a finding."""
    found: list[Finding] = []
    for check in CHECKS if checks is None else checks:
        try:
            found.extend(check(place))
        except Exception as error:
            name = check.__name__.removeprefix("check_")
            found.append(Finding(name, "warn", f"could not be looked at: {type(error).__name__}: {error}"))
    return found


def exit_status(findings: Iterable[Finding]) -> int:
    """1 where something will not work."""
    return int(any(finding.level == "fail" for finding in findings))


def as_text(findings: Iterable[Finding]) -> str:
    """For people: a line for each finding, and below it how to mend what is not as it should be."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<5} {finding.check:<16} {finding.text}")
        if finding.mend:
            lines.append(f"{'':<23}-> {finding.mend}")
    return "\n".join(lines)


def as_json(findings: Iterable[Finding]) -> str:
    """For a support ticket: where, when and what."""
    return json.dumps(
        {
            "host": socket.gethostname(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "python": sys.version.split()[0],
            "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
            "findings": [dataclasses.asdict(finding) for finding in findings],
        },
        indent=1,
    )


def check_python(place: Place) -> Iterator[Finding]:
    """The interpreter that runs this."""
    yield Finding("python", "ok", f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})")


def check_packages(place: Place) -> Iterator[Finding]:
    """Whether this Python can measure and keep, told without the seconds that importing takes."""
    missing = [name for name in ("torch", "torchvision", "pyarrow") if find_spec(name) is None]
    if missing:
        yield Finding(
            "packages",
            "fail",
            f"{sys.executable} has no {', '.join(missing)}",
            "software.python in the profile must name the Python that has them; a container's image must bring them",
        )


def check_torch(place: Place) -> Iterator[Finding]:
    """PyTorch and what it sees."""
    answer = place.run([sys.executable, "-m", "dlbench.worker", "--probe"], 180.0)
    facts = _last_json(answer.out) if answer else None
    if facts is None:
        said = (
            ([*answer.err.strip().splitlines(), ""][-2] if answer.err.strip() else "nothing") if answer else "no answer"
        )
        inside = place.runtime != "none"
        yield Finding(
            "torch",
            "note" if inside or not place.environment.get("SLURM_JOB_ID") else "fail",
            f"this Python cannot measure: {said}",
            "planning, submitting and watching work without; what measures is the Python "
            + ("in the image" if inside else "of the jobs: pip install torch torchvision pyarrow nvidia-ml-py there"),
        )
        return
    built = f"for CUDA {facts['cuda_version']}" if facts.get("cuda_version") else "without CUDA"
    devices = facts.get("devices") or []
    names = [str(device.get("name")) for device in devices]
    sees = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "no GPU"
    yield Finding("torch", "ok", f"{facts.get('torch_version')}, built {built}; sees {sees}")
    if not devices and _nvidia_devices(place):
        yield _blind_torch(place, bool(facts.get("cuda_version")))
    if devices and facts.get("nccl_version"):
        yield Finding("nccl", "ok", str(facts["nccl_version"]))
    elif devices:
        mend = (
            "this PyTorch is built without it, or its library is missing: torch.distributed.is_nccl_available() tells"
        )
        yield Finding("nccl", "warn", "PyTorch names no version of NCCL: several GPUs cannot work together", mend)


def _blind_torch(place: Place, with_cuda: bool) -> Finding:
    text = "the node has NVIDIA devices, and PyTorch sees none"
    if not with_cuda:
        return Finding(
            "torch", "fail", text, "this PyTorch is built without CUDA: install one that is, or use the image"
        )
    if place.environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles"):
        value = place.environment["CUDA_VISIBLE_DEVICES"]
        return Finding(
            "torch", "fail", text, f"CUDA_VISIBLE_DEVICES is '{value}', which hides all: ask Slurm for a GPU"
        )
    return Finding(
        "torch",
        "fail",
        text,
        "in a container: NVIDIA_VISIBLE_DEVICES=all and NVIDIA_DRIVER_CAPABILITIES=compute,utility bring libcuda in; "
        "on the host: the driver may be older than this PyTorch's CUDA wants",
    )


def _last_json(text: str) -> dict[str, Any] | None:
    for line in reversed(text.strip().splitlines()):
        try:
            values = json.loads(line)
        except ValueError:
            continue
        return values if isinstance(values, dict) else None
    return None


def _nvidia_devices(place: Place) -> list[str]:
    return [name for name in place.names("/dev/nvidia*") if re.fullmatch(r"nvidia\d+", name)]


def check_gpu(place: Place) -> Iterator[Finding]:
    """GPU, driver, what NVML may say, clocks, and who else is there."""
    devices = _nvidia_devices(place)
    if not devices:
        wanted = place.site is not None and place.site.gpus.request != "none"
        in_job = bool(place.environment.get("SLURM_JOB_ID"))
        yield Finding(
            "gpu",
            "fail" if wanted and in_job else "note",
            "no NVIDIA device here",
            "the job got no GPU: see gpus.request and gpus.per_node in the profile" if wanted and in_job else "",
        )
        return
    answer = place.run(["nvidia-smi", f"--query-gpu={','.join(_GPU_COLUMNS)}", "--format=csv,noheader,nounits"])
    if answer is None or answer.status != 0:
        said = (answer.out or answer.err).strip().splitlines()[:1] if answer else ["nvidia-smi is not there"]
        yield Finding(
            "driver",
            "fail",
            f"{len(devices)} NVIDIA devices, but the driver does not answer: {' '.join(said)}",
            "on a host: load or mend the driver; in a container: NVIDIA_DRIVER_CAPABILITIES must have 'utility'",
        )
        return
    for line in answer.out.strip().splitlines():
        values = dict(zip(_GPU_COLUMNS, (value.strip() for value in line.split(",")), strict=False))
        yield from _gpu_findings(values)
    yield from _other_users(place)


_GPU_COLUMNS = ("index", "name", "driver_version", "power.draw", "power.limit", "clocks.sm", "clocks.max.sm",
                "clocks_throttle_reasons.active", "temperature.gpu", "memory.used", "mig.mode.current")  # fmt: skip
#: Bits of NVML's reasons for lower clocks that spoil a measurement; idle (1) and application clocks (2) do not.
_THROTTLE = {0x4: "power cap", 0x8: "hardware slowdown", 0x20: "thermal", 0x40: "hardware thermal", 0x80: "power brake"}


def _gpu_findings(gpu: Mapping[str, str]) -> Iterator[Finding]:
    name = f"GPU {gpu.get('index')}"
    yield Finding(
        "gpu", "ok", f"{name}: {gpu.get('name')}, driver {gpu.get('driver_version')}, limit {gpu.get('power.limit')} W"
    )
    refused = [key for key, value in gpu.items() if "Insufficient" in value or "No permission" in value]
    if refused:
        yield Finding(
            "nvml",
            "warn",
            f"{name}: the driver does not let this user read {', '.join(refused)}",
            "energy and clocks will be missing from the records; ask the site to allow reading NVML",
        )
    elif not _is_number(gpu.get("power.draw", "")):
        yield Finding("nvml", "warn", f"{name}: no power reading ({gpu.get('power.draw')})", "energy will be missing")
    bits = gpu.get("clocks_throttle_reasons.active", "")
    reasons = [text for bit, text in _THROTTLE.items() if re.fullmatch(r"0x[0-9a-fA-F]+", bits) and int(bits, 16) & bit]
    if reasons:
        yield Finding(
            "clocks",
            "warn",
            f"{name}: held back by {', '.join(reasons)} at {gpu.get('clocks.sm')} of {gpu.get('clocks.max.sm')} MHz, "
            f"{gpu.get('temperature.gpu')} °C",
            "let it cool, or take another node: the records would carry a warning",
        )
    if gpu.get("mig.mode.current") == "Enabled":
        yield Finding(
            "gpu", "warn", f"{name}: MIG is on: its slices have neither the whole device's speed nor its energy"
        )


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None


def _other_users(place: Place) -> Iterator[Finding]:
    answer = place.run(["nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader"])
    users = answer.out.strip().splitlines() if answer and answer.status == 0 else []
    if users:
        yield Finding(
            "gpu users",
            "warn",
            f"{len(users)} other processes compute on these GPUs: {'; '.join(users[:3])}",
            "take the node exclusively (slurm.exclusive = true), or wait",
        )


def check_energy(place: Place) -> Iterator[Finding]:
    """The energy counters of the processor."""
    if not place.exists("/sys/class/powercap/intel-rapl:0"):
        yield Finding("cpu energy", "note", "this machine has no RAPL counters: no energy of the processor")
    elif place.read("/sys/class/powercap/intel-rapl:0/energy_uj") is None:
        yield Finding(
            "cpu energy",
            "note",
            "the RAPL counters are there, and only root may read them",
            "chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj, by the site",
        )
    else:
        yield Finding("cpu energy", "ok", "RAPL counters can be read")


def check_network(place: Place) -> Iterator[Finding]:
    """Interfaces and InfiniBand, for several nodes."""
    interfaces = [name for name in place.names("/sys/class/net/*") if name != "lo"]
    wanted = place.site.network.interface if place.site else None
    if wanted and wanted not in interfaces:
        yield Finding(
            "network",
            "fail" if place.environment.get("SLURM_JOB_ID") else "note",
            f"there is no interface {wanted} here, only {', '.join(interfaces) or 'lo'}",
            "network.interface in the profile must name one of the compute nodes'; `ip -br addr` lists them",
        )
    boards = place.names("/sys/class/infiniband/*")
    yield Finding("network", "ok", f"{', '.join(interfaces) or 'lo only'}; InfiniBand: {', '.join(boards) or 'none'}")
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if boards and limit != resource.RLIM_INFINITY:
        yield Finding(
            "memlock",
            "warn",
            f"only {limit // 1024} KiB may be locked in memory: NCCL will fall back from InfiniBand",
            "ulimit -l unlimited; in Docker --ulimit memlock=-1; in Slurm PropagateResourceLimitsExcept=MEMLOCK",
        )


def check_mpi(place: Place) -> Iterator[Finding]:
    """MPI, and the way srun would start it."""
    program = next((name for name in ("mpirun", "mpiexec") if place.which(name)), None)
    if program:
        answer = place.run([program, "--version"])
        lines = answer.out.strip().splitlines() if answer else []
        yield Finding("mpi", "ok", f"{program}: {lines[0] if lines else 'gives no version'}")
    else:
        yield Finding("mpi", "note", "no mpirun on PATH; srun starts ranks without it")
    wanted = place.site.slurm.mpi if place.site else None
    if wanted and place.which("srun"):
        answer = place.run(["srun", "--mpi=list"])
        listed = answer.out + answer.err if answer else ""
        if wanted not in re.split(r"[\s,:]+", listed):
            yield Finding(
                "mpi",
                "fail",
                f"srun does not know --mpi={wanted}: every rank would believe that it is alone",
                f"slurm.mpi must be one of: {' '.join(listed.split()) or 'nothing'}",
            )


def check_slurm(place: Place) -> Iterator[Finding]:
    """The batch system, the profile's partition, and the pyxis plugin."""
    if not place.which("sbatch"):
        wanted = place.site is not None
        yield Finding(
            "slurm", "note", "sbatch is not here", "submit from a login node of the cluster" if wanted else ""
        )
        return
    answer = place.run(["scontrol", "ping"])
    if answer is None or "UP" not in answer.out:
        said = ((answer.out + answer.err).strip().splitlines() or ["nothing said"])[-1] if answer else "no answer"
        level = "fail" if place.site else "warn"
        yield Finding("slurm", level, f"Slurm's controller is not up: {said}", "wait, or ask the site")
        return
    version = place.run(["sbatch", "--version"])
    yield Finding("slurm", "ok", f"{version.out.strip() if version else 'Slurm'}; {answer.out.strip().splitlines()[0]}")
    partition = place.site.slurm.partition if place.site else None
    for name in partition.split(",") if partition else []:
        answer = place.run(["scontrol", "show", "partition", name])
        if answer is None or answer.status != 0:
            yield Finding("slurm", "fail", f"there is no partition '{name}'", "`sinfo -s` lists them: slurm.partition")
    if place.runtime == "pyxis":
        answer = place.run(["srun", "--help"])
        if answer is None or "--container-image" not in answer.out:
            yield Finding("pyxis", "fail", "srun has no --container-image: the plugin is not here",
                          'ask the site, or take container.runtime = "enroot"')  # fmt: skip
        else:
            yield Finding("pyxis", "ok", "srun has --container-image")
    answer = place.run(["sacct", "--noheader", "--allocations", "--jobs=1"])
    if answer is None or answer.status != 0:
        yield Finding(
            "slurm", "note", "no accounting (sacct): what became of old jobs is read from the results instead"
        )


def check_runtimes(place: Place) -> Iterator[Finding]:
    """Container runtimes, and whether this user may use the profile's."""
    found = [name for name in ("docker", "podman", "enroot", "apptainer", "udocker") if place.which(name)]
    yield Finding("runtimes", "ok" if found else "note", f"on PATH: {', '.join(found) or 'none'}")
    runtime = "enroot" if place.runtime == "pyxis" else place.runtime
    if runtime not in ("none", *found):
        level = "fail" if place.environment.get("SLURM_JOB_ID") and place.runtime != "pyxis" else "note"
        yield Finding(
            "runtimes", level, f"{runtime}, which the profile names, is not here", "it may be on the nodes only"
        )
    if runtime == "docker" and "docker" in found:
        answer = place.run(["docker", "info", "--format", "{{.ServerVersion}}"])
        if answer is None or answer.status != 0:
            said = (answer.err.strip().splitlines() or ["no answer"])[-1] if answer else "no answer"
            denied = "permission denied" in said.lower()
            mend = "ask to be in the group docker" if denied else "start the engine: systemctl start docker"
            yield Finding("runtimes", "fail", f"the Docker engine cannot be used: {said}", mend)
    gpus = place.site is not None and place.site.gpus.request != "none"
    if runtime == "podman" and gpus and not (place.names("/etc/cdi/*") + place.names("/var/run/cdi/*")):
        mend = "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml, by the site"
        yield Finding("runtimes", "fail", "Podman finds no GPU without a CDI file in /etc/cdi", mend)
    yield from _namespaces(place)
    yield from _image(place)


def _namespaces(place: Place) -> Iterator[Finding]:
    if place.runtime not in ("podman", "enroot", "pyxis", "apptainer"):
        return
    switches = ("/proc/sys/kernel/unprivileged_userns_clone", "/proc/sys/user/max_user_namespaces")
    off = [switch for switch in switches if place.read(switch) == "0"]
    restricted = place.read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1"
    if off:
        yield Finding(
            "user namespaces",
            "fail",
            f"switched off by {', '.join(off)}: {place.runtime} cannot start without root",
            "sysctl -w "
            + " ".join(f"{s.removeprefix('/proc/sys/').replace('/', '.')}=1" for s in off)
            + ", by the site",
        )
    elif restricted:
        yield Finding("user namespaces", "warn", "AppArmor restricts them: the runtime needs a profile of its own")
    else:
        yield Finding("user namespaces", "ok", "allowed")


def _image(place: Place) -> Iterator[Finding]:
    container = place.site.container if place.site else None
    if container is None or not container.image or container.runtime not in FILE_RUNTIMES:
        return
    if place.exists(container.image):
        yield Finding("image", "ok", container.image)
    else:
        yield Finding(
            "image", "fail", f"{container.image} is not there", "dlbench image import --site ... fetches it once"
        )


def check_folders(place: Place) -> Iterator[Finding]:
    """Results folder, temporary folder, shared memory: there, writable, with space, and on the same clock."""
    if place.results is not None:
        yield from _folder("results", place.results, MIN_RESULTS_BYTES, "choose another with --results")
    temporary = Path(place.environment.get("TMPDIR") or "/tmp")
    yield from _folder("temporary", place.root / str(temporary).lstrip("/"), MIN_TEMPORARY_BYTES, "set TMPDIR", "warn")
    shared = place.root / "dev/shm"
    if shared.is_dir():
        usage = os.statvfs(shared)
        size = usage.f_blocks * usage.f_frsize
        if size < MIN_SHARED_MEMORY_BYTES:
            yield Finding("shared memory", "warn", f"/dev/shm has only {size // MIB} MiB: NCCL and loaders will fail",
                          "docker run --ipc=host, or --shm-size=8g")  # fmt: skip
        else:
            yield Finding("shared memory", "ok", f"{size // MIB} MiB")


def _folder(check: str, folder: Path, least_bytes: int, mend: str, level: str = "fail") -> Iterator[Finding]:
    probe = folder / f".doctor-{socket.gethostname()}-{os.getpid()}"
    try:
        if check == "results":
            folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 4096)
        offset_s = probe.stat().st_mtime - time.time()
        probe.unlink()
        usage = os.statvfs(folder)
    except OSError as error:
        yield Finding(check, level, f"cannot write in {folder}: {error.strerror or error}", mend)
        return
    free = usage.f_bavail * usage.f_frsize
    if free < least_bytes:
        yield Finding(check, level, f"only {free // MIB} MiB free in {folder}, of {least_bytes // MIB} needed", mend)
    else:
        yield Finding(check, "ok", f"{folder}: {free // MIB} MiB free")
    if abs(offset_s) > MAX_CLOCK_OFFSET_S:
        yield Finding(
            "clock",
            "fail",
            f"the clock of {folder}'s server is {offset_s:+.0f} s off this node's: jobs would take each other's cases",
            "ask the site to set the time (chrony, NTP)",
        )


def check_mounts(place: Place) -> Iterator[Finding]:
    """The profile's mounts: here, or on every node of the allocation."""
    if place.site is None:
        return
    paths = [mount.source for mount in place.site.container.mounts]
    paths += [str(place.results)] if place.results else []
    nodes = place.environment.get("SLURM_JOB_NUM_NODES", "")
    if not paths:
        return
    if nodes.isdigit() and place.which("srun"):
        yield from _mounts_on_nodes(place, paths, int(nodes))
        return
    missing = [path for path in paths if not place.exists(path)]
    if missing:
        where = "here; they may be on the compute nodes only: run dlbench doctor inside of an allocation"
        yield Finding("mounts", "warn", f"{', '.join(missing)} not there", where)
    else:
        yield Finding("mounts", "ok", ", ".join(paths))


def _mounts_on_nodes(place: Place, paths: list[str], nodes: int) -> Iterator[Finding]:
    look = (
        'for path in "$@"; do [ -e "$path" ] || echo "$SLURMD_NODENAME lacks $path"; done; echo "$SLURMD_NODENAME seen"'
    )
    step = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    answer = place.run([*step, "sh", "-c", look, "sh", *paths], 120.0)
    lines = answer.out.splitlines() if answer else []
    lacking = sorted(line for line in lines if " lacks " in line)
    seen = sum(line.endswith(" seen") for line in lines)
    if lacking:
        yield Finding("mounts", "fail", "; ".join(lacking), "ask the site about that node, or leave it out (--exclude)")
    if seen < nodes:
        said = " ".join(answer.err.split()) if answer else "no answer"
        yield Finding("mounts", "fail", f"only {seen} of {nodes} nodes answer: {said}", "leave the silent nodes out")
    elif not lacking:
        yield Finding("mounts", "ok", f"{', '.join(paths)} on all {nodes} nodes")


CHECKS: tuple[Check, ...] = (
    check_python,
    check_torch,
    check_gpu,
    check_energy,
    check_network,
    check_mpi,
    check_slurm,
    check_runtimes,
    check_folders,
    check_mounts,
)
#: What each node of a job looks at before the first case, inside of its container; no torch, so that it takes a moment.
NODE_CHECKS: tuple[Check, ...] = (check_python, check_packages, check_folders)
