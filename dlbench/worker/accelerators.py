"""Devices that PyTorch reaches through `torch.accelerator`: Intel's GPUs ("xpu") and Apple's ("mps").

NVIDIA's and AMD's ("cuda") keep calls of their own, since those are older and know more. Written against the documented
interface of PyTorch 2.11 to 2.15, and untried on a device.
"""

from typing import Any

import torch

KINDS = ("xpu", "mps")


def default_device_kind() -> str:
    """Return the kind of device that "auto" stands for here: cuda, xpu, mps or cpu."""
    if torch.cuda.is_available():
        return "cuda"
    accelerator: Any = getattr(torch, "accelerator", None)
    if accelerator is None or not accelerator.is_available():
        return "cpu"
    found = accelerator.current_accelerator()
    return str(found.type) if found is not None and found.type in KINDS else "cpu"


def list_accelerators() -> list[dict[str, Any]]:
    """Return the facts of each device of the kind that is available; empty unless it is one of `KINDS`."""
    kind = default_device_kind()
    if kind not in KINDS:
        return []
    return [accelerator_facts(torch.device(kind, index)) for index in range(torch.accelerator.device_count())]


def accelerator_facts(device: torch.device) -> dict[str, Any]:
    """Return name, UUID and limits of a device, as far as PyTorch gives them."""
    properties = _device_properties(device)
    uuid = getattr(properties, "uuid", None)
    return {
        "name": accelerator_name(device),
        "uuid": None if uuid is None else str(uuid),
        "memory_bytes": getattr(properties, "total_memory", None) or _memory_bytes(device),
        "multiprocessors": getattr(properties, "max_compute_units", None),
        "compute_capability": None,
        "l2_cache_bytes": getattr(properties, "last_level_cache_size", None),
        "pci_address": None,
    }


def accelerator_name(device: torch.device) -> str:
    """Return the name of the device, such as "Intel(R) Data Center GPU Max 1550"."""
    module: Any = getattr(torch, device.type)
    for function in ("get_device_name", "get_name"):  # of xpu; of mps in newer versions
        if hasattr(module, function):
            return str(getattr(module, function)(*([device] if function == "get_device_name" else [])))
    return str(getattr(_device_properties(device), "name", None) or device.type.upper())


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak counters of the allocator, if it has any."""
    try:
        torch.accelerator.reset_peak_memory_stats(device)
    except (AttributeError, RuntimeError, NotImplementedError):
        return  # MPS keeps none


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """Return the peaks of allocated and reserved memory [bytes]; None if the allocator keeps none."""
    try:
        allocated = int(torch.accelerator.max_memory_allocated(device))
        reserved = int(torch.accelerator.max_memory_reserved(device))
    except (AttributeError, RuntimeError, NotImplementedError):
        return {"memory_allocated_peak_bytes": None, "memory_reserved_peak_bytes": None}
    return {"memory_allocated_peak_bytes": allocated or None, "memory_reserved_peak_bytes": reserved or None}


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of the device [bytes]; None if unknown."""
    try:
        return int(torch.accelerator.get_memory_info(device)[0])
    except (AttributeError, RuntimeError, NotImplementedError):
        return None


def _memory_bytes(device: torch.device) -> int | None:
    module: Any = getattr(torch, device.type)
    recommended = getattr(module, "recommended_max_memory", None)
    return int(recommended()) if recommended is not None else None


def _device_properties(device: torch.device) -> Any:
    read = getattr(getattr(torch, device.type), "get_device_properties", None)
    return read(device) if read is not None else None
