"""Timing of steps: two clocks behind one shape, and the loop that steps until a rule says stop.

Step i runs from stamp i to stamp i+1, so that the steps sum to the device's window. Nothing inside the window waits for
the device to become idle. Where the host runs ahead, the loop reads stamps that lie a few steps back (`lag`), with
newer steps already queued: the device always has work, and the host is never more than two lags ahead. Where it does
not, all are read at a turn of the stopping rule: between the steps it costs more, for each finds cold caches.

What measuring costs: one stamp per step and its reading, two more in those steps that also show their phases, and the
rule, whose next turn is put off until its last one is under 0.1 % of the time between them. A CUDA event from a pool
takes about 2 µs; perf_counter 0.05 µs in a loop of its own, and some more between steps that fill the caches.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

#: Queued work that the host keeps ahead of the stamps it waits for [s].
LAG_TIME_S = 0.02
#: The host may at most be this many steps behind the newest, however short they are.
MAX_LAG_STEPS = 32
#: Time between two turns of the stopping rule is at least this [s], and at least the rule's own time over the budget.
RULE_INTERVAL_S = 0.2
RULE_BUDGET = 0.001
#: Ranks tell each other after so much work [s] whether the cap has come, which takes them up to a millisecond.
CAP_INTERVAL_S = 1.0
#: Two more stamps cost the host about this [s], whatever the clock; phases are shown in so many steps that they cost at
#: most the budget.
PHASE_COST_S = 4e-6
PHASE_BUDGET = 0.001
_NO_LIMIT = sys.maxsize


class Clock(Protocol):
    """Takes stamps in the order of the work, and tells the time between two of them afterwards."""

    name: str
    #: The host goes on while the device works, so that stamps must be waited for.
    runs_ahead: bool

    def stamp(self) -> Any:
        """A mark behind all work that was submitted so far; does not wait for it."""

    def wait(self, stamp: Any) -> None:
        """Returns when the work before `stamp` is done."""

    def is_done(self, stamp: Any) -> bool:
        """Whether the work before `stamp` is done; does not wait for it."""

    def elapsed_s(self, start: Any, end: Any) -> float:
        """Seconds from one stamp to another; both must have been waited for."""

    def release(self, stamp: Any) -> None:
        """The stamp is not needed any more."""

    def synchronize(self) -> None:
        """Returns when all work submitted so far is done."""


class HostClock:
    """perf_counter stamps, for devices that work while the host waits: the CPU."""

    name = "host"
    runs_ahead = False

    # Itself and not a method that calls it: fewer steps of the interpreter between the network's.
    stamp = staticmethod(time.perf_counter)

    def wait(self, stamp: float) -> None:
        pass

    def is_done(self, stamp: float) -> bool:
        return True

    def elapsed_s(self, start: float, end: float) -> float:
        return end - start

    def release(self, stamp: float) -> None:
        pass

    def synchronize(self) -> None:
        pass


class CudaClock:
    """CUDA events, resolution about 0.5 µs; taken from a pool, since to create one costs more.

    They are recorded in the stream that is current when the clock is made.
    """

    name = "cuda_event"
    runs_ahead = True

    def __init__(self) -> None:
        self._pool: list[torch.cuda.Event] = []
        # Asked for once: an event that is not told its stream makes a new object for it each time.
        self._stream = torch.cuda.current_stream()

    def stamp(self) -> torch.cuda.Event:
        event = self._pool.pop() if self._pool else torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    def wait(self, stamp: torch.cuda.Event) -> None:
        stamp.synchronize()

    def is_done(self, stamp: torch.cuda.Event) -> bool:
        return bool(stamp.query())  # type: ignore[no-untyped-call]

    def elapsed_s(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return float(start.elapsed_time(end)) * 1e-3

    def release(self, stamp: torch.cuda.Event) -> None:
        self._pool.append(stamp)

    def synchronize(self) -> None:
        torch.cuda.synchronize()


#: Does one step. Given a clock it returns stamps taken between its phases: two in training, none in inference.
Step = Callable[[Clock | None], tuple[Any, ...]]
#: Sees all step times so far and the time since the start, both in seconds; a reason to stop, or None.
Rule = Callable[[list[float], float], str | None]
#: Makes all ranks take rank 0's decision: (reason or None, number of the step at which to ask again).
Broadcast = Callable[[tuple[str | None, int]], tuple[str | None, int]]


@dataclass
class Window:
    """Samples of a run of steps [s]; phases of every `phase_stride`-th step only."""

    step_s: list[float] = field(default_factory=list)
    forward_s: list[float] = field(default_factory=list)
    backward_s: list[float] = field(default_factory=list)
    optimizer_s: list[float] = field(default_factory=list)
    phase_stride: int = 1
    stop_reason: str | None = None
    #: How often it was asked whether the step before the newest is done, and how often it was: the host, which should
    #: be steps ahead, is not even one.
    num_looks: int = 0
    num_idle_looks: int = 0
    window_s: float = 0.0
    #: perf_counter at the opening and closing, the device idle at both.
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
) -> Window:
    """Runs `step` until `rule` gives a reason or `max_steps` are done.

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
        agree: see `Broadcast`; called with the same step number on every rank. None: there is one.
    """
    agreed: Broadcast = broadcast or (lambda decision: decision)
    # Where ranks show their phases in different steps, nothing can be said of them.
    _, stride = agreed((None, _phase_stride(step_estimate_s)))
    window = Window(phase_stride=stride)
    reader = _Reader(clock, window)
    lag = _lag(step_estimate_s) if clock.runs_ahead else 0
    # A stamp of the host's clock is itself the time; another would have to be waited for, and other ranks to be asked.
    shows_time = broadcast is None and not clock.runs_ahead
    cap = _Cap(cap_s, broadcast, step_estimate_s)
    done, reason = 0, None
    _, look_at = agreed((None, _steps_in(first_look_s, step_estimate_s, 1, max_steps)))
    with no_garbage_collection():
        clock.synchronize()
        window.opened_at_s = time.perf_counter()
        cap_at_s = window.opened_at_s + cap_s
        reader.begin()
        # Names of this loop: what is looked up between two steps is looked up in cold caches.
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
                # Where steps have become slower than expected, fewer are queued, so that the cap is seen in time.
                lag = min(lag, _lag(window.step_s[-1]))
            if cap.has_come(done, time.perf_counter() - window.opened_at_s) or done == look_at:
                reason, look_at = agreed(_look(window, rule, done, first_look_s, cap_s, max_steps, growth))
                max_steps = max(max_steps, look_at)
        clock.synchronize()
        window.closed_at_s = time.perf_counter()
        reader.read(keep=0)
    window.stop_reason = reason
    window.window_s = window.closed_at_s - window.opened_at_s
    return window


def _look(
    window: Window, rule: Rule, done: int, first_look_s: float, cap_s: float, max_steps: int, growth: float
) -> tuple[str | None, int]:
    """The rule's answer, and the step of its next turn: so far off that the rule costs less than its budget."""
    elapsed_s = time.perf_counter() - window.opened_at_s
    # Its own time: waiting for other ranks in it is no work that another turn would cost.
    began_s = time.thread_time()
    reason = rule(window.step_s, elapsed_s)
    if done >= max_steps:
        if elapsed_s < first_look_s:
            return reason, _steps_in(first_look_s - elapsed_s, elapsed_s / done, done + 1, _NO_LIMIT)
        reason = reason or "max_steps"
    rule_s = time.thread_time() - began_s
    wished_s = max(rule_s / RULE_BUDGET, (growth - 1) * elapsed_s)
    interval_s = max(RULE_INTERVAL_S, min(wished_s, cap_s - elapsed_s)) if elapsed_s < cap_s else 0.0
    return reason, _steps_in(interval_s, elapsed_s / done, done + 1, max_steps)


