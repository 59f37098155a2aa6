"""`dlbench maxbatch`: the largest batch that fits, by prediction and then by real runs, each in a fresh process."""

from __future__ import annotations

import argparse
import json
import re
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.commands.arguments import add_command, add_format, say

if TYPE_CHECKING:
    from dlbench.suites.case import Case

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
#: From the predicted batch on, the first step up or down; each next one is its square.
_FIRST_STEP = 1.1
#: Whoever has so much memory has another limit first.
_LARGEST = 2**24
#: No address space is larger; what is asked for beyond it is a slip.
_MOST_BYTES = 2**60
_WORKER = "dlbench.worker.jobs.fit_check"


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


def add(commands: Any) -> None:
    """Add the command to argparse's subparsers; it carries its function as `command`."""
    summary = "find the largest batch that fits into memory, by prediction and real runs"
    parser = add_command(commands, "maxbatch", _maxbatch, summary)
    parser.add_argument("model", help="a name of `dlbench models --all`, or package.module:factory")
    parser.add_argument("-P", dest="overrides", metavar="KEY=VALUE,...", action="append", default=[],
                        help="set an axis (-P mode=inference -P precision=amp_bf16); may be repeated")  # fmt: skip
    parser.add_argument("--memory", type=_bytes, metavar="SIZE",
                        help="CPU: what the process may use, such as 2GiB (default: what is free)")  # fmt: skip
    parser.add_argument("--within", type=_percent, default=1.0, metavar="PERCENT",
                        help="how near a batch that fits must be to one that does not (default: 1)")  # fmt: skip
    parser.add_argument("--timeout", type=_seconds, default=600.0, metavar="SECONDS", help="of one run (default: 600)")
    add_format(parser)


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
    largest, smallest_failing = 0, _LARGEST + 1
    batch, step = _guess(predicted, limit_bytes), _FIRST_STEP
    while smallest_failing - largest > max(1, int(within * largest)):
        done = trial(batch)
        trials.append(done)
        if done.fits:
            largest = batch
        else:
            smallest_failing = batch
        if largest and smallest_failing <= _LARGEST:
            batch = (largest + smallest_failing) // 2
        elif largest:
            batch = min(_LARGEST, max(batch + 1, int(batch * step)))
        else:
            batch = max(1, min(batch - 1, int(batch / step)))
        step = min(step * step, 16.0)
    return trials


def _guess(predicted: Callable[[int], float] | None, limit_bytes: int) -> int:
    """The largest batch that is predicted to fit, from 1 on."""
    if predicted is None:
        return 1
    low, high = 1, _LARGEST
    while high > low:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if predicted(middle) <= limit_bytes else (low, middle - 1)
    return low


def make_case(model: str, overrides: list[str], device: str) -> Case:
    """The case that `-P` describes, its batch size still to be found.

    Raises:
        BadInput: an axis is unknown or has several values, or sets the batch.
    """
    from dlbench.errors import BadInput
    from dlbench.suites.suite import GLOBAL_BATCH, one_case

    found = one_case("maxbatch", model, overrides, device, sought=("batch_size", GLOBAL_BATCH))
    if found.world_size > 1:
        raise BadInput("maxbatch looks at one device: leave nodes and devices_per_node at 1; each device is alike")
    return found


def _maxbatch(options: argparse.Namespace) -> int:
    from dlbench.errors import BadInput
    from dlbench.free_memory import available_bytes
    from dlbench.launch import probe, processes
    from dlbench.units import bytes_

    make_case(options.model, options.overrides, "cpu")  # wrong values are found before the device is asked
    found = probe.probe([options.model])
    case = make_case(options.model, options.overrides, found.device_kind)
    probe.require_devices([case], found)
    if case.device == "cuda" and options.memory is not None:
        raise BadInput("--memory limits the CPU's memory; on a GPU the limit is what it has")
    if case.device == "cuda":
        limit_bytes, where = _device_bytes(found.facts), found.description
    else:
        limit_bytes = _own_limit(available_bytes() if options.memory is None else options.memory)
        where = found.facts["cpu_model"] or "the CPU"
    say(f"{case.model} {case.mode} {case.precision} on {where}: at most {bytes_(limit_bytes)}")
    with tempfile.TemporaryDirectory(prefix="dlbench-maxbatch-") as folder:
        try:
            runs = Runs(case, Path(folder), limit_bytes, options.timeout)
            line = runs.prediction()
            trials = find_largest(lambda batch: runs.trial(batch, line), line, limit_bytes, options.within / 100)
        except processes.Stopped as stop:
            say(f"stopped by {stop.signal_name}")
            return 130
    _print(case, trials, limit_bytes, options.format)
    return 0 if any(t.fits for t in trials) else 1


