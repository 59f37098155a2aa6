"""Search for the fastest correct setting of a network on this device: successive halving over the levers.

1. The default setting, then larger and smaller batches, while they give more. Where one process takes much of the
   budget, only smaller batches that are nearly as fast; then step 3 ends with the batches of the best combination.
2. Each value of each other lever alone, with that batch, in a short window.
3. Combinations of the values that gave more, the most promising first, in a window twice as long; the better half again
   in one twice as long, until one is left.
4. The settings between the default and the best one, so that what each lever gave is known.
5. The best one is checked: its loss against that of the default setting, and its numerical fingerprint.
6. Both again in turns, while time is left.

A `Search` takes the place of a `Schedule`: the campaign measures and stores what it yields. Settings that an earlier
search measured are not measured again.
"""

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from dlbench import units
from dlbench.errors import BadInput
from dlbench.results.case_figures import case_figures
from dlbench.results.records import DONE_STATUSES, Record
from dlbench.suites import levers
from dlbench.suites.case import Case, Protocol

GOALS = ("throughput", "energy")
#: Window of the first rung [s]; each further rung has one twice as long. Energy needs longer ones.
WINDOW_S = {"throughput": 0.5, "energy": 5.0}
#: A change counts if it gives more than this: shorter windows scatter.
MIN_GAIN = 1.01
#: Shares of the budget after which a stage ends.
LEVERS_END, HALVING_END, PATH_END = 0.5, 0.75, 0.9
#: A process is cheap if it takes at most this share of the budget.
CHEAP_SHARE = 1 / 40
#: Levers are tried with a smaller batch that has at least this share of the throughput of the default setting.
NEARLY = 0.8
#: Settings in the first rung of combinations.
MAX_COMBINATIONS = 6
#: At most so many processes of each of the two settings are measured in turns.
MAX_PAIRS = 3
#: Start of a compiled process beyond that of another one, until one was measured [s].
COMPILE_S = 60.0
#: Largest relative difference of the loss: batches differ, and with them images and dropout.
LOSS_TOLERANCE = 0.2
#: Rung of the processes in turns; and of the one that is checked by its fingerprint.
PAIRS_RUNG, CHECK_RUNG = 2, -1
#: Setting, rung, number of the process.
_TrialKey = tuple[Case, int, int]


@dataclass(frozen=True)
class SettingResult:
    """What became of one setting: its figure (higher is better), or the reason why it has none."""

    value: float | None
    cost_s: float
    loss: float | None = None
    error: str = ""


class _BudgetSpent(Exception):
    """The budget does not hold the next process."""


