"""Memory of a case in bytes: peaks and components. Nothing here runs inside the window.

- Peak allocated and reserved: on CUDA the framework's own counters over warm-up and window. On the CPU PyTorch keeps
  none; there one more step runs under its profiler, which reports each allocation and release of PyTorch's allocator,
  and the peak is what was alive before that step (weights, buffers, optimizer state, batch) plus the highest sum of
  those reports. Workspace that oneDNN allocates by itself is in neither, but in the resident set.
- The split: parameters with buffers, the parameters' gradients, the optimizer's state, and the activations that forward
  keeps for backward. Buffers are all registered ones, those that no checkpoint holds included.
"""

import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlbench.free_memory import read_kernel_file_number
from dlbench.tasks import unique_batch_tensors
from dlbench.worker import accelerators
from dlbench.worker.workload import Workload


def reset_memory_peaks(device: torch.device) -> None:
    """Reset the framework's peak counters, to exclude the memory of building."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type in accelerators.KINDS:
        accelerators.reset_peak_memory(device)


def read_memory_peaks(device: torch.device) -> dict[str, Any]:
    """Read the peak memory so far; allocated and reserved are None on the CPU."""
    if device.type in accelerators.KINDS:
        return {**accelerators.peak_memory(device), "memory_rss_peak_bytes": rss_peak_bytes()}
    cuda = device.type == "cuda"
    return {
        "memory_allocated_peak_bytes": torch.cuda.max_memory_allocated(device) if cuda else None,
        "memory_reserved_peak_bytes": torch.cuda.max_memory_reserved(device) if cuda else None,
        "memory_rss_peak_bytes": rss_peak_bytes(),
    }


def rss_peak_bytes() -> int:
    """Read the peak resident set of this process (VmHWM; ru_maxrss is inherited through fork and exec on Linux)."""
    peak_kib = read_kernel_file_number(Path("/proc/self/status"), "VmHWM:")
    return 1024 * (peak_kib or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def measure_memory_split(workload: Workload) -> dict[str, int | None]:
    """Measure bytes of parameters with buffers, gradients, optimizer state and saved activations; runs a training step.

    Raises:
        RuntimeError: the extra step does not fit into memory.
    """
    parameters = list(workload.module.parameters())
    kept = storage_bytes((*parameters, *workload.module.buffers()))
    split: dict[str, int | None] = {"parameter_bytes": kept, "buffer_bytes": kept - storage_bytes(parameters)}
    if workload.optimizer is None:
        return split
    split["activation_bytes"] = activation_bytes(workload)
    split["gradient_bytes"] = storage_bytes(p.grad for p in parameters if p.grad is not None)
    split["optimizer_state_bytes"] = storage_bytes(optimizer_tensors(workload))
    return split


def activation_bytes(workload: Workload) -> int | None:
    """Measure bytes that forward saves for backward: each storage once, without weights and input.

    None for a compiled module: hooks do not see the tensors that a compiled graph saves.
    """
    return bytes_saved_for_backward(workload) if workload.case.compile == "off" else None


def bytes_saved_for_backward(workload: Workload) -> int:
    """Run one step; return bytes saved by forward for backward, each storage once, without weights and batch."""
    batch = next(workload.batches)
    own = {
        storage_id(t) for t in (*workload.module.parameters(), *workload.module.buffers(), *unique_batch_tensors(batch))
    }
    # The tensors themselves, because a freed storage may be followed by another one of the same identity.
    saved: dict[int, Tensor] = {}

    def record_saved_tensor(tensor: Tensor) -> Tensor:
        # Tensors recomputed by activation checkpointing in the backward pass are not saved by forward.
        if torch._C._current_autograd_node() is None and storage_id(tensor) not in own:
            saved[storage_id(tensor)] = tensor
        return tensor

    batches, workload.batches = workload.batches, iter([batch])
    try:
        with torch.autograd.graph.saved_tensors_hooks(record_saved_tensor, lambda tensor: tensor):
            workload.step()
    finally:
        workload.batches = batches
    return storage_bytes(saved.values())


def cpu_allocated_peak_bytes(workload: Workload) -> int | None:
    """Measure the peak of PyTorch's CPU allocator in an extra step; None if the profiler reports nothing."""
    from torch.profiler import ProfilerActivity, profile

    # The profiler reports no release of tensors allocated before it started.
    workload.release_step_state()
    alive = storage_bytes(_alive_tensors(workload))
    # acc_events: without it PyTorch 2.11 warns that it keeps only events of the last cycle; there is only one.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        workload.step()
    results = profiler.profiler.kineto_results if profiler.profiler else None
    if results is None:
        return None
    changes = sorted((e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]")
    return alive + _max_running_sum(change for _, change in changes) if changes else None


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Sum the bytes of the storages of `tensors`, each storage once."""
    return sum({storage_id(t): t.untyped_storage().nbytes() for t in tensors}.values())


def storage_id(tensor: Tensor) -> int:
    """Return the identity of a tensor's storage; unlike its address, it exists without data."""
    return int(tensor.untyped_storage()._cdata)


def optimizer_tensors(workload: Workload) -> list[Tensor]:
    """Return the tensors of the optimizer's state; none in inference."""
    states: Iterable[dict[str, Any]] = workload.optimizer.state.values() if workload.optimizer is not None else ()
    return [value for state in states for value in state.values() if isinstance(value, Tensor)]


def _max_running_sum(changes: Iterable[int]) -> int:
    current = highest = 0
    for change in changes:
        current += change
        highest = max(highest, current)
    return highest


def _alive_tensors(workload: Workload) -> Iterable[Tensor]:
    yield from workload.module.parameters()
    yield from workload.module.buffers()
    yield from optimizer_tensors(workload)
    if workload.case.data == "synthetic":
        yield from unique_batch_tensors(next(workload.batches))
