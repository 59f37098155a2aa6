"""Description of machine and software for the record, and the key that identifies them."""

import hashlib
import importlib.metadata
import json
import os
import platform
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from dlbench import units
from dlbench.affinity import allowed_cores, is_thread_count_from_torchrun
from dlbench.free_memory import cgroup_limits, own_and_parent_cgroups
from dlbench.results.records import System
from dlbench.version import __version__
from dlbench.worker import accelerators
from dlbench.worker.machine import software
from dlbench.worker.meters.nvml import driver_version, vbios_version
from dlbench.worker.precision import active_precision_switches

CPU_FOLDER = Path("/sys/devices/system/cpu")
NODES_FOLDER = Path("/sys/devices/system/node")
CGROUP = Path("/sys/fs/cgroup")
DMI = Path("/sys/class/dmi/id")
#: Threads of torch in one process of this job, before ranks divide the cores or a network changes it. Ignores the 1
#: that torchrun sets by default.
JOB_THREADS = None if is_thread_count_from_torchrun(os.environ) else torch.get_num_threads()
#: Settings of a CPU in the system key, with the memory of the node.
_CPU_SETTING_FACTS = (
    *("node_cpu_cores", "node_cpu_threads", "cpu_cores", "cpu_threads"),
    *("cpu_quota", "cpu_binding", "job_threads"),
)
#: What else of the probe is in the record under the same name.
_SYSTEM_FACTS = ("cpu_model", "node_memory_bytes", "driver_version", "torch_version", "cuda_version")
_BINDING_VARIABLES = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_HW_SUBSET")
#: Files that the kernel modules of NVIDIA and AMD make per device. A container without a GPU may have `nvidiactl`.
DEVICES_FOLDER = Path("/dev")
GPU_FILES = ("nvidia[0-9]*", "kfd")