class _Cap:
    """Whether a window's longest time is over: a single process sees it for itself, ranks all at the same step."""

    def __init__(self, cap_s: float, broadcast: Broadcast | None, step_estimate_s: float) -> None:
        self._cap_s = cap_s
        self._broadcast = broadcast
        self._looked_at_s, self._looked_after = 0.0, 0
        #: The step after which the ranks tell each other.
        self.look_at = _NO_LIMIT
        if broadcast is not None:
            _, self.look_at = broadcast((None, _steps_in(CAP_INTERVAL_S, step_estimate_s, 1, _NO_LIMIT)))

    def has_come(self, done: int, elapsed_s: float) -> bool:
        """Asked after each turn of the loop."""
        is_over = elapsed_s >= self._cap_s
        if self._broadcast is None:
            return is_over
        if done < self.look_at:
            return False
        step_s = (elapsed_s - self._looked_at_s) / (done - self._looked_after)
        self._looked_at_s, self._looked_after = elapsed_s, done
        next_look = _steps_in(CAP_INTERVAL_S, step_s, done + 1, _NO_LIMIT)
        reason, self.look_at = self._broadcast(("cap" if is_over else None, next_look))
        return reason is not None


def _steps_in(time_s: float, step_s: float, lowest: int, highest: int) -> int:
    """`lowest` plus the steps of `step_s` that fit into `time_s`, at most `highest`."""
    return min(highest, lowest + int(time_s / max(step_s, 1e-9)))


def _lag(step_s: float) -> int:
    return min(MAX_LAG_STEPS, max(2, math.ceil(LAG_TIME_S / max(step_s, 1e-9))))


def _phase_stride(step_s: float) -> int:
    return max(1, math.ceil(PHASE_COST_S / (PHASE_BUDGET * max(step_s, 1e-9))))


class _Reader:
    """Turns stamps into samples, in order, once their work is done."""

    def __init__(self, clock: Clock, window: Window) -> None:
        self._clock = clock
        self._window = window
        #: Of each step not yet read, the stamps it showed and its end.
        self.pending: list[tuple[tuple[Any, ...], Any]] = []
        self._start: Any = None

    def begin(self) -> None:
        self._start = self._clock.stamp()

    def read(self, keep: int) -> None:
        """Reads all but the newest `keep` steps; waits for the last of those it reads."""
        count = len(self.pending) - keep
        if count <= 0:
            return
        if keep:
            # Not the newest: what was just submitted is not done yet, however idle the device was.
            self._window.num_looks += 1
            self._window.num_idle_looks += self._clock.is_done(self.pending[-2][1])
        steps = self.pending[:count]
        del self.pending[:count]
        between, release, window = self._clock.elapsed_s, self._clock.release, self._window
        add = window.step_s.append
        self._clock.wait(steps[-1][1])
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
    """No collection inside: a pass over torch's objects takes milliseconds and falls into an arbitrary step.

    It begins with a pass; within another such context nothing is left to do.
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
