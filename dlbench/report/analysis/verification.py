"""Results looked through for what cannot be: a store that somebody edited, or a measurement that was made up.

Each check is a function from one row (a rank of an attempt) to what is wrong with it, or "". A finding is no proof of
intent, and a store without findings is no proof of honesty: who knows the checks can meet them.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlbench import units
from dlbench.report.analysis import verification_rows as rows_of
from dlbench.report.analysis import verification_store
from dlbench.report.analysis.verification_rows import Row
from dlbench.results.reader import NUMBER_LISTS, StoreReader
from dlbench.results.records import DONE_STATUSES
from dlbench.results.schema import LONG_TEXT, SCHEMA


@dataclass(frozen=True)
class VerificationCheck:
    """One thing that is looked at."""

    name: str
    looks_at: str
    #: What is wrong with a row, "" where nothing is, None where the check does not apply.
    of_row: Callable[[Row], str | None]


@dataclass(frozen=True)
class Finding:
    """Something that cannot be."""

    check: str
    attempt: str
    words: str


@dataclass
class Verification:
    """What was looked at, and what was found."""

    looked_at: Counter[str] = field(default_factory=Counter)  # rows by check
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rows: int = 0

    def count_checked_row(self, check: str, attempt: str, words: str) -> None:
        """Count a row that a check looked at; `words` say what is wrong with it, "" where nothing is."""
        self.looked_at[check] += 1
        if words:
            self.findings.append(Finding(check, attempt, words))


CHECKS: tuple[VerificationCheck, ...] = (
    VerificationCheck("case", "the case id fits the case's axes and protocol", rows_of.check_case_id),
    VerificationCheck("window", "the step times add up to the time of the whole window", rows_of.check_window_duration),
    VerificationCheck("bound", "the FLOP rate is below the device's datasheet peak", rows_of.check_peak_flop_rate),
    VerificationCheck("energy", "the energy fits energy counter, sampled power and power limit", rows_of.check_energy),
    VerificationCheck(
        "samples", "step times differ from each other (they are not copies)", rows_of.check_step_times_vary
    ),
    VerificationCheck(
        "clocks",
        "device clock rates, start and end times, and durations are plausible",
        rows_of.check_clocks_and_timestamps,
    ),
    VerificationCheck("work", "parameters and MACs equal those of the catalogue", rows_of.check_catalogue_counts),
    VerificationCheck(
        "protocol",
        "number of warm-up steps, length of the window and number of steps fulfil the protocol",
        rows_of.check_protocol_is_met,
    ),
    VerificationCheck("memory", "peak allocated ≤ peak reserved ≤ device memory", rows_of.check_memory),
)
#: Checks over several rows or files.
STORE_CHECKS = {
    "copies": "no step times are copied from another attempt",
    "suite": "a case has the same protocol in all runs of a suite version",
    "ranks": "each rank of an attempt has a row",
    "attempts": "rows equal the attempts' record.json and result.json",
    "left out": "each attempt folder has its rows in a Parquet file",
}


def verify_sources(sources: Sequence[str | Path]) -> Verification:
    """Look at every row of the sources. Raises StoreError if one does not exist."""
    found = Verification()
    # Listed first: attempts that end from here on may be missing in the Parquet files.
    folders = verification_store.attempt_folders(sources)
    reader = StoreReader.from_sources(sources)
    columns = [name for name in SCHEMA.names if name != LONG_TEXT]
    across = _CrossRowChecks(found)
    for row in _iterate_rows(reader, columns):
        found.rows += 1
        if row["status"] not in DONE_STATUSES:
            continue
        across.compare_with_earlier_rows(row)
        for check in CHECKS:
            words = check.of_row(row)
            if words is not None:
                found.count_checked_row(check.name, row["attempt_id"], words)
    across.report_missing_ranks()
    found.notes += reader.problems
    if not folders:
        found.notes.append(
            "These results have no attempt folders, so the rows cannot be compared with what the workers wrote."
        )
    for name, attempt, words in verification_store.compare_with_attempt_folders(reader, folders):
        found.count_checked_row(name, attempt, words)
    return found


def _iterate_rows(reader: StoreReader, columns: Sequence[str]) -> Iterator[Row]:
    for batch in reader.attempt_batches(columns):
        for place, row in enumerate(batch.scalars.to_pylist()):
            lists = {name: batch.lists[name].row(place) for name in NUMBER_LISTS if name in batch.lists}
            yield row | lists


class _CrossRowChecks:
    """What only several rows together show."""

    def __init__(self, found: Verification) -> None:
        self._found = found
        self._seen: dict[bytes, tuple[str, int]] = {}
        self._protocols: dict[tuple[Any, ...], tuple[str, str]] = {}
        self._ranks: dict[str, tuple[int, int]] = {}

    def compare_with_earlier_rows(self, row: Row) -> None:
        """Remember a measured row, and compare it with those before."""
        attempt = row["attempt_id"]
        held = self._ranks.get(attempt, (0, 0))[0]
        self._ranks[attempt] = (held + 1, row["world_size"] or 1)
        self._check_copied_samples(attempt, row["rank"], row["step_s"])
        key = (row["suite"], row["suite_version"], *(row[name] for name in rows_of.AXES_OF_A_CASE))
        protocol, other = self._protocols.setdefault(key, (row["protocol"], attempt))
        differs = f"the protocol differs from that of attempt {other}, which measured the same case"
        self._found.count_checked_row("suite", attempt, differs if row["protocol"] != protocol else "")

    def _check_copied_samples(self, attempt: str, rank: int, steps: NDArray[np.float64]) -> None:
        if steps.size < rows_of.MIN_STEPS_TO_JUDGE or np.unique(steps).size < rows_of.MIN_STEPS_TO_JUDGE // 2:
            return
        words = ""
        for part in np.array_split(steps, 2):
            digest = hashlib.sha256(np.ascontiguousarray(part).tobytes()).digest()[:16]
            other = self._seen.setdefault(digest, (attempt, rank))
            if other != (attempt, rank):
                words = words or f"{part.size} step times are the same as in attempt {other[0]}"
        self._found.count_checked_row("copies", attempt, words)

    def report_missing_ranks(self) -> None:
        """Name the attempts that lack ranks."""
        for attempt, (held, wanted) in self._ranks.items():
            missing = f"the store has rows of only {held} of {units.count_text(wanted, 'rank')}"
            self._found.count_checked_row("ranks", attempt, missing if held < wanted else "")


def findings_by_check(found: Verification) -> dict[str, list[Finding]]:
    """The findings of each check, in the order of the checks."""
    names = [*(check.name for check in CHECKS), *STORE_CHECKS]
    ordered = sorted(found.findings, key=lambda one: names.index(one.check))
    return {name: list(group) for name, group in itertools.groupby(ordered, key=lambda one: one.check)}