@dataclass
class SettingSearch:
    """The search over one network; yields cases, and learns from their records what to measure next."""

    first: Case  # the default setting
    values: Mapping[str, Sequence[Any]]  # by lever, see `lever_values_to_try`
    budget_s: float
    goal: str = "throughput"
    say: Callable[[str], None] = lambda text: None
    clock: Callable[[], float] = time.monotonic
    tried: dict[_TrialKey, SettingResult] = field(default_factory=dict)
    fixed_batch: bool = False
    num_yielded: int = 0
    num_extra: int = 0
    #: Settings that fail are part of a search, which decides what follows.
    searches: bool = True
    adds_processes: bool = True

    def __post_init__(self) -> None:
        self.first = levers.setting_without_protocol(self.first)
        self.best = self.first
        self.unit = "img"  # of a sample
        self._untried: set[Case] = set()
        self._began_s = self.clock()

    # What a campaign asks of a schedule.

    def processes_to_measure(self, waiting: Iterable[Case]) -> Iterator[Case]:
        """Yield the processes to measure; `add_record` is called between them."""
        with contextlib.suppress(_BudgetSpent):
            yield from self._run_stages()
        if not self._is_better(self.best, self.first):
            self.best = self.first  # more in short windows, but not in longer ones

    def add_record(self, record: Record, from_now: bool = True) -> None:
        """Take in what became of a process."""
        case = Case.from_dict(record.case)
        self.tried[levers.setting_without_protocol(case), _halving_rung_of_case(case, self.goal), case.repeat] = (
            self._result_from_record(record)
        )

    def facts_from_earlier_process(self, case: Case) -> dict[str, Any] | None:
        """Return no facts but that none are wanted: only the process that is checked counts work and memory."""
        return None if _halving_rung_of_case(case, self.goal) == CHECK_RUNG else {"warnings": ()}

    def upcoming_processes(self) -> list[Case]:
        """None: what is measured next depends on the running process."""
        return []

    def describe_unmeasured(self) -> list[str]:
        """Describe the settings that failed, and count those for which there was no time."""
        failed = {case: one.error for (case, *_), one in self.tried.items() if one.value is None}
        others = [(case, error) for case, error in failed.items() if case != self.first]
        words = [f"setting left out ({self._describe_setting(case)}): {error}" for case, error in others]
        untried = self._untried - {case for case, *_ in self.tried}
        if untried:
            count = units.count_text(len(untried), "setting")
            words.append(f"the budget ended before {count} were tried; run the same command again to continue")
        return words

    def summarize_processes(self) -> list[tuple[Case, list[str]]]:
        """Nothing: the command prints a table."""
        return []

    # The result.

    def median_value_by_setting(self) -> dict[Case, float]:
        """The figure of each setting: of the longest window, the median of its processes."""
        found: dict[Case, dict[int, list[float]]] = {}
        for (case, rung, _), one in self.tried.items():
            if one.value is not None:
                found.setdefault(case, {}).setdefault(rung, []).append(one.value)
        return {case: median(rungs[max(rungs)]) for case, rungs in found.items()}

    def gains_by_change(self) -> list[levers.LeverChange]:
        """What each lever gave, on the way from the default setting to the best one."""
        return levers.improvement_path(self.median_value_by_setting(), self.first, self.best)

    def require_measured_setting(self) -> None:
        """Raise BadInput if no setting was measured correctly, or only the default one fitted into the budget."""
        outcomes = [one for (case, *_), one in self.tried.items() if case == self.first]
        if not outcomes:
            raise BadInput(f"the default setting of {self.first.model} was not measured; run the same command again")
        if all(one.value is None for one in outcomes):
            raise BadInput(f"the default setting of {self.first.model} fails: {outcomes[0].error}")
        if len({case for case, *_ in self.tried}) == 1:
            needed = units.seconds_text(outcomes[0].cost_s)
            raise BadInput(
                f"the budget of {units.seconds_text(self.budget_s)} is too short: measuring one setting of "
                f"{self.first.model} takes {needed}; raise --budget"
            )

    # The search.

    def _run_stages(self) -> Iterator[Case]:
        yield from self._measure_setting(self.first, 0, needed=True)
        if self._value_of_setting(self.first) is None:
            return
        is_cheap = self._expected_process_s(self.first) <= CHEAP_SHARE * self.budget_s
        base = yield from (self._search_batch_size(self.first, 0, LEVERS_END) if is_cheap else self._reduce_batch())
        gains = yield from self._try_single_changes(base)
        yield from self._halve_combinations(base, gains)
        if not is_cheap:
            best = self._settings_best_first()[0]
            yield from self._search_batch_size(best, self._last_measured_rung(best), HALVING_END)
        yield from self._select_fastest_valid_setting()
        for case in levers.settings_to_measure_between(self.median_value_by_setting, self.first, self.best):
            yield from self._measure_setting(case, 0, until=PATH_END)
        yield from self._measure_first_and_best()

    def _search_batch_size(self, start: Case, rung: int, until: float) -> Generator[Case, None, Case]:
        """Measure larger and smaller batches of a setting, while they give more; return the best."""
        base = start
        for factor in () if self.fixed_batch else levers.BATCH_FACTORS:
            now = start
            while (size := int(now.batch_size * factor)) >= 1:
                now = dataclasses.replace(now, batch_size=size)
                if not (yield from self._measure_setting(now, rung, until=until)):
                    break
                if not self._is_better(now, base):
                    break
                base = now
        return base

    def _reduce_batch(self) -> Generator[Case, None, Case]:
        """Halve the batch while that costs little throughput: levers give about the same, in less time."""
        base = self.first
        while (
            not self.fixed_batch
            and base.batch_size > 1
            and self._expected_process_s(base) > CHEAP_SHARE * self.budget_s
        ):
            smaller = dataclasses.replace(base, batch_size=base.batch_size // 2)
            if not (yield from self._measure_setting(smaller, 0, until=LEVERS_END)):
                break
            if (self._value_of_setting(smaller) or 0.0) < NEARLY * (self._value_of_setting(self.first) or math.inf):
                break
            base = smaller
        return base

    def _try_single_changes(self, base: Case) -> Generator[Case, None, dict[str, tuple[Any, float]]]:
        """Measure each value alone; return the best value of each lever that gave more, with its ratio."""
        gains: dict[str, tuple[Any, float]] = {}
        for axis, values in self.values.items():
            for value in values:
                case = levers.case_with_axes(base, **{axis: value})
                if axis == "freeze":
                    case = levers.case_with_axes(base, compile=gains.get("compile", ("default", 1.0))[0], freeze=value)
                if case is None or not (yield from self._measure_setting(case, 0, until=LEVERS_END)):
                    continue
                ratio = (self._value_of_setting(case) or 0.0) / (self._value_of_setting(base) or math.inf)
                if ratio > max(MIN_GAIN, gains.get(axis, (None, 0.0))[1]):
                    gains[axis] = value, ratio
        return gains

    def _halve_combinations(self, base: Case, gains: Mapping[str, tuple[Any, float]]) -> Iterator[Case]:
        """Measure combinations of what gave more; the better half goes on to a longer window."""
        rung = 1
        left = _combinations_of_changes(base, gains)[:MAX_COMBINATIONS]
        while left:
            measured = []
            for case in left:
                if (yield from self._measure_setting(case, rung, until=HALVING_END)):
                    measured.append(case)
            measured.sort(key=lambda case: self._value_of_setting(case) or 0.0, reverse=True)
            left = measured[: len(measured) // 2] if len(measured) > 2 else []
            rung += 1

    def _select_fastest_valid_setting(self) -> Iterator[Case]:
        """Take the fastest setting whose numbers are right."""
        for case in self._settings_best_first():
            if not self._is_better(case, self.first) or not self._has_expected_loss(case):
                continue
            self.best = case
            if (yield from self._measure_setting(case, CHECK_RUNG)):
                return

    def _settings_best_first(self) -> list[Case]:
        """The settings with a figure, the best of those with the longest window first."""
        figures = self.median_value_by_setting()
        return sorted(figures, key=lambda case: (self._last_measured_rung(case), figures[case]), reverse=True)

    def _last_measured_rung(self, case: Case) -> int:
        return max(rung for other, rung, _ in self.tried if other == case)

    def _has_expected_loss(self, case: Case) -> bool:
        expected, found = self._median_loss(self.first), self._median_loss(case)
        if expected is None or found is None or abs(found - expected) <= LOSS_TOLERANCE * abs(expected):
            return True
        self.say(
            f"setting left out ({self._describe_setting(case)}): its loss is {found:.4g}, but the loss of the "
            f"default setting is {expected:.4g}"
        )
        return False

    def _measure_first_and_best(self) -> Iterator[Case]:
        if self.best == self.first:
            return
        for number in range(1, 1 + MAX_PAIRS):
            for case in (self.first, self.best) if number % 2 else (self.best, self.first):
                yield from self._measure_setting(case, PAIRS_RUNG, repeat=number)

    def _measure_setting(
        self, case: Case, rung: int, until: float = 1.0, repeat: int = 0, needed: bool = False
    ) -> Generator[Case, None, bool]:
        """Yield the case, unless measured or beyond the share `until` of the budget; return whether it has a figure."""
        key = (case, rung, repeat)
        if key not in self.tried:
            left_s = until * self.budget_s - (self.clock() - self._began_s)
            if not needed and self._expected_process_s(case) > left_s:
                self._untried.add(case)
                if until == 1.0:
                    raise _BudgetSpent
                return False
            self.num_yielded += 1
            self.num_extra += 1
            yield dataclasses.replace(case, repeat=repeat, protocol=_halving_rung_protocol(rung, self.goal))
        found = self.tried.get(key)
        return found is not None and found.value is not None

    def _expected_process_s(self, case: Case) -> float:
        """Expected time of a process [s]: as of those of this batch, else as of all."""
        alike = [(other, one.cost_s) for (other, *_), one in self.tried.items() if other.compile == case.compile]
        near = [cost_s for other, cost_s in alike if other.batch_size == case.batch_size]
        if alike:
            return fmean(near or [cost_s for _, cost_s in alike])
        return fmean(one.cost_s for one in self.tried.values()) + (COMPILE_S if case.compile != "off" else 0.0)

    def _value_of_setting(self, case: Case) -> float | None:
        return self.median_value_by_setting().get(case)

    def _median_loss(self, case: Case) -> float | None:
        losses = [one.loss for (other, *_), one in self.tried.items() if other == case and one.loss is not None]
        return median(losses) if losses else None

    def _is_better(self, case: Case, base: Case) -> bool:
        return (self._value_of_setting(case) or 0.0) > MIN_GAIN * (self._value_of_setting(base) or math.inf)

    def _result_from_record(self, record: Record) -> SettingResult:
        cost_s = record.wall_s or 0.0
        if record.status not in DONE_STATUSES:
            return SettingResult(None, cost_s, error=(record.error or record.status).splitlines()[0])
        found = case_figures(record)
        if found is None:
            return SettingResult(None, cost_s, error="no step was measured")
        self.unit = found.sample_unit
        loss = record.ranks[0][1].loss_first
        if self.goal == "throughput":
            return SettingResult(found.throughput, cost_s, loss)
        if found.energy_per_image_j is None:
            return SettingResult(None, cost_s, error="the device has no energy meter; use --for throughput")
        return SettingResult(1.0 / found.energy_per_image_j, cost_s, loss)

    def _describe_setting(self, case: Case) -> str:
        changes = levers.improvement_path({self.first: 1.0, case: 1.0}, self.first, case)
        return ", ".join(change.text for change in changes) or "default setting"


def _combinations_of_changes(base: Case, gains: Mapping[str, tuple[Any, float]]) -> list[Case]:
    """Return combinations of the changes of `gains`, the one with the largest product of ratios first."""
    found = []
    for chosen in itertools.product((True, False), repeat=len(gains)):
        axes = [axis for axis, taken in zip(gains, chosen, strict=True) if taken]
        case = levers.case_with_axes(base, **{axis: gains[axis][0] for axis in axes})
        if case is not None:
            found.append((math.prod(gains[axis][1] for axis in axes), case))
    found.sort(key=lambda one: one[0], reverse=True)
    return [case for _, case in found]


def _halving_rung_protocol(rung: int, goal: str) -> Protocol:
    """The protocol of a rung: a short window, for the interval of long ones is not needed to rank settings."""
    window_s = WINDOW_S[goal] * 2 ** max(rung, 0)
    return Protocol(
        warmup_min_steps=1,
        warmup_min_time_s=window_s / 4,
        warmup_max_time_s=max(2.0, window_s),
        min_time_s=window_s,
        min_steps=2,
        max_time_s=window_s,
        idle_time_s=0.0,
        timeout_s=300.0,
        fingerprint="on" if rung == CHECK_RUNG else "off",
    )


def _halving_rung_of_case(case: Case, goal: str) -> int:
    if case.protocol.fingerprint == "on":
        return CHECK_RUNG
    return round(math.log2(case.protocol.min_time_s / WINDOW_S[goal]))
