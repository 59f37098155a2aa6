"""The largest batch that fits, by prediction and then by real runs, each in a fresh process."""

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


#: From the predicted batch on, the first step up or down; each next one is its square.
_FIRST_STEP = 1.1


#: Whoever has so much memory has another limit first.
LARGEST = 2**24


@dataclass(frozen=True)
class Trial:
    """One real run of a batch."""

    batch_size: int
    fits: bool
    predicted_bytes: int | None = None
    allocated_peak_bytes: int | None = None  # by the framework's allocator; None on the CPU, which keeps no count
    rss_peak_bytes: int | None = None
    seconds: float | None = None
    reason: str | None = None  # why it does not fit


def find_largest(
    trial: Callable[[int], Trial], predicted: Callable[[int], float] | None, limit_bytes: int, within: float = 0.0
) -> list[Trial]:
    """Real runs until the largest batch that fits is known; the runs in their order.

    From the predicted batch in growing steps until one fits and one does not, then bisection.

    Args:
        trial: runs a batch.
        predicted: memory of a batch [bytes]; None starts at a batch of 1.
        limit_bytes: what the prediction is held against.
        within: relative distance of the two batches at which it ends; 0 for neighbours.
    """
    trials: list[Trial] = []
    largest, smallest_failing = 0, LARGEST + 1
    batch, step = _guess(predicted, limit_bytes), _FIRST_STEP
    while smallest_failing - largest > max(1, int(within * largest)):
        done = trial(batch)
        trials.append(done)
        if done.fits:
            largest = batch
        else:
            smallest_failing = batch
        if largest and smallest_failing <= LARGEST:
            batch = (largest + smallest_failing) // 2
        elif largest:
            batch = min(LARGEST, max(batch + 1, int(batch * step)))
        else:
            batch = max(1, min(batch - 1, int(batch / step)))
        step = min(step * step, 16.0)
    return trials


def _guess(predicted: Callable[[int], float] | None, limit_bytes: int) -> int:
    """The largest batch that is predicted to fit, from 1 on."""
    if predicted is None:
        return 1
    low, high = 1, LARGEST
    while high > low:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if predicted(middle) <= limit_bytes else (low, middle - 1)
    return low


def make_case(model: str, overrides: list[str], device: str) -> Case:
    """The case that `-P` describes, its batch size still to be found.

    Raises:
        BadInput: an axis is unknown or has several values, or sets the batch.
    """
    from dlbench.suites.suite import GLOBAL_BATCH, one_case

    found = one_case("maxbatch", model, overrides, device, sought=("batch_size", GLOBAL_BATCH))
    if found.world_size > 1:
        raise BadInput("maxbatch looks at one device: leave nodes and devices_per_node at 1; each device is alike")
    return found


class Runs:
    """Real runs of one case with different batches, each in a process of its own that ends with it."""

    def __init__(
        self, case: Case, folder: Path, limit_bytes: int, timeout_s: float, worker: Sequence[str] = ()
    ) -> None:
        self._case = case
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._timeout_s = timeout_s
        self._worker = worker  # the words before the folder; none start a worker of this machine
        self._count = 0

    def prediction(self) -> Callable[[int], float] | None:
        """Memory by batch [bytes]; None where the network cannot be followed without data."""
        answer = self._run({"kind": "predict", "case": self._case.to_dict()})
        lines = answer["lines"]
        # The CPU's limit is on the whole process.
        own = answer["process_bytes"] if self._case.device == "cpu" else 0
        if lines is None:
            return None
        return lambda batch: float(own + max(fixed + batch * per_image for fixed, per_image in lines))

    def trial(self, batch: int, predicted: Callable[[int], float] | None) -> Trial:
        """Whether a batch fits; says so on stderr.

        Any failure is a limit, with its reason: not all are memory (indices of 32 bits, the time allowed).

        Raises:
            JobFailed: a single image failed for another reason than memory.
        """
        from dlbench.launch.job import JobFailed

        began_s = time.monotonic()
        on_cpu = self._case.device == "cpu"
        request = {
            "kind": "fit",
            "case": replace(self._case, batch_size=batch).to_dict(),
            "limit_bytes": self._limit_bytes if on_cpu else None,
        }
        expected = None if predicted is None else round(predicted(batch))
        try:
            peaks = self._run(request)
        except JobFailed as error:
            memory = _is_memory(str(error))
            if batch == 1 and not memory:
                raise
            reason = str(error).removeprefix("oom: ")
            reason = reason if memory else f"not for memory: {reason}"
            done = Trial(batch, False, expected, seconds=time.monotonic() - began_s, reason=reason)
        else:
            done = Trial(
                batch,
                True,
                expected,
                peaks["memory_allocated_peak_bytes"],
                peaks["memory_rss_peak_bytes"],
                time.monotonic() - began_s,
            )
        answer = "fits" if done.fits else f"does not fit ({done.reason})"
        say(f"batch {batch}: {answer}, {done.seconds:.1f} s")
        return done

    def _run(self, request: dict[str, Any]) -> Any:
        from dlbench.launch import job

        self._count += 1
        folder = self._folder / str(self._count)
        try:
            argv = [*self._worker, str(folder)] if self._worker else None
            return json.loads(job.run(request, folder, self._timeout_s, argv=argv))
        except job.JobFailed as error:
            # The folder that it names goes with this command.
            raise job.JobFailed(str(error).partition("; see ")[0]) from None


def _is_memory(text: str) -> bool:
    # The kernel ends whoever takes too much by SIGKILL, without a word.
    return text.startswith("oom: ") or "(SIGKILL)" in text


def own_limit(limit_bytes: int) -> int:
    """`limit_bytes`, or less where this process may not give its children as much (`ulimit -Hd`)."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    return limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)


def device_bytes(facts: dict[str, Any]) -> int:
    return int(facts["devices"][0]["memory_bytes"])
