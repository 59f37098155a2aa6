"""Which process is measured next: rounds over all cases, then more of the cases with a wide interval, in a budget.

Each case is measured in several fresh processes. A round has one of each case, so that what drifts falls on all alike.
After the last round a case whose interval is wider than its target gets more processes, up to a cap; with a budget of
time, the next process goes to the case whose half-width is expected to shrink most per second.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from dlbench import process_statistics, units
from dlbench.results.case_figures import case_figures
from dlbench.results.records import DONE_STATUSES, Record, reusable_facts
from dlbench.suites.case import USUAL_CONFIDENCE, Case
from dlbench.suites.catalog import find_model

#: Start-up and warm-up of a process [s], until one has been measured.
DEFAULT_STARTUP_S = 5.0
#: Figures of single processes in a line.
MAX_RATES = 5
#: Maximum number of processes per case with a budget.
MAX_PROCESSES_WITH_BUDGET = 100
#: After a process that ended so, another one of the same case would most likely end so too.
_NO_RETRY_STATUSES = ("oom", "timeout", "invalid")


@dataclass
class _CaseProcesses:
    case: Case
    windows: list[process_statistics.ProcessMedian] = field(default_factory=list)
    costs_s: list[float] = field(default_factory=list)
    next_number: int = 0
    images: int = 1  # samples of a step
    facts: dict[str, Any] | None = None
    ended: str = ""  # a status after which no further process is tried

    @property
    def rate_unit(self) -> str:
        """The unit of its throughput; a user's own network is taken to be on images."""
        model = find_model(self.case.model)
        return "img/s" if model is None else f"{model.sample_unit}/s"

    @property
    def interval(self) -> process_statistics.IntervalOverProcesses | None:
        return process_statistics.interval_over_processes(self.windows, self.case.protocol.confidence)

    def expected_half_width(self, processes: int) -> float:
        """Return the expected relative half-width for a number of processes, from the spread so far."""
        found = self.interval
        return math.inf if found is None else found.expected_half_width(processes)