class Runs:
    """Real runs of one case with different batches, each in a process of its own that ends with it."""

    def __init__(self, case: Case, folder: Path, limit_bytes: int, timeout_s: float, worker: str = _WORKER) -> None:
        self._case = case
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._timeout_s = timeout_s
        self._worker = worker
        self._count = 0

    def prediction(self) -> Callable[[int], float] | None:
        """Memory by batch [bytes]; None where the network cannot be followed without data."""
        answer = self._run({"predict": self._case.to_dict()})
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
            ErrandFailed: a single image failed for another reason than memory.
        """
        from dlbench.launch.job import JobFailed

        began_s = time.monotonic()
        on_cpu = self._case.device == "cpu"
        request = {
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
        try:
            return json.loads(job.run(self._worker, self._folder / str(self._count), request, self._timeout_s))
        except job.JobFailed as error:
            # The folder that it names goes with this command.
            raise job.JobFailed(str(error).partition("; see ")[0]) from None


def _is_memory(text: str) -> bool:
    # The kernel ends whoever takes too much by SIGKILL, without a word.
    return text.startswith("oom: ") or "(SIGKILL)" in text


def _own_limit(limit_bytes: int) -> int:
    """`limit_bytes`, or less where this process may not give its children as much (`ulimit -Hd`)."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    return limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)


def _device_bytes(facts: dict[str, Any]) -> int:
    return int(facts["devices"][0]["memory_bytes"])


def _print(case: Case, trials: list[Trial], limit_bytes: int, form: str) -> None:
    from dlbench.table import Cell, Column, Table, bytes_of, render

    largest = max((t.batch_size for t in trials if t.fits), default=None)
    failing = min((t for t in trials if not t.fits), key=lambda t: t.batch_size, default=None)
    if form == "json":
        axes = {name: value for name, value in case.to_dict().items() if name not in ("batch_size", "protocol")}
        values = {
            "case": axes,
            "limit_bytes": limit_bytes,
            "largest_batch": largest,
            "smallest_failing_batch": failing.batch_size if failing else None,
            "trials": [asdict(t) for t in trials],
        }
        print(json.dumps(values, indent=1))
        return
    columns = [
        Column("batch_size", "batch"),
        Column("fits"),
        Column("predicted_bytes", "predicted", "right", bytes_of),
        Column("allocated_peak_bytes", "allocated", "right", bytes_of),
        Column("rss_peak_bytes", "resident", "right", bytes_of),
        Column("seconds", "time [s]"),
        Column("reason", "", "left"),
    ]
    rows: list[list[Cell]] = [[getattr(t, c.key) for c in columns] for t in trials]
    result = "no batch fits" if largest is None else f"largest batch that fits: {largest}"
    after = f"; {failing.batch_size} does not" if failing and largest else ""
    after = "; more was not tried" if largest == _LARGEST else after
    print(render(Table(columns, rows, f"{case.model}, {case.mode}, {case.precision}", [result + after]), form), end="")


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?i?)b?", text.strip().lower())
    size = float(match.group(1)) * _UNITS.get(match.group(2), 0) if match else 0.0
    if not 1 <= size < _MOST_BYTES:
        raise argparse.ArgumentTypeError(f"'{text}' is no size such as 2GiB or 500MB")
    return int(size)


def _seconds(text: str) -> float:
    value = float(text) if re.fullmatch(r"[0-9.]+(e[0-9]+)?", text) and text != "." else 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no time above 0 s")
    return value


def _percent(text: str) -> float:
    value = float(text.removesuffix("%"))
    if not 0 <= value < 100:
        raise argparse.ArgumentTypeError(f"{text} is no percentage from 0 to below 100")
    return value
