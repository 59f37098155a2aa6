"""`python -m dlbench.worker.jobs.fit_check FOLDER`: does a case fit into memory? By a few real steps, or by prediction.

request.json holds either {"predict": CASE}, answered by the lines over the batch of which the highest is the predicted
peak [bytes, bytes per image], null where there are none, and by what this process takes before it has any tensor; or
{"case": CASE, "limit_bytes": N | null}, answered by the peaks that were reached. On the CPU the limit is that on the
process's data (RLIMIT_DATA): all private memory it may write to, of tensors, libraries, threads and the interpreter. An
allocation beyond it fails, and nothing else on the machine is in danger.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from dlbench.errors import BadInput, InvalidMeasurement
from dlbench.free_memory import data_bytes
from dlbench.suites.case import Case
from dlbench.worker.jobs.job import serve
from dlbench.worker.progress import enter_phase
from dlbench.worker.ranks.rank_status import leave

#: The optimizer makes its state at the end of the first step; the second has everything in place. In fp16 the first
#: steps may be skipped until the gradients are scaled to be finite: so many are tried.
_NUM_STEPS, _MAX_STEPS = 2, 20


def work(request: dict[str, Any], folder: Path) -> str:
    """The text of result.json."""
    if "predict" in request:
        process_bytes = _process_bytes()
        return json.dumps({"lines": _predicted(Case.from_dict(request["predict"])), "process_bytes": process_bytes})
    return json.dumps(_try(Case.from_dict(request["case"]), request["limit_bytes"]))


def _process_bytes() -> int:
    """What counts against RLIMIT_DATA of a process that has imported all and computed nothing."""
    enter_phase("import")
    import dlbench.worker.measure  # noqa: F401

    return data_bytes()


def _predicted(case: Case) -> list[tuple[int, int]] | None:
    from dlbench.worker.counting.memory_fit import peak_lines

    enter_phase("predict")
    try:
        return peak_lines(case)
    except BadInput:
        # Somebody's own network may not run without data; whether it can be built at all is seen by the real run.
        return None


def _try(case: Case, limit_bytes: int | None) -> dict[str, Any]:
    enter_phase("import")
    from dlbench.worker.devices import find_device
    from dlbench.worker.memory import read_peaks, reset_peaks
    from dlbench.worker.workload import build_workload

    if limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    device = find_device(case)
    enter_phase("build")
    workload = build_workload(case, device)
    reset_peaks(device)
    enter_phase("steps")
    try:
        take_steps(workload)
    except RuntimeError as error:
        # oneDNN does not say why; under a limit it is memory.
        if limit_bytes is not None and "could not create a " in str(error):
            raise MemoryError(str(error)) from error
        raise
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
    if workload.settings is not None:
        workload.settings.require()
    return read_peaks(device)


def take_steps(workload: Any) -> None:
    """Steps of a `Workload` until all that it ever needs at once has been in memory."""
    whole = 0
    for _ in range(_MAX_STEPS):
        scale = _scale(workload)
        workload.step()
        # With gradients that are not finite the optimizer was skipped, and the scale is lowered.
        whole += _scale(workload) >= scale
        if whole == _NUM_STEPS:
            return
    raise InvalidMeasurement(
        f"the gradients were not finite in {_MAX_STEPS} steps: what the optimizer needs is unknown"
    )


def _scale(workload: Any) -> float:
    return float(workload.scaler.get_scale()) if workload.scaler is not None else 1.0


if __name__ == "__main__":
    leave(serve(sys.argv[1:], work))