class Schedule:
    """Yields the processes of a campaign in turn, and learns from their records what to measure next."""

    def __init__(
        self,
        rounds: Iterable[Case],
        max_processes: int = 0,
        budget_s: float | None = None,
        say: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a schedule of the planned processes.

        Args:
            rounds: all processes, by rounds, including those already measured.
            max_processes: maximum per case, while its interval is wider than `protocol.target_half_width`.
            budget_s: no process starts that would end later than this after creation of the schedule [s].
            say: called with messages about the plan.
        """
        self._rounds = list(rounds)
        self._max_processes = max_processes
        self._budget_s = budget_s
        self._say = say
        self._clock = clock
        self._began_s = clock()
        self._samples: dict[str, _CaseProcesses] = {}
        for case in self._rounds:
            fresh = _CaseProcesses(case, images=case.batch_size * case.world_size)
            sample = self._samples.setdefault(case.first_process_id, fresh)
            sample.next_number = max(sample.next_number, case.repeat + 1)
        self.num_yielded = 0
        self.num_extra = 0
        self.searches = False  # failures are reported
        #: Whether processes beyond the planned ones may follow.
        planned = 1 + max((case.repeat for case in self._rounds), default=0)
        self.adds_processes = budget_s is not None or max_processes > planned
        self._dropped: dict[str, int] = {}
        self._cut = 0
        self._waiting: list[Case] = []
        self._place = 0

    def add_record(self, record: Record, from_now: bool = True) -> None:
        """Take in what became of a process; `from_now`: it was measured in this run, by the network of today."""
        case = Case.from_dict(record.case)
        sample = self._samples.get(case.first_process_id)
        if sample is None:
            return
        sample.next_number = max(sample.next_number, case.repeat + 1)
        figures = case_figures(record) if record.status in DONE_STATUSES else None
        if figures is not None:
            limits = (figures.interval.low, figures.interval.high) if figures.interval else (None, None)
            sample.windows.append(process_statistics.ProcessMedian(figures.median_s, *limits))
        if from_now:
            sample.costs_s += [record.wall_s] if record.wall_s else []
            sample.facts = sample.facts or reusable_facts(record)
            sample.ended = record.status if record.status in _NO_RETRY_STATUSES else sample.ended

    def facts_from_earlier_process(self, case: Case) -> dict[str, Any] | None:
        """Return facts from an earlier process of the case in this run that are the same in every process."""
        sample = self._samples.get(case.first_process_id)
        return sample.facts if sample else None

    def upcoming_processes(self) -> list[Case]:
        """The planned processes after the one that is measured now."""
        return self._waiting[self._place + 1 :]

    def processes_to_measure(self, waiting: Iterable[Case]) -> Iterator[Case]:
        """The processes to measure, one after the other; `add_record` is called between them."""
        self._waiting = waiting = list(waiting)
        for place, case in enumerate(waiting):
            self._place = place
            sample = self._samples[case.first_process_id]
            if sample.ended:
                name = f"{case.model} {case.mode}: an earlier process ended with status {sample.ended}"
                self._dropped[name] = self._dropped.get(name, 0) + 1
                continue
            if not self._fits_budget(sample):
                self._cut = len(waiting) - place
                return
            if self._budget_s is not None and place and case.repeat > waiting[place - 1].repeat:
                self._print_expected_time(waiting[place:])
            self.num_yielded += 1
            yield case
        while (best := self._case_that_gains_most()) is not None:
            case = dataclasses.replace(best.case, repeat=best.next_number)
            best.next_number += 1
            self.num_yielded += 1
            self.num_extra += 1
            yield case

    def _case_that_gains_most(self) -> _CaseProcesses | None:
        """The case whose next process is worth most; None where none is worth one, or fits into the budget."""
        most = max(self._max_processes, MAX_PROCESSES_WITH_BUDGET if self._budget_s is not None else 0)
        open_samples = [
            sample
            for sample in self._samples.values()
            if not sample.ended
            and sample.next_number < most
            and len(sample.windows) >= process_statistics.MIN_PROCESSES
            and sample.expected_half_width(len(sample.windows)) > sample.case.protocol.target_half_width
            and self._fits_budget(sample)
        ]
        return max(open_samples, key=self._gain_per_second, default=None)

    def _gain_per_second(self, sample: _CaseProcesses) -> float:
        """By how much the half-width shrinks with one more process, per second."""
        k = len(sample.windows)
        return (sample.expected_half_width(k) - sample.expected_half_width(k + 1)) / self._expected_process_s(sample)

    def _expected_process_s(self, sample: _CaseProcesses) -> float:
        """Expected time of one process [s]."""
        if sample.costs_s:
            return fmean(sample.costs_s)
        others = [fmean(other.costs_s) for other in self._samples.values() if other.costs_s]
        protocol = sample.case.protocol
        return median(others) if others else protocol.min_time_s + protocol.warmup_min_time_s + DEFAULT_STARTUP_S

    def _remaining_budget_s(self) -> float:
        return math.inf if self._budget_s is None else self._budget_s - (self._clock() - self._began_s)

    def _fits_budget(self, sample: _CaseProcesses) -> bool:
        return self._expected_process_s(sample) <= self._remaining_budget_s()

    def _print_expected_time(self, waiting: list[Case]) -> None:
        """At the start of a round: compare the time that the planned processes need with the rest of the budget."""
        needed_s = math.fsum(self._expected_process_s(self._samples[case.first_process_id]) for case in waiting)
        left_s = self._remaining_budget_s()
        if needed_s > left_s:
            short = (
                f"the planned processes need {units.seconds_text(needed_s)}, but only "
                f"{units.seconds_text(left_s)} are left"
            )
            self._say(
                f"the time budget is too short: {short}; raise --budget, or set fewer processes with -P processes=N"
            )
            return
        enough = (
            f"the planned processes need about {units.seconds_text(needed_s)}, and "
            f"{units.seconds_text(left_s)} are left"
        )
        self._say(f"the time budget is long enough: {enough}")

    def describe_unmeasured(self) -> list[str]:
        """Describe what was not measured, with reasons."""
        found = [f"skipped: {units.count_text(n, 'further process')} of {name}" for name, n in self._dropped.items()]
        if self._cut:
            left = f"the budget ended before all planned processes were measured; {self._cut} are missing"
            found.append(f"{left}; run the same command again to resume")
        return found

    def summarize_processes(self) -> list[tuple[Case, list[str]]]:
        """The cases with several processes: the figure over processes, its ±, and one more run's."""
        return [
            (dataclasses.replace(sample.case, repeat=0), [f"{len(sample.windows)} processes", _describe_rates(sample)])
            for sample in self._samples.values()
            if len(sample.windows) > 1
        ]


def _describe_rates(sample: _CaseProcesses) -> str:
    groups = process_statistics.split_into_two_groups(sample.windows)
    if groups is not None:
        shown = [
            f"{len(group)} at "
            f"{units.rate_text(sample.images / math.exp(fmean(map(math.log, group))), sample.rate_unit)}"
            for group in (groups.fast, groups.slow)
        ]
        return f"in two groups: {' and '.join(shown)}"
    found = sample.interval
    if found is None:
        rates = [
            units.rate_text(sample.images / window.value, sample.rate_unit) for window in sample.windows[:MAX_RATES]
        ]
        rates += ["..."] if len(sample.windows) > MAX_RATES else []
        few = f"there are fewer than {process_statistics.MIN_PROCESSES} processes or all have the same value"
        return f"{' and '.join(rates)}: no interval, because {few}"
    rate = f"{units.rate_text(sample.images / found.value, sample.rate_unit):>12}"
    rate += f" {units.plus_minus_text(found.relative_half_width)}"
    level = "" if found.confidence == USUAL_CONFIDENCE else f", both at {units.confidence_text(found.confidence)}"
    return f"{rate}, one more run {units.plus_minus_text(found.relative_prediction_half_width)}{level}"
