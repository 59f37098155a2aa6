"""Committed values held against results: each line is passed, failed, or not decided.

    name = "Lot 2"                                   # acceptance.toml
    [[line]]
    case = {model = "resnet50", mode = "training", precision = "amp_bf16", batch_size = 256}
    metric = "throughput"
    at_least = 4200                                  # or at_most; in the metric's SI unit
    tolerance = 0.02                                 # the bound is 4200 x 0.98
    repeats = 3                                      # processes at least

The value is the geometric mean over fresh processes with its interval (`dlbench.process_statistics`). A line is passed
where the whole interval keeps the bound, failed where the whole interval misses it, and not decided between.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from dlbench.errors import BadInput, UnknownName
from dlbench.exit_codes import NOT_DECIDED, OK, SOME_FAILED
from dlbench.process_statistics import MIN_PROCESSES
from dlbench.report.analysis.content import read_content
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.side_by_side import estimate_metric
from dlbench.results.records import DONE_STATUSES
from dlbench.safe_names import short_repr
from dlbench.suites.case import AXES
from dlbench.toml_file import read_toml, require_type

VERDICTS = ("passed", "failed", "not decided")
#: Beside the axes a selector may name the suite and the device.
SELECTORS = (*AXES, "suite", "device_name")
#: On a CPU it may also name these: what stands in a line -> stored column.
CPU_SELECTORS = {"cpu_model": "system_cpu_model", "torch_threads": "system_torch_threads"}
_LINE_KEYS = ("case", "metric", "at_least", "at_most", "tolerance", "repeats", "note")


@dataclass(frozen=True)
class AcceptanceCriterion:
    """One line of an acceptance file."""

    case: Mapping[str, Any]
    metric: str
    bound: float  # as committed, in the metric's SI unit
    at_least: bool
    tolerance: float = 0.0
    repeats: int = MIN_PROCESSES
    note: str = ""

    @property
    def limit(self) -> float:
        """The bound with its tolerance."""
        return self.bound * (1 - self.tolerance if self.at_least else 1 + self.tolerance)


@dataclass(frozen=True)
class AcceptanceFile:
    """An acceptance file."""

    name: str
    lines: tuple[AcceptanceCriterion, ...]


@dataclass(frozen=True)
class CriterionResult:
    """What became of one line."""

    line: AcceptanceCriterion
    verdict: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    processes: int = 0
    reason: str = ""  # why nothing is decided, or what else to know

    @property
    def margin_to_limit(self) -> float | None:
        """How far the value is on the good side of the limit, as a share of it; negative on the bad side."""
        if self.value is None:
            return None
        share = self.value / self.line.limit - 1
        return share if self.line.at_least else -share


def load_acceptance(file: Path) -> AcceptanceFile:
    """Read an acceptance file. Raises BadInput with the line's number, UnknownName for a key, axis or metric."""
    read = read_toml(file, "an acceptance file")
    read.require_known(read.values, ("name", "line"))
    lines = read.values.get("line")
    if not isinstance(lines, list) or not lines or not all(isinstance(line, dict) for line in lines):
        raise BadInput(f"{file} has no [[line]]; write one with case, metric and at_least or at_most")
    name = read.get("name", str, file.stem)
    return AcceptanceFile(name, tuple(_parse_criterion(line, f"{file}, line {i}") for i, line in enumerate(lines, 1)))


