"""Checks of a device's meters that need no framework: `make test-gpu` runs them on a GPU, `make test` on the stand-in."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from dlbench.worker.meters import reading
from dlbench.worker.meters.device_health import read_health
from dlbench.worker.meters.energy import open_meter
from dlbench.worker.meters.nvml import NvmlDevice


def every_call_answers(uuid: str) -> dict[str, Any]:
    """Make every call to NVML that dlbench makes and that every data-centre GPU answers; return the answers."""
    nvml = NvmlDevice(uuid)
    state, instant_w, health = nvml.read_state(), nvml._read_power_field(0), read_health(nvml)
    assert None not in vars(state).values(), state
    assert instant_w is not None
    assert nvml.process_ids() is not None
    assert nvml.xid_events() is not None
    assert nvml.power_limit_range_w() is not None
    assert nvml.sm_clock_range_mhz() is not None
    limits = {"range_w": nvml.power_limit_range_w(), "set_w": nvml.power_limit_w(), "mhz": nvml.sm_clock_range_mhz()}
    return {"state": vars(state), "instant_power_w": instant_w, "health": health, "limits": limits}


def the_counter_moves_in_ticks(uuid: str, seconds: float) -> dict[str, float]:
    """Read the energy counter without pause: it never goes back, and moves every 5 to 150 ms; return the ticks."""
    nvml = NvmlDevice(uuid)
    seen = []
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        seen.append((time.perf_counter(), nvml.energy_j()))
        time.sleep(0.0002)
    values = [energy_j for _, energy_j in seen]
    moved_s = [b[0] for a, b in itertools.pairwise(seen) if b[1] != a[1]]
    ticks_s = [b - a for a, b in itertools.pairwise(moved_s)]
    assert values == sorted(values)
    assert 0.005 <= statistics.median(ticks_s) <= 0.15
    return {"tick_s": statistics.median(ticks_s), "shortest_tick_s": min(ticks_s), "longest_tick_s": max(ticks_s)}


def counter_and_integral_agree(
    uuid: str, load: Callable[[float], tuple[float, float]], lengths_s: Sequence[float]
) -> dict[str, Any]:
    """Meter loads of several lengths: both energies within 5 %, and no energy without time; return the figures."""
    fewest, reading.FEWEST_TICKS = reading.FEWEST_TICKS, 2
    found = []
    try:
        for seconds in lengths_s:
            meter = open_meter("auto", "cuda", uuid, None)
            meter.measure_idle(0.5)
            meter.start()
            began_s, ended_s = load(seconds)
            result = meter.stop(began_s, ended_s)
            found.append((ended_s - began_s, result.energy_j, result.integral_j, result.idle_power_w))
    finally:
        reading.FEWEST_TICKS = fewest
    slope_w, intercept_j = statistics.linear_regression([row[0] for row in found], [row[1] for row in found])
    for _, energy_j, integral_j, _ in found:
        assert abs(integral_j / energy_j - 1) < 0.05, found
    assert abs(intercept_j) < 0.1 * slope_w, found
    return {"seconds_counter_integral_idle": found, "power_w": slope_w, "intercept_j": intercept_j}
