"""Search for the largest batch that fits: by prediction, then by test runs in fresh processes."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.errors import BadInput
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.suites.case import Case

#: First step up or down from the predicted batch; each further step is squared.
_FIRST_FACTOR = 1.1
#: Upper limit of the search.
MAX_BATCH_SIZE = 2**24
_OTHER_REASON = "failed for a reason other than memory"


@dataclass(frozen=True)
class BatchTrial:
    """One test run of a batch."""

    batch_size: int
    fits: bool
    predicted_bytes: int | None = None
    allocated_peak_bytes: int | None = None  # by the framework's allocator; None on the CPU
    rss_peak_bytes: int | None = None
    seconds: float | None = None
    reason: str | None = None  # reason if it does not fit

    @property
    def does_not_fit_text(self) -> str:
        """Say that the batch does not fit, and why: ``does not fit (9 MiB more needed, 5 MiB available)``."""
        reason = (self.reason or "").rstrip(".")
        if reason.startswith(_OTHER_REASON):
            return reason
        short = reason.removeprefix("out of memory on the CPU: ").removeprefix("out of memory on the device: ")
        return f"does not fit ({short})" if short else "does not fit"


def find_largest_batch(
    trial: Callable[[int], BatchTrial], predicted: Callable[[int], float] | None, limit_bytes: int, within: float = 0.0
) -> list[BatchTrial]:
    """Find the largest batch that fits by test runs; return the runs in order.

    Starts at the predicted batch, grows or shrinks until one batch fits and one does not, then bisects.

    Args:
        trial: function that runs a batch.
        predicted: memory by batch [bytes]; None starts at a batch of 1.
        limit_bytes: memory limit for the prediction.
        within: relative gap between the two batches at which the search ends; 0 for adjacent batches.
    """
    trials: list[BatchTrial] = []
    largest, smallest_failing = 0, MAX_BATCH_SIZE + 1
    batch, step = _predicted_largest_batch(predicted, limit_bytes), _FIRST_FACTOR
    while smallest_failing - largest > max(1, int(within * largest)):
        done = trial(batch)
        trials.append(done)
        if done.fits:
            largest = batch
        else:
            smallest_failing = batch
        if largest and smallest_failing <= MAX_BATCH_SIZE:
            batch = (largest + smallest_failing) // 2
        elif largest:
            batch = min(MAX_BATCH_SIZE, max(batch + 1, int(batch * step)))
        else:
            batch = max(1, min(batch - 1, int(batch / step)))
        step = min(step * step, 16.0)
    return trials


def _predicted_largest_batch(predicted: Callable[[int], float] | None, limit_bytes: int) -> int:
    if predicted is None:
        return 1
    low, high = 1, MAX_BATCH_SIZE
    while high > low:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if predicted(middle) <= limit_bytes else (low, middle - 1)
    return low


def parse_case_without_batch(model: str, overrides: list[str], device: str) -> Case:
    """Build the case from `-P`; its batch is the unknown. Raises BadInput if an axis is wrong or sets the batch."""
    from dlbench.suites.suite import GLOBAL_BATCH, build_single_case

    found = build_single_case("maxbatch", model, overrides, device, sought=("batch_size", GLOBAL_BATCH))
    if found.world_size > 1:
        raise BadInput(
            "maxbatch tests one device; remove nodes and devices_per_node (the result applies to each device)"
        )
    return found


class TrialRunner:
    """Test runs of one case with different batches, each in a separate process."""

    def __init__(
        self, case: Case, folder: Path, limit_bytes: int, timeout_s: float, worker: Sequence[str] = ()
    ) -> None:
        self._case = case
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._timeout_s = timeout_s
        self._worker = worker  # the words before the folder; none start a worker of this machine
        self._count = 0
        self.room_bytes = limit_bytes  # where the search starts: on a GPU less than the limit, once it is known
        self.done: list[BatchTrial] = []  # in their order

    def predict_memory_by_batch(self) -> Callable[[int], float] | None:
        """Predict memory by batch [bytes]; None if the network cannot run on the meta device."""
        answer = self._run_worker({"kind": "predict", "case": self._case.to_dict()})
        lines = answer["lines"]
        self.room_bytes = min(self._limit_bytes, answer.get("room_bytes") or self._limit_bytes)
        # On the CPU the limit applies to the whole process.
        own = answer["process_bytes"] if self._case.device == "cpu" else 0
        if lines is None:
            return None
        return lambda batch: float(own + max(fixed + batch * per_image for fixed, per_image in lines))

    def run_trial(self, batch: int, predicted: Callable[[int], float] | None) -> BatchTrial:
        """Run a batch and say on stderr whether it fits. Any failure is a limit: also 32-bit indices or the time limit.

        Raises WorkerFailed: a single image failed for another reason than memory.
        """
        from dlbench.launch.worker_process import WorkerFailed

        began_s = time.monotonic()
        on_cpu = self._case.device == "cpu"
        request = {
            "kind": "fit",
            "case": replace(self._case, batch_size=batch).to_dict(),
            "limit_bytes": self._limit_bytes if on_cpu else None,
        }
        expected = None if predicted is None else round(predicted(batch))
        try:
            peaks = self._run_worker(request)
        except WorkerFailed as error:
            # The kernel's out-of-memory killer sends SIGKILL; no message is left.
            memory = str(error).startswith("oom: ") or "(SIGKILL)" in str(error)
            if batch == 1 and not memory:
                raise
            reason = str(error).removeprefix("oom: ")
            reason = reason if memory else f"{_OTHER_REASON}: {reason}"
            done = BatchTrial(batch, False, expected, seconds=time.monotonic() - began_s, reason=reason)
        else:
            allocated, resident = peaks["memory_allocated_peak_bytes"], peaks["memory_rss_peak_bytes"]
            done = BatchTrial(batch, True, expected, allocated, resident, time.monotonic() - began_s)
        say(f"batch {batch}: {'fits' if done.fits else done.does_not_fit_text}, {done.seconds:.1f} s")
        self.done.append(done)
        return done

    def _run_worker(self, request: dict[str, Any]) -> Any:
        from dlbench.launch import worker_process

        self._count += 1
        folder = self._folder / str(self._count)
        try:
            argv = [*self._worker, str(folder)] if self._worker else None
            return json.loads(worker_process.run_in_worker(request, folder, self._timeout_s, argv=argv))
        except worker_process.WorkerFailed as error:
            # The named folder is temporary.
            raise worker_process.WorkerFailed(str(error).partition("; see ")[0]) from None


def effective_memory_limit(limit_bytes: int) -> int:
    """Return `limit_bytes`, or the lower hard limit of this process (`ulimit -Hd`)."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    return limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
