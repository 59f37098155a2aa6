"""Limits of a step that loads its images: the loader alone and the device alone, to compare with the window."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import psutil

from dlbench.worker.timing import Clock
from dlbench.worker.workload import Workload

if TYPE_CHECKING:
    from dlbench.data.jpeg import JpegBatches

#: Minimum time [s], batches and steps to measure the loader alone and the device alone.
ALONE_S, MIN_BATCHES, MIN_STEPS = 2.0, 4, 5


def measure_loader_limits(workload: Workload, loader: JpegBatches, clock: Clock, cpu_s: float) -> dict[str, Any]:
    """Return the columns of `Measurement` about loading, with the loader's warnings; call it after the window.

    Args:
        cpu_s: CPU time of the loader's processes in the window [s].
    """
    return {
        "data_wait_s": loader.window_wait_s,
        "loader_cpu_s": cpu_s if loader.process_ids() else None,
        "loader_memory_bytes": process_memory_bytes(loader.process_ids()),
        **measure_loader_alone(loader),
        "device_step_s": measure_device_alone(workload, clock),
        "warnings": loader.warnings(),
    }


def measure_loader_alone(loader: JpegBatches) -> dict[str, float | None]:
    """Measure the time per batch without a consumer [s], after the prefetched batches are used up."""
    workers = max(1, len(loader.process_ids()))
    for _ in range(3 * workers if workers > 1 else 1):
        next(loader)
    loader.reset_waiting_time()
    began_s = time.perf_counter()
    # At least two rounds of the processes, which make batches in turn.
    while loader.num_batches < max(MIN_BATCHES, 2 * workers) or time.perf_counter() - began_s < ALONE_S:
        next(loader)
    elapsed_s, count = time.perf_counter() - began_s, loader.num_batches
    return {
        "loader_batch_s": elapsed_s / count,
        "loader_read_s": loader.read_s / count if loader.times_parts else None,
        "loader_decode_s": loader.decode_s / count if loader.times_parts else None,
    }


def measure_device_alone(workload: Workload, clock: Clock) -> float:
    """Measure the median time of a step whose batch is already on the device [s]."""
    batches = workload.batches
    workload.batches = itertools.repeat(next(batches))
    try:
        workload.step()
        clock.synchronize()
        began_s = time.perf_counter()
        stamps = [clock.stamp()]
        while len(stamps) <= MIN_STEPS or time.perf_counter() - began_s < ALONE_S:
            workload.step()
            stamps.append(clock.stamp())
        clock.synchronize()
    finally:
        workload.batches = batches
    return statistics.median(clock.elapsed_s(a, b) for a, b in pairwise(stamps))


def process_memory_bytes(process_ids: list[int]) -> int | None:
    """Return the memory of these processes, shared pages in proportion (PSS); None without processes."""
    found = []
    for process_id in process_ids:
        with contextlib.suppress(psutil.Error, AttributeError):
            found.append(int(psutil.Process(process_id).memory_full_info().pss))
    return sum(found) if found else None