def describe_system(device: torch.device, load_before: tuple[float, ...] | None) -> System:
    """Describe the system as this process sees it; `load_before`: load averages before the measurement."""
    facts = software_and_device_facts()
    runtime, image = software.detect_container(os.environ)
    commit, dirty = software.git_state(Path(__file__).parent)
    cuda = device.type == "cuda"
    return System(
        **{name: facts[name] for name in (*_CPU_SETTING_FACTS, *_SYSTEM_FACTS)},
        hostname=node_name(),
        memory_bytes=usable_memory_bytes(),
        device_kind=device.type,
        device_name=facts["devices"][device.index or 0]["name"] if device.type != "cpu" else None,
        device_count=len(facts["devices"]) if device.type != "cpu" else 0,
        os=software.os_name(),
        kernel=platform.release(),
        python_version=platform.python_version(),
        torchvision_version=_package_version("torchvision"),
        cudnn_version=_cudnn_version() if cuda else None,
        nccl_version=facts["nccl_version"] if cuda else None,
        torch_threads=torch.get_num_threads(),
        firmware=firmware_versions(facts["devices"][device.index or 0]["uuid"] if cuda else None),
        container_runtime=runtime,
        container_image=image,
        dlbench_version=__version__,
        git_commit=commit,
        git_dirty=dirty,
        slurm_job_id=os.environ.get("SLURM_JOB_ID"),
        details={
            "system_key": system_key(facts, device.type),
            "devices": facts["devices"],
            "precision_switches": active_precision_switches(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cpu_governor": software.read_text_or_none(CPU_FOLDER / "cpu0/cpufreq/scaling_governor"),
            "cpu_frequency_mhz": cpu_frequency_mhz(),
            "cpu_quota": facts["cpu_quota"],
            "numa_nodes_online": software.read_text_or_none(NODES_FOLDER / "online"),
            "load_average_before": None if load_before is None else list(load_before),
            "libraries": software.loaded_libraries(),
            "ldd": software.linked_libraries(sorted((Path(torch.__file__).parent / "lib").glob("libtorch*.so"))),
            "host_libraries": software.host_libraries(os.environ),
            "environment": software.relevant_environment(os.environ),
            "python": sys.executable,
        },
    )


def firmware_versions(device_uuid: str | None) -> str | None:
    """Return the versions of the node's BIOS and of the device's VBIOS, as far as known."""
    vbios = vbios_version(device_uuid) if device_uuid else None
    found = {"BIOS": software.read_text_or_none(DMI / "bios_version"), "VBIOS": vbios}
    return ", ".join(f"{name} {version}" for name, version in found.items() if version) or None


def node_name() -> str:
    """Return the name of the node: in a job the name in Slurm, as tools of the site use it, else the host name.

    A container may have its own host name, and several nodes of a test cluster can share one.
    """
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def software_and_device_facts() -> dict[str, Any]:
    """Return the output of `--probe` without key: versions, CPU, and each device of this process."""
    cuda = torch.cuda.is_available()
    return {
        "torch_version": torch.__version__,
        "cuda_version": torch.version.cuda or torch.version.hip,
        "cuda_available": cuda,
        "device_kind": accelerators.default_device_kind(),
        "devices": [cuda_device_properties(i) for i in range(torch.cuda.device_count())]
        if cuda
        else accelerators.list_accelerators(),
        "cuda_error": None if cuda else why_cuda_unavailable(),
        "cpu_model": cpu_model(),
        "cpu_cores": cpu_cores(),
        "cpu_threads": len(allowed_cores()),
        "cpu_quota": cpu_quota(),
        "cpu_binding": cpu_binding(os.environ),
        "job_threads": JOB_THREADS,
        "node_cpu_cores": psutil.cpu_count(logical=False),
        "node_cpu_threads": os.cpu_count(),
        "node_memory_bytes": psutil.virtual_memory().total,
        "driver_version": driver_version() if cuda else None,
        "nccl_version": _nccl_version() if cuda else None,
    }


def why_cuda_unavailable() -> str | None:
    """Return why PyTorch cannot use a GPU that has a device file; None without device file."""
    if not any(any(DEVICES_FOLDER.glob(pattern)) for pattern in GPU_FILES):
        return None
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return f"PyTorch {torch.__version__} sees no device; check CUDA_VISIBLE_DEVICES"


def system_key(facts: dict[str, Any], device_kind: str | None = None) -> str:
    """Return the system key for this kind of device: 12 hex digits.

    Equal on nodes of one kind: no host name, and the kinds of device without their number. For a CPU it holds the node
    (its cores and memory) and what one process of the job may use of it: cores, time of the control group, threads,
    binding. The ranks of a case share these; their own number of threads follows from it and from the number of ranks,
    so the sizes of a scaling curve have one key. A GPU's key holds none of this: one thread starts its kernels.

    Args:
        facts: as `software_and_device_facts` gives them.
        device_kind: "cuda" or "cpu"; None for the kind that "auto" stands for here.
    """
    kind = {
        "devices": sorted({device["name"] for device in facts["devices"]}),
        **{name: facts[name] for name in ("cpu_model", "torch_version", "cuda_version", "driver_version")},
    }
    if (device_kind or facts.get("device_kind")) == "cpu":
        kind["cpu"] = {name: facts[name] for name in _CPU_SETTING_FACTS}
        kind["node_memory_bytes"] = units.nominal_memory_size(facts["node_memory_bytes"])
    return hashlib.sha256(json.dumps(kind, sort_keys=True).encode()).hexdigest()[:12]


def system_keys(facts: dict[str, Any]) -> dict[str, str]:
    """Return the system keys of this machine, by kind of device."""
    return {kind: system_key(facts, kind) for kind in sorted({"cpu", facts["device_kind"]})}


def cpu_binding(environ: Mapping[str, str]) -> str | None:
    """Return the variables that bind threads to cores, such as "OMP_PROC_BIND=close"; None if unset."""
    return ", ".join(f"{name}={environ[name]}" for name in _BINDING_VARIABLES if environ.get(name)) or None


def cuda_device_properties(index: int) -> dict[str, Any]:
    """Return name, UUID and limits of device `index` of torch."""
    properties = torch.cuda.get_device_properties(index)
    return {
        "name": properties.name,
        "uuid": str(uuid) if (uuid := getattr(properties, "uuid", None)) is not None else None,
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "l2_cache_bytes": getattr(properties, "L2_cache_size", None),
        "pci_address": pci_address(properties),
    }


def pci_address(properties: Any) -> str | None:
    """Return the PCI address of the device, such as "0000:c1:00.0"."""
    try:
        domain, bus, device = properties.pci_domain_id, properties.pci_bus_id, properties.pci_device_id
    except AttributeError:
        return None
    return f"{domain:04x}:{bus:02x}:{device:02x}.0"


def cpu_model() -> str | None:
    """Return the CPU model name from the kernel; on Arm, without name, implementer and part numbers."""
    lines = (software.read_text_or_none(Path("/proc/cpuinfo")) or "").splitlines()
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if values.get("model name"):
        return values["model name"]
    if "CPU part" in values:
        return f"{platform.machine()} implementer {values.get('CPU implementer')} part {values['CPU part']}"
    return platform.processor() or None


def cpu_cores() -> int | None:
    """Count the physical cores that this process may use; None without topology."""
    cores = set()
    for cpu in allowed_cores():
        siblings = software.read_text_or_none(CPU_FOLDER / f"cpu{cpu}/topology/thread_siblings_list")
        if siblings is None:
            return psutil.cpu_count(logical=False)
        cores.add(siblings)
    return len(cores)


def cpu_quota() -> float | None:
    """Return the CPU quota of the control group, in logical cores; None without limit."""
    quotas = [
        _parse_quota(software.read_text_or_none(group / "cpu.max")) for group in own_and_parent_cgroups(CGROUP, "")
    ]
    for group in own_and_parent_cgroups(CGROUP / "cpu", "cpu"):
        files = (software.read_text_or_none(group / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
        quotas.append(_parse_quota(" ".join(text or "" for text in files)))
    return min((quota for quota in quotas if quota is not None), default=None)


def _parse_quota(text: str | None) -> float | None:
    """Parse CPU time over period [µs]: ``max 100000`` and ``-1 100000`` mean unlimited."""
    words = (text or "").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and all(map(str.isdigit, words)) else None


def usable_memory_bytes() -> int:
    """Return the main memory that this process may use: of the node, limited by the control group."""
    return min([psutil.virtual_memory().total, *cgroup_limits()])


def cpu_frequency_mhz() -> float | None:
    """Return the current mean frequency of the cores; None if unknown."""
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError, ValueError):
        return None
    return float(frequency.current) if frequency and frequency.current else None


def load_average() -> tuple[float, ...] | None:
    """Runnable processes over the last 1, 5 and 15 minutes."""
    try:
        return os.getloadavg()
    except OSError:
        return None


def _package_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cudnn_version() -> str | None:
    """92600 is 9.26.0; before version 9 the major number stood one digit lower: 8907 is 8.9.7."""
    cudnn: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    if cudnn is None:
        return None
    major = 10_000 if cudnn >= 90_000 else 1_000
    return f"{cudnn // major}.{cudnn % major // 100}.{cudnn % 100}"


def _nccl_version() -> str | None:
    try:
        return ".".join(str(part) for part in torch.cuda.nccl.version())  # type: ignore[no-untyped-call]
    except (AttributeError, RuntimeError):
        return None
