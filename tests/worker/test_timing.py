"""The timed loop: what it counts, when it stops, and that it never waits for an idle device inside the window."""

from __future__ import annotations

import gc
import threading
import time

import pytest

from dlbench.suites.case import Protocol
from dlbench.worker import timing
from dlbench.worker.measure import Warmup, _temperature_warnings, _timing_warnings
from dlbench.worker.stopping import SlowestRankRule, WarmupRule, WindowRule
from dlbench.worker.timing import CudaClock, HostClock, run_window


class FakeDevice:
    """A device with a queue: the host goes on at once, the work of a step ends `step_s` after the one before."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self.free_at_s = time.perf_counter()
        self.num_synchronisations = 0
        self.num_events = 0
        self.most_ahead_s = 0.0

    def submit(self) -> None:
        self.free_at_s = max(self.free_at_s, time.perf_counter()) + self.step_s
        self.most_ahead_s = max(self.most_ahead_s, self.free_at_s - time.perf_counter())

    def synchronize(self) -> None:
        self.num_synchronisations += 1
        time.sleep(max(0.0, self.free_at_s - time.perf_counter()))


@pytest.fixture
def device(monkeypatch):
    """A device of 2 ms per step under torch.cuda.Event and torch.cuda.synchronize, which behave like the real ones."""
    fake = FakeDevice(0.002)

    class Event:
        def __init__(self, enable_timing=False):
            assert enable_timing, "an event without timing cannot be measured"
            fake.num_events += 1
            self.done_at_s = None

        def record(self, stream):
            assert stream == "the current stream"
            self.done_at_s = max(fake.free_at_s, time.perf_counter())

        def synchronize(self):
            time.sleep(max(0.0, self.done_at_s - time.perf_counter()))

        def query(self):
            return time.perf_counter() >= self.done_at_s

        def elapsed_time(self, end):
            if time.perf_counter() < end.done_at_s:
                raise RuntimeError("CUDA error: device not ready")
            return (end.done_at_s - self.done_at_s) * 1e3

    monkeypatch.setattr("torch.cuda.Event", Event)
    monkeypatch.setattr("torch.cuda.current_stream", lambda: "the current stream")
    monkeypatch.setattr("torch.cuda.synchronize", fake.synchronize)
    return fake


def cuda_step(device, clock):
    def step(with_clock):
        device.submit()
        return (with_clock.stamp(), with_clock.stamp()) if with_clock else ()

    return step


def run(step, clock, rule, **changes):
    options = {
        "step_estimate_s": 0.002,
        "first_look_s": 0.1,
        "cap_s": 10.0,
        "max_steps": 100_000,
        "growth": 1.1,
        **changes,
    }
    return run_window(step, clock, rule, **options)


def stop_after(time_s):
    return lambda step_s, elapsed_s: "target" if elapsed_s >= time_s else None


def test_device_steps_sum_to_the_window_and_the_device_is_waited_for_only_at_its_ends(device):
    clock = CudaClock()
    window = run(cuda_step(device, clock), clock, stop_after(0.3))
    assert device.num_synchronisations == 2
    assert sum(window.step_s) == pytest.approx(window.window_s, rel=0.02)
    assert sorted(window.step_s)[len(window.step_s) // 2] == pytest.approx(0.002, rel=0.01)


def test_the_host_stays_a_bounded_time_ahead_and_events_are_used_again(device):
    clock = CudaClock()
    window = run(cuda_step(device, clock), clock, stop_after(0.5))
    assert len(window.step_s) > 150
    assert device.most_ahead_s < 0.06
    assert device.num_events < 100


@pytest.mark.parametrize(("device_s", "host_s", "host_bound"), [(0.004, 0.0, False), (0.0002, 0.003, True)])
def test_a_device_that_waits_for_the_host_is_seen_and_said(device, device_s, host_s, host_bound):
    device.step_s = device_s
    clock = CudaClock()

    def step(with_clock):
        time.sleep(host_s)
        return cuda_step(device, clock)(with_clock)

    window = run(step, clock, stop_after(0.3), step_estimate_s=0.004)
    assert window.num_looks >= 5
    assert (window.num_idle_looks > 0.9 * window.num_looks) == host_bound
    assert (window.num_idle_looks < 0.1 * window.num_looks) != host_bound
    warnings = _timing_warnings(Warmup((0.004,), True), window)
    assert [w.partition(":")[0] for w in warnings if w.startswith("host_bound")] == ["host_bound"] * host_bound


def test_a_cpu_is_never_said_to_wait_for_its_host():
    window = run(lambda clock: (), HostClock(), stop_after(0.05), first_look_s=0.01)
    assert window.num_looks == 0


def test_phases_of_short_steps_are_shown_only_in_some_of_them(device):
    device.step_s = 0.0005
    clock = CudaClock()
    window = run(cuda_step(device, clock), clock, stop_after(0.2), step_estimate_s=0.0005)
    assert window.phase_stride == 8
    assert len(window.forward_s) == -(-len(window.step_s) // 8)


def test_the_phases_of_a_step_sum_to_the_step_and_the_steps_to_the_window():
    def step(clock):
        first = clock.stamp()
        time.sleep(0.004)
        return first, clock.stamp()

    window = run(step, HostClock(), stop_after(0.1), step_estimate_s=0.004, first_look_s=0.1)
    assert window.phase_stride == 1
    phases = zip(window.forward_s, window.backward_s, window.optimizer_s, window.step_s, strict=True)
    assert all(f + b + o == pytest.approx(s) for f, b, o, s in phases)
    assert sum(window.step_s) == pytest.approx(window.window_s, rel=0.01)


def test_a_window_ends_at_its_last_step_whatever_the_rule_says():
    window = run(lambda clock: (), HostClock(), lambda step_s, elapsed_s: None, max_steps=17, first_look_s=0.0)
    assert (window.stop_reason, len(window.step_s)) == ("max_steps", 17)


@pytest.mark.parametrize("several_ranks", [False, True])
def test_the_most_steps_do_not_end_a_window_before_its_shortest_time(several_ranks):
    never = lambda step_s, elapsed_s: None  # noqa: E731
    broadcast = (lambda decision: decision) if several_ranks else None
    window = run(lambda clock: (), HostClock(), never, max_steps=17, first_look_s=0.3, broadcast=broadcast)
    assert window.stop_reason == "max_steps"
    assert len(window.step_s) > 17
    assert 0.3 <= window.window_s < 0.5


def test_steps_that_wait_for_the_device_by_themselves_are_not_said_to_wait_for_the_host(device):
    clock = CudaClock()

    def step(with_clock):
        shown = cuda_step(device, clock)(with_clock)
        clock.synchronize()  # as a loss scaler does
        return shown

    window = run(step, clock, stop_after(0.3), step_estimate_s=0.004)
    assert window.num_idle_looks > 0.9 * window.num_looks
    said = [_timing_warnings(Warmup((0.004,), True), window, waits_itself) for waits_itself in (False, True)]
    assert [any(w.startswith("host_bound") for w in warnings) for warnings in said] == [True, False]


def test_a_slow_rule_is_asked_seldom_but_not_after_the_cap():
    asked_at_s = []

    def rule(step_s, elapsed_s):
        asked_at_s.append(elapsed_s)
        ends_at = time.perf_counter() + 0.01
        while time.perf_counter() < ends_at:
            pass
        return "max_time" if elapsed_s >= 0.6 else None

    def step(clock):
        time.sleep(0.001)
        return ()

    window = run(step, HostClock(), rule, step_estimate_s=0.001, first_look_s=0.1, cap_s=0.6)
    assert len(asked_at_s) <= 4
    assert window.window_s < 1.0


def test_a_rule_that_only_waits_for_other_ranks_is_asked_as_often_as_a_quick_one():
    asked_at_s = []

    def rule(step_s, elapsed_s):
        asked_at_s.append(elapsed_s)
        time.sleep(0.02)
        return "max_time" if elapsed_s >= 1.5 else None

    run(lambda clock: time.sleep(0.001) or (), HostClock(), rule, first_look_s=0.1, cap_s=1.5)
    assert len(asked_at_s) >= 4


class SlowingStep:
    """Steps of 1 ms, and from the fiftieth on of 40: what other work on the cores does to a short step."""

    def __init__(self):
        self.number = 0

    def time_s(self):
        self.number += 1
        return 0.001 if self.number < 50 else 0.04

    def __call__(self, clock):
        time.sleep(self.time_s())
        return ()


def at_cap(cap_s):
    return lambda step_s, elapsed_s: "max_time" if elapsed_s >= cap_s else None


@pytest.mark.parametrize("first_look_s", [0.01, 5.0])
def test_steps_that_become_slower_than_expected_do_not_carry_a_window_past_its_cap(first_look_s):
    window = run(
        SlowingStep(), HostClock(), at_cap(0.4), step_estimate_s=0.001, first_look_s=first_look_s, cap_s=0.4, growth=1.5
    )
    assert window.stop_reason == "max_time"
    assert 0.4 <= window.window_s < 0.48
    assert sum(window.step_s) == pytest.approx(window.window_s, rel=0.02)


def test_steps_of_a_device_that_become_slower_do_not_carry_a_window_past_its_cap(device):
    clock, slowing = CudaClock(), SlowingStep()

    def step(with_clock):
        device.step_s = slowing.time_s()
        return cuda_step(device, clock)(with_clock)

    # Twenty of the expected steps would be queued, and twenty more before the clock is looked at.
    window = run(step, clock, at_cap(1.5), step_estimate_s=0.001, first_look_s=5.0, cap_s=1.5)
    assert window.stop_reason == "max_time"
    assert 1.5 <= window.window_s < 1.5 + 5 * 0.04
    assert sum(window.step_s) == pytest.approx(window.window_s, rel=0.02)


def test_a_window_at_its_cap_goes_on_step_by_step_until_there_are_enough():
    lengths = []

    def rule(step_s, elapsed_s):
        lengths.append(len(step_s))
        return "max_time" if len(step_s) >= 3 else None

    run(lambda clock: time.sleep(0.02) or (), HostClock(), rule, step_estimate_s=0.001, first_look_s=5.0, cap_s=0.01)
    assert lengths == [1, 2, 3]


def test_ranks_end_at_the_same_step_after_the_cap_by_the_clock_of_rank_0(monkeypatch):
    monkeypatch.setattr(timing, "CAP_INTERVAL_S", 0.05)
    barrier, said, windows = threading.Barrier(2, timeout=20), [None], {}

    def agree_of(rank):
        def broadcast(mine):
            if rank == 0:
                said[0] = mine
            barrier.wait()
            decision = said[0]
            barrier.wait()
            return decision

        return broadcast

    def work(rank):
        # The other rank thinks that its steps are ten times as long, so it would look at other steps.
        estimate_s = 0.001 * 10**rank
        options = {"step_estimate_s": estimate_s, "first_look_s": 5.0, "cap_s": 0.4, "broadcast": agree_of(rank)}
        windows[rank] = run(SlowingStep(), HostClock(), at_cap(0.4 if rank == 0 else 1e9), **options)

    with timing.no_garbage_collection():
        ranks = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join()
    assert [windows[rank].stop_reason for rank in range(2)] == ["max_time"] * 2
    assert len(windows[0].step_s) == len(windows[1].step_s)
    # Fifty of the slow steps fit into an interval of fast ones; after that one look was enough to see what they take.
    assert 0.4 <= windows[0].window_s < 2.2


def test_no_garbage_is_collected_inside_the_window():
    seen = []
    run(lambda clock: seen.append(gc.isenabled()) or (), HostClock(), lambda *_: None, max_steps=3, first_look_s=0.0)
    assert seen == [False] * 3
    assert gc.isenabled()


def test_all_ranks_take_the_decision_of_rank_0():
    # How often phases are shown, when to look at the cap, when to look first, then what each look says.
    decisions = iter([(None, 3), (None, 50), (None, 5), (None, 9), ("target", 99)])
    window = run(lambda clock: (), HostClock(), lambda *_: None, broadcast=lambda mine: next(decisions))
    assert (window.phase_stride, window.stop_reason, len(window.step_s)) == (3, "target", 9)


def test_a_lapse_of_the_estimate_does_not_reach_zero_steps():
    assert timing._num_steps_within_time(0.2, 0.0, 1, 50) == 50
    assert timing._num_steps_within_time(0.0, 1.0, 1, 50) == 1


def test_warm_up_goes_on_while_steps_get_faster_and_ends_at_its_cap():
    rule = WarmupRule(Protocol(warmup_min_steps=5, warmup_min_time_s=1.0, warmup_max_time_s=60.0))
    falling = [1.0 / (i + 1) for i in range(40)]
    assert rule(falling, 5.0) is None
    assert rule([0.5, 0.1] + [0.1, 0.1001] * 20, 5.0) == "steady"
    assert rule([0.1, 0.1001] * 20, 0.5) is None
    assert rule(falling, 60.0) == "cap"


@pytest.mark.parametrize(
    ("temperature_c", "elapsed_s", "ends", "warning"),
    [
        (54.0, 5.0, None, None),
        (54.0, 60.0, "cool", "not_warm: the device reached 54 °C; protocol.warmup_until_c requires 60 °C."),
        (60.0, 5.0, "steady", None),
        # What nobody can read ends the warm-up as if nothing had been asked, and is said.
        (None, 5.0, "steady", "not_warm: the temperature is unknown; protocol.warmup_until_c requires 60 °C."),
    ],
)
def test_warm_up_goes_on_until_the_device_is_warm_or_the_time_is_up(temperature_c, elapsed_s, ends, warning):
    protocol = Protocol(warmup_min_steps=5, warmup_min_time_s=1.0, warmup_max_time_s=60.0, warmup_until_c=60.0)
    assert WarmupRule(protocol, lambda: temperature_c)([0.1, 0.1001] * 20, elapsed_s) == ends
    if ends:
        assert _temperature_warnings(protocol, temperature_c) == ((warning,) if warning else ())


def test_a_window_needs_its_minimum_before_the_target_counts():
    rule = WindowRule(Protocol(min_time_s=5.0, min_steps=30, max_time_s=60.0, target_half_width=0.005))
    even = [0.1 + 1e-6 * (i % 7) for i in range(60)]
    wide = [0.1 * (1 + i % 2) for i in range(60)]
    assert rule(even, 4.0) is None
    assert rule(even[:29], 6.0) is None
    assert rule(even, 6.0) == "target"
    assert rule(wide, 6.0) is None
    assert rule(wide, 60.0) == "max_time"


def test_a_window_that_is_only_just_narrow_must_be_so_at_two_looks_in_a_row(monkeypatch):
    rule = WindowRule(Protocol(min_time_s=5.0, min_steps=30, max_time_s=60.0, target_half_width=0.005))
    widths = iter([0.004, 0.006, 0.004, 0.004])
    monkeypatch.setattr(WindowRule, "_relative_half_width", lambda self, step_s: next(widths))
    assert [rule([0.1] * 30, t) for t in (5.0, 7.5, 11.0, 17.0)] == [None, None, None, "target"]


def test_at_the_cap_one_narrow_look_is_enough_for_nothing_was_chosen(monkeypatch):
    rule = WindowRule(Protocol(min_time_s=5.0, min_steps=30, max_time_s=20.0, target_half_width=0.005))
    monkeypatch.setattr(WindowRule, "_relative_half_width", lambda self, step_s: 0.004)
    assert rule([0.1] * 30, 20.0) == "target"
    assert WindowRule(rule.protocol)([0.1] * 29, 20.0) == "max_time"
    by_steps = Protocol(min_time_s=5.0, min_steps=30, max_steps=30, max_time_s=20.0, target_half_width=0.005)
    assert WindowRule(by_steps)([0.1] * 30, 6.0) == "target"


def test_of_several_ranks_the_slowest_of_each_step_decides():
    even, wide = [0.1 + 1e-6 * (i % 7) for i in range(60)], [0.1 * (1 + i % 2) for i in range(60)]
    narrow = WindowRule(Protocol(min_time_s=5.0, min_steps=30, max_time_s=60.0, target_half_width=0.005))
    asked = []

    def all_gather(mine):
        # The other rank has read two steps less.
        asked.append(len(mine))
        return [mine, wide[len(rule.slowest_s) :][: max(0, len(mine) - 2)]]

    rule = SlowestRankRule(narrow, all_gather)
    assert rule(even[:40], 6.0) is None
    assert rule(even, 60.0) == "max_time"
    assert asked == [40, 22]
    assert rule.slowest_s == [max(pair) for pair in zip(even, wide, strict=True)][:58]
    assert SlowestRankRule(narrow, lambda mine: [mine])(even, 6.0) == "target"


def test_a_context_without_collection_inside_another_collects_nothing(monkeypatch):
    collected = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(gc.isenabled()))
    with timing.no_garbage_collection():
        with timing.no_garbage_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    assert collected == [True]
