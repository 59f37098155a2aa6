"""Stopping rules of warm-up and window. They are evaluated at growing intervals, not after every step."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from dlbench.stats import is_steady, median_interval
from dlbench.suites.case import Protocol

#: Minimum growth of warm-up and window between two evaluations.
WARMUP_GROWTH = 1.2
WINDOW_GROWTH = 1.5
#: Minimum steps of a window, even beyond its time limit: fewer steps give no interval.
MIN_STEPS_AT_CAP = 3


@dataclass(frozen=True)
class WarmupRule:
    """ "steady" once the drift test is passed and the device is warm, after a minimum of time and steps.

    At the longest warm-up "cool" where only the temperature is missing, else "cap".
    """

    protocol: Protocol
    #: Reads the temperature of the device [°C]; None if unknown, which ends no waiting and starts none.
    read_temperature_c: Callable[[], float | None] = lambda: None

    def __call__(self, step_s: list[float], elapsed_s: float) -> str | None:
        long_enough = elapsed_s >= self.protocol.warmup_min_time_s and len(step_s) >= self.protocol.warmup_min_steps
        steady = long_enough and is_steady(step_s)
        temperature_c = self.read_temperature_c() if steady and self.protocol.warmup_until_c else None
        if steady and (temperature_c is None or temperature_c >= self.protocol.warmup_until_c):
            return "steady"
        if elapsed_s < self.protocol.warmup_max_time_s:
            return None
        return "cool" if steady else "cap"


@dataclass
class SlowestRankRule:
    """Rule on the time of the slowest rank in each step, as shown in reports [s].

    All ranks call it at the same step.
    """

    rule: Callable[[list[float], float], str | None]
    #: See `RankContext.all_gather`.
    all_gather: Callable[[list[float]], list[list[float]]]
    slowest_s: list[float] = field(default_factory=list)

    def __call__(self, step_s: list[float], elapsed_s: float) -> str | None:
        # Ranks may have read different numbers of steps: only common steps are used.
        new = self.all_gather(step_s[len(self.slowest_s) :])
        self.slowest_s += map(max, *new) if len(new) > 1 else new[0]
        return self.rule(self.slowest_s, elapsed_s)


@dataclass
class WindowRule:
    """ "target" once the interval of the median step is narrow enough, after a minimum; "max_time" at the cap.

    Stopping at the first narrow interval selects lucky windows: only 90 % of nominal 95 % intervals then contain the
    median. Two consecutive evaluations must find it narrow, with half more steps in the second (93 %), unless the
    first finds it twice as narrow as required; see `docs/experiments/coverage.md`.
    """

    protocol: Protocol
    narrow_looks: int = 0

    def __call__(self, step_s: list[float], elapsed_s: float) -> str | None:
        too_long = elapsed_s >= self.protocol.max_time_s and len(step_s) >= MIN_STEPS_AT_CAP
        if elapsed_s >= self.protocol.min_time_s and len(step_s) >= self.protocol.min_steps:
            width = self._relative_half_width(step_s)
            self.narrow_looks = self.narrow_looks + 1 if width <= self.protocol.target_half_width else 0
            # A window ended by a limit was not selected by its width: one narrow evaluation is enough.
            enough = 1 if too_long or len(step_s) >= self.protocol.max_steps else 2
            if self.narrow_looks >= enough or width <= self.protocol.target_half_width / 2:
                return "target"
        return "max_time" if too_long else None

    def _relative_half_width(self, step_s: list[float]) -> float:
        interval = median_interval(step_s, self.protocol.confidence)
        return interval.relative_half_width if interval else math.inf
