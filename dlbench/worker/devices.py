"""The device of a rank, its clock and its identity."""

import torch

from dlbench.errors import DeviceUnavailable
from dlbench.heap import keep_freed_memory
from dlbench.results.bounds_records import DeviceIdentity
from dlbench.suites.case import Case
from dlbench.version import __version__
from dlbench.worker import accelerators
from dlbench.worker.machine.system import cuda_device_properties, node_name, software_and_device_facts, system_key
from dlbench.worker.timing import Clock, CudaClock, EventClock, HostClock


def clock_for_device(device: torch.device) -> Clock:
    """Return the clock for steps on this device: events on a GPU, the host clock on a CPU."""
    if device.type in accelerators.KINDS:
        return EventClock(device)
    return CudaClock() if device.type == "cuda" else HostClock()


def find_device(case: Case, local_rank: int = 0) -> torch.device:
    """Select the device of this rank; on a CPU set up the heap. Raises DeviceUnavailable if PyTorch sees none."""
    kind = accelerators.default_device_kind() if case.device == "auto" else case.device
    if kind in accelerators.KINDS:
        return _select_accelerator(case, kind)
    if kind == "cpu":
        if case.protocol.heap == "keep":
            keep_freed_memory()
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        reason = "finds no usable GPU; check the driver and CUDA_VISIBLE_DEVICES" if built else "is built for CPUs only"
        raise DeviceUnavailable(f"device 'cuda' was requested, but PyTorch {torch.__version__} {reason}.")
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise DeviceUnavailable(
            f"device cuda:{local_rank} was requested, but only {count} devices are visible on this node."
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _select_accelerator(case: Case, kind: str) -> torch.device:
    """Select the device of a kind that PyTorch reaches through `torch.accelerator`."""
    if accelerators.default_device_kind() != kind:
        raise DeviceUnavailable(f"device '{kind}' was requested, but PyTorch {torch.__version__} finds none.")
    if case.world_size > 1:
        raise DeviceUnavailable(
            f"the case needs {case.world_size} devices, but for '{kind}' only one device is supported."
        )
    torch.accelerator.set_device_index(0)
    return torch.device(kind, 0)


def device_uuid(device: torch.device) -> str | None:
    """Return the UUID of a device from torch, without NVML's prefix; None for the CPU, or if it has none."""
    if device.type in accelerators.KINDS:
        return str(uuid) if (uuid := accelerators.accelerator_facts(device)["uuid"]) else None
    return cuda_device_properties(device.index or 0)["uuid"] if device.type == "cuda" else None


def device_name(device: torch.device) -> str | None:
    """Return the name of a device; None for the CPU."""
    if device.type in accelerators.KINDS:
        return accelerators.accelerator_name(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def amd_pci_address(device: torch.device) -> str | None:
    """Return the PCI address of an AMD device, by which amdsmi finds it; None for other devices."""
    amd = device.type == "cuda" and torch.version.hip is not None
    return cuda_device_properties(device.index or 0)["pci_address"] if amd else None


def device_identity(device: torch.device) -> DeviceIdentity:
    """Return the values that identify this device and its software."""
    facts = software_and_device_facts()
    return DeviceIdentity(
        system_key=system_key(facts, device.type),
        device_kind=device.type,
        device_name=device_name(device),
        device_uuid=device_uuid(device),
        hostname=node_name(),
        cpu_model=facts["cpu_model"],
        torch_version=facts["torch_version"],
        torch_threads=torch.get_num_threads(),
        dlbench_version=__version__,
    )
