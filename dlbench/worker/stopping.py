"""When a warm-up and a window end."""

from __future__ import annotations

from dataclasses import dataclass

from dlbench.spec.case import Protocol
from dlbench.stats import is_steady, median_interval


@dataclass(frozen=True)
class WarmupRule:
    """ "steady" once the drift test is passed, after a minimum of time and steps; "cap" at the longest warm-up."""

    protocol: Protocol

    def __call__(self, step_s: list[float], elapsed_s: float) -> str | None:
        long_enough = elapsed_s >= self.protocol.warmup_min_time_s and len(step_s) >= self.protocol.warmup_min_steps
        if long_enough and is_steady(step_s):
            return "steady"
        return "cap" if elapsed_s >= self.protocol.warmup_max_time_s else None


@dataclass(frozen=True)
class WindowRule:
    """ "target" once the interval of the median step is narrow enough, after a minimum; "max_time" at the cap."""

    protocol: Protocol

    def __call__(self, step_s: list[float], elapsed_s: float) -> str | None:
        long_enough = elapsed_s >= self.protocol.min_time_s and len(step_s) >= self.protocol.min_steps
        if long_enough and self._narrow(step_s):
            return "target"
        return "max_time" if elapsed_s >= self.protocol.max_time_s else None

    def _narrow(self, step_s: list[float]) -> bool:
        interval = median_interval(step_s, self.protocol.confidence)
        return interval is not None and interval.half_width <= self.protocol.target_half_width * interval.value
