"""Does a case fit into memory? By a few real steps, or by prediction.

The answer to a request of kind `predict` has lines over the batch, the highest of which is the predicted peak [bytes,
bytes per image], or null if there is no prediction; the memory of this process before it has any tensor,
and of a GPU the memory that is left for tensors. The answer
to kind `fit` has the measured peaks. On the CPU its `limit_bytes` limits the data of the process (RLIMIT_DATA): all
private writable memory of tensors, libraries, threads and the interpreter. An allocation beyond it fails,
without danger for other processes. On a GPU it is null.
"""

import json
import resource
from pathlib import Path
from typing import Any

from dlbench.errors import BadInput, InvalidMeasurement
from dlbench.free_memory import used_data_segment_bytes
from dlbench.suites.case import Case
from dlbench.suites.worker_request import requested_case
from dlbench.worker.jobs.job_answer import write_job_answer
from dlbench.worker.progress import enter_phase

#: The optimizer creates its state at the end of the first step; the second has all tensors. In fp16 steps are skipped
#: until gradients are finite: maximum number of steps.
_NUM_STEPS, _MAX_STEPS = 2, 20


def handle_request(request: dict[str, Any], folder: Path) -> int:
    """Predict or test the memory of the case of the request; return the exit status."""
    return write_job_answer(folder, lambda: json.dumps(_answer_fit_request(request)))


def _answer_fit_request(request: dict[str, Any]) -> dict[str, Any]:
    case = requested_case(request)
    if request["kind"] == "fit":
        return _run_within_memory_limit(case, request["limit_bytes"])
    process_bytes = _import_data_segment_bytes()
    return {
        "lines": _predict_peak_by_batch(case),
        "process_bytes": process_bytes,
        "room_bytes": _usable_gpu_bytes(case),
    }


def _usable_gpu_bytes(case: Case) -> int | None:
    """Return what tensors may use of a GPU: free memory beside a context, less what libraries take; None on a CPU."""
    if case.device != "cuda":
        return None
    import torch

    from dlbench.worker.devices import find_device
    from dlbench.worker.failures import HANDLE_BYTES

    device = find_device(case)
    torch.ones(1, device=device)  # creates the context
    return max(0, torch.cuda.mem_get_info(device)[0] - HANDLE_BYTES)


def _import_data_segment_bytes() -> int:
    """Return the bytes that count against RLIMIT_DATA of a process after imports, before any computation."""
    enter_phase("import")
    import dlbench.worker.measure  # noqa: F401

    return used_data_segment_bytes()


def _predict_peak_by_batch(case: Case) -> list[tuple[int, int]] | None:
    from dlbench.worker.counting.memory_fit import fit_peak_memory

    enter_phase("predict")
    try:
        return fit_peak_memory(case)
    except BadInput:
        # A user's network may not run without data; the real run reports whether it can be built.
        return None


def _run_within_memory_limit(case: Case, limit_bytes: int | None) -> dict[str, Any]:
    enter_phase("import")
    from dlbench.worker.devices import clock_for_device, find_device
    from dlbench.worker.memory import read_memory_peaks, reset_memory_peaks
    from dlbench.worker.workload import build_workload

    if limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    device = find_device(case)
    enter_phase("build")
    workload = build_workload(case, device)
    reset_memory_peaks(device)
    enter_phase("steps")
    try:
        run_until_peak_memory(workload)
    except RuntimeError as error:
        # oneDNN reports no reason; under a limit it is memory.
        if limit_bytes is not None and "could not create a " in str(error):
            raise MemoryError(str(error)) from error
        raise
    clock_for_device(device).synchronize()
    if workload.settings is not None:
        workload.settings.require_unchanged()
    return read_memory_peaks(device)


def run_until_peak_memory(workload: Any) -> None:
    """Run steps of a `Workload` until its peak memory is reached."""
    whole = 0
    for _ in range(_MAX_STEPS):
        scale = _loss_scale(workload)
        workload.step()
        # With gradients that are not finite the optimizer was skipped, and the scale is lowered.
        whole += _loss_scale(workload) >= scale
        if whole == _NUM_STEPS:
            return
    raise InvalidMeasurement(
        f"the gradients were not finite in {_MAX_STEPS} steps, so the optimizer's memory is unknown"
    )


def _loss_scale(workload: Any) -> float:
    return float(workload.scaler.get_scale()) if workload.scaler is not None else 1.0
