"""Timing of steps: two clocks with the same interface, and the loop that runs steps until a rule stops it.

Step i runs from stamp i to stamp i+1, so that the steps sum to the device's window. Nothing inside the window waits for
the device to become idle. Where the host runs ahead, the loop reads stamps that lie a few steps back (`lag`), with
newer steps already queued: the device always has work, and the host is never more than two lags ahead. Where it does
not, all are read at a turn of the stopping rule: between the steps it costs more, for each finds cold caches.

What measuring costs: one stamp per step and its reading, two more in those steps that also show their phases, and the
rule, whose next turn is put off until its last one is under 0.1 % of the time between them. A CUDA event from a pool
takes about 2 µs; perf_counter 0.05 µs in a loop of its own, and some more between steps that fill the caches.
"""

import gc
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import torch

#: Queued work between the host and the stamps that it reads [s].
LAG_TIME_S = 0.02
#: Maximum number of queued steps.
MAX_LAG_STEPS = 32
#: Minimum time between two evaluations of the stopping rule [s]; also at least the rule's own time over the budget.
RULE_INTERVAL_S = 0.2
RULE_BUDGET = 0.001
#: Interval at which ranks exchange whether the time limit is reached [s]; an exchange takes up to a millisecond.
CAP_INTERVAL_S = 1.0
#: Cost of two additional stamps on the host [s]; phases are timed in as many steps as the budget allows.
PHASE_COST_S = 4e-6
PHASE_BUDGET = 0.001
#: Maximum number of steps if only the rule ends a window.
NO_LIMIT = sys.maxsize


class Clock(Protocol):
    """Clock that records stamps in the order of work and later returns the time between two."""

    name: str
    #: Whether the host runs ahead of the device, so that stamps must be waited for.
    runs_ahead: bool

    def stamp(self) -> Any:
        """Record a stamp after all submitted work; does not wait for it."""

    def wait_for_stamp(self, stamp: Any) -> None:
        """Wait until the work before `stamp` is done."""

    def is_done(self, stamp: Any) -> bool:
        """Whether the work before `stamp` is done; does not wait."""

    def elapsed_s(self, start: Any, end: Any) -> float:
        """Return the seconds between two stamps; both must have been waited for."""

    def recycle_stamp(self, stamp: Any) -> None:
        """Release a stamp for reuse."""

    def synchronize(self) -> None:
        """Wait until all submitted work is done."""


class HostClock:
    """perf_counter stamps, for devices that work while the host waits: the CPU."""

    name = "host"
    runs_ahead = False

    # The function itself, not a method that calls it: less interpreter work between steps.
    stamp = staticmethod(time.perf_counter)

    def wait_for_stamp(self, stamp: float) -> None:
        pass

    def is_done(self, stamp: float) -> bool:
        return True

    def elapsed_s(self, start: float, end: float) -> float:
        return end - start

    def recycle_stamp(self, stamp: float) -> None:
        pass

    def synchronize(self) -> None:
        pass


class EventClock:
    """Events of a device of `torch.accelerator`; taken from a pool, since to create one costs more."""

    name = "device_event"
    runs_ahead = True

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: list[Any] = []

    def stamp(self) -> Any:
        event = self._pool.pop() if self._pool else torch.Event(self._device, enable_timing=True)
        event.record()
        return event

    def wait_for_stamp(self, stamp: Any) -> None:
        stamp.synchronize()

    def is_done(self, stamp: Any) -> bool:
        return bool(stamp.query())

    def elapsed_s(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end)) * 1e-3

    def recycle_stamp(self, stamp: Any) -> None:
        self._pool.append(stamp)

    def synchronize(self) -> None:
        torch.accelerator.synchronize(self._device)


class CudaClock(EventClock):
    """CUDA events, resolution about 0.5 µs, recorded in the stream that is current when the clock is made."""

    name = "cuda_event"

    def __init__(self) -> None:
        super().__init__(torch.device("cuda"))
        # Read once: without a stream argument each event creates a new stream object.
        self._stream = torch.cuda.current_stream()

    def stamp(self) -> Any:
        event = self._pool.pop() if self._pool else torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    def synchronize(self) -> None:
        torch.cuda.synchronize()


def time_calls_by_host(call: Callable[[], Any], clock: Clock, calls: int = 1) -> float:
    """Time `calls` calls by the host clock, from an idle device until it is idle again [s]."""
    clock.synchronize()
    began_s = time.perf_counter()
    for _ in range(calls):
        call()
    clock.synchronize()
    return time.perf_counter() - began_s


