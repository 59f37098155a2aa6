"""When a warm-up and a window end. Both are asked at growing intervals, not after every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from dlbench.stats import is_steady, median_interval
from dlbench.suites.case import Protocol

#: From look to look a warm-up and a window grow by these factors at least.
WARMUP_GROWTH = 1.2
WINDOW_GROWTH = 1.5
#: A window has so many steps even where they outlast its cap: of fewer, nothing can be said.
MIN_STEPS_AT_CAP = 3


@dataclass(frozen=True)
class WarmupRule:
    """ "steady" once the drift test is passed, after a minimum of time and steps; "cap" at the longest warm-up."""

    protocol: Protocol

    def __call__(self, step_s: list[float], elapsed_s: float) -> str | None:
        long_enough = elapsed_s >= self.protocol.warmup_min_time_s and len(step_s) >= self.protocol.warmup_min_steps
        if long_enough and is_steady(step_s):
            return "steady"
        return "cap" if elapsed_s >= self.protocol.warmup_max_time_s else None


@dataclass
class SlowestRank:
    """A rule that is asked with the times of each step's slowest rank, which are what a report shows [s].

    Called by all ranks at the same step.
    """

    rule: Callable[[list[float], float], str | None]
    #: See `RankContext.all_gather`.
    all_gather: Callable[[list[float]], list[list[float]]]
    slowest_s: list[float] = field(default_factory=list)

    def __call__(self, step_s: list[float], elapsed_s: float) -> str | None:
        # Each rank knows some steps more or less: what one lacks is left to the next look of all.
        new = self.all_gather(step_s[len(self.slowest_s) :])
        self.slowest_s += map(max, *new) if len(new) > 1 else new[0]
        return self.rule(self.slowest_s, elapsed_s)


@dataclass
class WindowRule:
    """ "target" once the interval of the median step is narrow enough, after a minimum; "max_time" at the cap.

    To stop at the first narrow interval would favour the lucky ones: of nominal 95 % intervals so chosen, 89 % hold the
    median. Two looks in a row must find it narrow, the window having grown by half between them (then about 92 % do),
    unless the first look finds it twice as narrow as asked; see `docs/experiments/coverage.md`.
    """

    protocol: Protocol
    narrow_looks: int = 0

    def __call__(self, step_s: list[float], elapsed_s: float) -> str | None:
        too_long = elapsed_s >= self.protocol.max_time_s and len(step_s) >= MIN_STEPS_AT_CAP
        if elapsed_s >= self.protocol.min_time_s and len(step_s) >= self.protocol.min_steps:
            width = self._relative_half_width(step_s)
            self.narrow_looks = self.narrow_looks + 1 if width <= self.protocol.target_half_width else 0
            # A window that a cap ends was not chosen by its width: one narrow look is enough.
            enough = 1 if too_long or len(step_s) >= self.protocol.max_steps else 2
            if self.narrow_looks >= enough or width <= self.protocol.target_half_width / 2:
                return "target"
        return "max_time" if too_long else None

    def _relative_half_width(self, step_s: list[float]) -> float:
        interval = median_interval(step_s, self.protocol.confidence)
        return interval.relative_half_width if interval else math.inf
