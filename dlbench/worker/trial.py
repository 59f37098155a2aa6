"""`python -m dlbench.worker.trial FOLDER`: does a case fit into memory? A few real steps of it, or its prediction.

request.json holds either {"predict": [CASE, ...]}, answered by the predicted peaks [bytes], null where there is none,
and by what this process takes before it has any tensor; or {"case": CASE, "limit_bytes": N | null}, answered by the
peaks that were reached. On the CPU the limit is that on the process's data (RLIMIT_DATA): all private memory it may
write to, of tensors, libraries, threads and the interpreter. An allocation beyond it fails, and nothing else on the
machine is in danger.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

from dlbench.errors import BadInput
from dlbench.spec.case import Case
from dlbench.worker.errand import serve
from dlbench.worker.progress import enter_phase
from dlbench.worker.ranks import Place

#: The optimizer makes its state at the end of the first step; the second has everything in place. In fp16 the first
#: steps may be skipped until the gradients are scaled to be finite: so many are tried.
_NUM_STEPS, _MAX_STEPS = 2, 20


def work(request: dict[str, Any], folder: Path) -> str:
    """The text of result.json."""
    if "predict" in request:
        process_bytes = _data_bytes()
        peaks = [_predicted(Case.from_dict(values)) for values in request["predict"]]
        return json.dumps({"peak_bytes": peaks, "process_bytes": process_bytes})
    return json.dumps(_try(Case.from_dict(request["case"]), request["limit_bytes"]))


def _data_bytes() -> int:
    """What counts against RLIMIT_DATA of a process that has imported all and computed nothing."""
    enter_phase("import")
    import dlbench.worker.measure  # noqa: F401

    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


def _predicted(case: Case) -> int | None:
    from dlbench.worker.predict import predict

    enter_phase("predict")
    try:
        return predict(case).peak_bytes
    except BadInput:
        # Somebody's own network may not run without data; whether it can be built at all is seen by the real run.
        return None


def _try(case: Case, limit_bytes: int | None) -> dict[str, Any]:
    enter_phase("import")
    from dlbench.worker.measure import find_device
    from dlbench.worker.memory import read_peaks, reset_peaks
    from dlbench.worker.workload import build_workload

    if limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    device = find_device(case, Place())
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
    return read_peaks(device)


def take_steps(workload: Any) -> None:
    """Steps of a `Workload` until all that it ever needs at once has been in memory."""
    for number in range(1, _MAX_STEPS + 1):
        optimizer = workload.optimizer
        had_state = optimizer is None or workload.scaler is None or bool(optimizer.state)
        workload.step()
        if had_state and number >= _NUM_STEPS:
            return


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:], work))