def time_queued_calls(call: Callable[[], Any], clock: Clock, calls: int) -> list[float]:
    """Time each of `calls` calls that are queued one after the other [s], from an idle device on."""
    clock.synchronize()
    stamps = [clock.stamp()]
    for _ in range(calls):
        call()
        stamps.append(clock.stamp())
    clock.wait_for_stamp(stamps[-1])
    times = [clock.elapsed_s(a, b) for a, b in pairwise(stamps)]
    for stamp in stamps:
        clock.recycle_stamp(stamp)
    return times


#: Runs one step. With a clock it returns the stamps between its phases: two in training, none in inference.
Step = Callable[[Clock | None], tuple[Any, ...]]
#: Gets all step times so far and the time since the start [s]; returns a reason to stop, or None.
Rule = Callable[[list[float], float], str | None]
#: Broadcasts rank 0's decision to all ranks: (reason or None, step number of the next evaluation).
Broadcast = Callable[[tuple[str | None, int]], tuple[str | None, int]]


@dataclass
class TimedWindow:
    """Samples of consecutive steps [s]; phases only of every `phase_stride`-th step."""

    step_s: list[float] = field(default_factory=list)
    forward_s: list[float] = field(default_factory=list)
    backward_s: list[float] = field(default_factory=list)
    optimizer_s: list[float] = field(default_factory=list)
    phase_stride: int = 1
    stop_reason: str | None = None
    #: Number of checks whether the second newest step is done, and of positive ones: the host is then not ahead.
    num_looks: int = 0
    num_idle_looks: int = 0
    window_s: float = 0.0
    #: perf_counter at start and end of the window, with idle device.
    opened_at_s: float = 0.0
    closed_at_s: float = 0.0


def run_window(
    step: Step,
    clock: Clock,
    rule: Rule,
    *,
    step_estimate_s: float,
    first_look_s: float,
    cap_s: float,
    max_steps: int,
    growth: float,
    broadcast: Broadcast | None = None,
) -> TimedWindow:
    """Run `step` until `rule` returns a reason or `max_steps` are done.

    Args:
        step_estimate_s: expected step time [s]; sets how far the host runs ahead and how often phases are shown.
        first_look_s: shortest window [s]: neither `rule` nor `max_steps` ends it earlier.
        cap_s: time after which the rule is asked at once, however much slower than expected the steps have become [s].
            A single CPU sees it after each step, a GPU once what is queued is done, several ranks after as many steps
            as took `CAP_INTERVAL_S` before.
        max_steps: the rule is asked at this step at the latest, and the window closes there whatever it says.
            Where that comes before `first_look_s`, the window goes on until then: meters need their time.
        growth: from one turn of `rule` to the next, the window grows by this factor at least: a rule that is asked
            often enough says yes by luck.
        broadcast: see `Broadcast`; called with the same step number on every rank. None: there is one.
    """
    agreed: Broadcast = broadcast or (lambda decision: decision)
    # All ranks must time their phases in the same steps.
    most_phases = math.ceil(PHASE_COST_S / (PHASE_BUDGET * max(step_estimate_s, 1e-9)))
    _, stride = agreed((None, max(1, most_phases)))
    window = TimedWindow(phase_stride=stride)
    reader = _StampReader(clock, window)
    lag = _num_steps_queued_ahead(step_estimate_s) if clock.runs_ahead else 0
    # A host stamp is a time; other stamps need a wait, and other ranks an exchange.
    shows_time = broadcast is None and not clock.runs_ahead
    cap = _TimeLimit(cap_s, broadcast, step_estimate_s)
    done, reason = 0, None
    _, look_at = agreed((None, _num_steps_within_time(first_look_s, step_estimate_s, 1, max_steps)))
    with no_garbage_collection():
        clock.synchronize()
        window.opened_at_s = time.perf_counter()
        cap_at_s = window.opened_at_s + cap_s
        reader.start_window()
        # Local names: attribute lookups between two steps hit cold caches.
        add, stamp = reader.pending.append, clock.stamp
        while reason is None:
            turn = min(look_at, cap.look_at, done + lag if lag else max_steps)
            for number in range(done, turn):
                shown, end = step(None if number % stride else clock), stamp()
                add((shown, end))
                if shows_time and end >= cap_at_s:
                    break
            done = number + 1
            reader.read(keep=0 if done == max_steps else lag)
            if lag and window.step_s:
                # If steps became slower than expected, queue fewer, to notice the time limit in time.
                lag = min(lag, _num_steps_queued_ahead(window.step_s[-1]))
            if cap.is_reached(done, time.perf_counter() - window.opened_at_s) or done == look_at:
                reason, look_at = agreed(_ask_stopping_rule(window, rule, done, first_look_s, cap_s, max_steps, growth))
                max_steps = max(max_steps, look_at)
        clock.synchronize()
        window.closed_at_s = time.perf_counter()
        reader.read(keep=0)
    window.stop_reason = reason
    window.window_s = window.closed_at_s - window.opened_at_s
    return window