def _parse_criterion(values: dict[str, Any], where: str) -> AcceptanceCriterion:
    for key in values:
        if key not in _LINE_KEYS:
            raise UnknownName("key", key, _LINE_KEYS, where)
    case = values.get("case")
    if not isinstance(case, dict) or not case:
        raise BadInput(f'{where}: case is {short_repr(case)}; it must be a table such as {{model = "resnet50"}}')
    for axis, value in case.items():
        if axis not in (*SELECTORS, *CPU_SELECTORS):
            raise UnknownName("axis", axis, (*SELECTORS, *CPU_SELECTORS), where)
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise BadInput(f"{where}: {axis} is {short_repr(value)}; it must be a text or a whole number")
    metric = values.get("metric")
    if metric not in METRICS:
        raise UnknownName("metric", metric, METRICS, where)
    given = [key for key in ("at_least", "at_most") if key in values]
    if len(given) != 1:
        raise BadInput(f"{where}: give either at_least or at_most")
    repeats = values.get("repeats", MIN_PROCESSES)
    if not isinstance(repeats, int) or isinstance(repeats, bool) or not 1 <= repeats <= 1000:
        raise BadInput(f"{where}: repeats is {short_repr(repeats)}; it must be a whole number from 1 to 1000")
    bound = require_type(values[given[0]], float, given[0], where)
    tolerance = require_type(values.get("tolerance", 0.0), float, "tolerance", where)
    if bound <= 0 or not 0 <= tolerance < 1:
        raise BadInput(f"{where}: {given[0]} must be above 0, and tolerance from 0 to below 1 (0.02 is 2 %)")
    note = str(values.get("note", ""))
    return AcceptanceCriterion(case, str(metric), bound, given[0] == "at_least", tolerance, repeats, note)


def judge_results(
    acceptance: AcceptanceFile, sources: Sequence[str | Path], confidence: float = 0.95
) -> list[CriterionResult]:
    """Judge every line by the results of `sources`, failed attempts included. Raises StoreError without a source."""
    content = read_content(sources, max_shown=0)
    content.warn_of_unreadable_files()
    first = content.rows.drop_duplicates("attempt_id").set_index("attempt_id")
    # Of a CPU the device's name says nothing.
    stored = first.loc[first["device"].eq("cpu"), list(CPU_SELECTORS.values())]
    facts = stored.set_axis(list(CPU_SELECTORS), axis="columns")
    attempts = content.attempts.join(facts.astype({"torch_threads": "Int64"}), on="attempt_id")
    return [_judge_criterion(line, attempts, confidence) for line in acceptance.lines]


def _judge_criterion(line: AcceptanceCriterion, attempts: pd.DataFrame, confidence: float) -> CriterionResult:
    chosen = attempts
    undecided = partial(CriterionResult, line, "not decided")
    for axis, value in line.case.items():
        chosen = chosen[chosen[axis].astype(str) == str(value)]
    if chosen.empty:
        return undecided(reason="no record matches")
    kinds = ["device_name", "network_key", *(axis for axis in AXES if axis != "repeat")]
    different = [axis for axis in kinds if chosen[axis].astype(str).nunique() > 1]
    # An attempt that failed early knows neither.
    different += [name for name in CPU_SELECTORS if chosen[name].nunique() > 1]
    if different:
        return undecided(reason=f"several cases match; they differ in {', '.join(different)}")
    done = chosen[chosen["status"].isin(DONE_STATUSES)]
    done = done[done[line.metric].gt(0)]
    count = len(done)
    if not count:
        ended = ", ".join(sorted(set(chosen["status"])))
        return undecided(reason=f"no process has a value of {METRICS[line.metric].title.lower()} (status: {ended})")
    found = estimate_metric(done, line.metric, confidence)
    value, low, high = found.value, found.low, found.high
    if count < line.repeats:
        return undecided(value, low, high, count, f"only {count} of {line.repeats} required processes were measured")
    if low is None or high is None:
        return undecided(value, None, None, count, f"no confidence interval; run {MIN_PROCESSES} or more processes")
    good, bad = (low >= line.limit, high < line.limit) if line.at_least else (high <= line.limit, low > line.limit)
    others = chosen["status"][~chosen["status"].isin(DONE_STATUSES)]
    failures = f"{len(others)} more have no measurement ({', '.join(sorted(set(others)))})" if len(others) else ""
    reason = failures if good or bad else "the limit lies inside the confidence interval; more processes narrow it"
    verdict = "passed" if good else "failed" if bad else "not decided"
    return CriterionResult(line, verdict, value, low, high, count, reason)


def exit_status(judgements: Sequence[CriterionResult]) -> int:
    """0 all passed, 1 some failed, 2 none failed and some are not decided."""
    verdicts = {judgement.verdict for judgement in judgements}
    return SOME_FAILED if "failed" in verdicts else NOT_DECIDED if "not decided" in verdicts else OK