def _ask_stopping_rule(
    window: TimedWindow, rule: Rule, done: int, first_look_s: float, cap_s: float, max_steps: int, growth: float
) -> tuple[str | None, int]:
    """Evaluate the rule; also return the step of its next evaluation, chosen to keep the rule within its budget."""
    elapsed_s = time.perf_counter() - window.opened_at_s
    # CPU time only: waiting for other ranks is not a cost of the rule.
    began_s = time.thread_time()
    reason = rule(window.step_s, elapsed_s)
    if done >= max_steps:
        if elapsed_s < first_look_s:
            return reason, _num_steps_within_time(first_look_s - elapsed_s, elapsed_s / done, done + 1, NO_LIMIT)
        reason = reason or "max_steps"
    rule_s = time.thread_time() - began_s
    wished_s = max(rule_s / RULE_BUDGET, (growth - 1) * elapsed_s)
    interval_s = max(RULE_INTERVAL_S, min(wished_s, cap_s - elapsed_s)) if elapsed_s < cap_s else 0.0
    return reason, _num_steps_within_time(interval_s, elapsed_s / done, done + 1, max_steps)


class _TimeLimit:
    """Time limit of a window: a single process checks it directly, ranks all at the same step."""

    def __init__(self, cap_s: float, broadcast: Broadcast | None, step_estimate_s: float) -> None:
        self._cap_s = cap_s
        self._broadcast = broadcast
        self._looked_at_s, self._looked_after = 0.0, 0
        #: Step after which the ranks exchange.
        self.look_at = NO_LIMIT
        if broadcast is not None:
            _, self.look_at = broadcast((None, _num_steps_within_time(CAP_INTERVAL_S, step_estimate_s, 1, NO_LIMIT)))

    def is_reached(self, done: int, elapsed_s: float) -> bool:
        """Whether the limit is reached; called after each iteration."""
        is_over = elapsed_s >= self._cap_s
        if self._broadcast is None:
            return is_over
        if done < self.look_at:
            return False
        step_s = (elapsed_s - self._looked_at_s) / (done - self._looked_after)
        self._looked_at_s, self._looked_after = elapsed_s, done
        next_look = _num_steps_within_time(CAP_INTERVAL_S, step_s, done + 1, NO_LIMIT)
        reason, self.look_at = self._broadcast(("cap" if is_over else None, next_look))
        return reason is not None


def _num_steps_within_time(time_s: float, step_s: float, lowest: int, highest: int) -> int:
    """Return `lowest` plus the steps of `step_s` that fit into `time_s`, at most `highest`."""
    return min(highest, lowest + int(time_s / max(step_s, 1e-9)))


def _num_steps_queued_ahead(step_s: float) -> int:
    return min(MAX_LAG_STEPS, max(2, math.ceil(LAG_TIME_S / max(step_s, 1e-9))))


class _StampReader:
    """Reader that converts stamps to samples, in order, after their work is done."""

    def __init__(self, clock: Clock, window: TimedWindow) -> None:
        self._clock = clock
        self._window = window
        #: Phase stamps and end stamp of each unread step.
        self.pending: list[tuple[tuple[Any, ...], Any]] = []
        self._start: Any = None

    def start_window(self) -> None:
        self._start = self._clock.stamp()

    def read(self, keep: int) -> None:
        """Read all but the newest `keep` steps; wait for the last of them."""
        count = len(self.pending) - keep
        if count <= 0:
            return
        if keep:
            # Not the newest: a step just submitted is never done yet.
            self._window.num_looks += 1
            self._window.num_idle_looks += self._clock.is_done(self.pending[-2][1])
        steps = self.pending[:count]
        del self.pending[:count]
        between, release, window = self._clock.elapsed_s, self._clock.recycle_stamp, self._window
        add = window.step_s.append
        self._clock.wait_for_stamp(steps[-1][1])
        start = self._start
        for shown, end in steps:
            add(between(start, end))
            if shown:
                forward_end, backward_end = shown
                window.forward_s.append(between(start, forward_end))
                window.backward_s.append(between(forward_end, backward_end))
                window.optimizer_s.append(between(backward_end, end))
                release(forward_end)
                release(backward_end)
            release(start)
            start = end
        self._start = start


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Disable garbage collection: a collection of torch's objects takes milliseconds within an arbitrary step.

    Starts with a collection; nested use has no effect.
    """
    if not gc.isenabled():
        yield
        return
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
