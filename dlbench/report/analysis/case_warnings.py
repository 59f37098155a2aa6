"""The warnings that stand beside a measured figure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dlbench.report.analysis import derived_metrics
from dlbench.results.records import CHOSEN_CLOCK_REASONS, POWER_CAP_REASON

#: A host window that differs from the device's by more than this is flagged.
CLOCK_GAP_LIMIT = 0.01
#: Warnings about the energy, which do not touch the times.
_ENERGY_WARNINGS = ["meters disagree", "short energy window"]
#: In a table's cell, where no sentence leads to them.
_SHORT_NAMES = {
    "at its power limit": "power limit",
    "on a shared device": "shared device",
    "with device errors": "device errors",
    "on a busy host": "busy host",
    "limited by the host": "host-bound",
    "with ranks missing": "ranks missing",
    "with settings reset": "settings reset",
    "with a partial FLOP count": "partial FLOP",
    "with a varying FLOP count": "varying FLOP",
}
#: Behind a number of cases.
_COUNTED_NAMES = {
    "uneven steps": "with uneven steps",
    "clocks apart": "with clocks apart",
    "meters disagree": "with meters that disagree",
    "short energy window": "with a short energy window",
}
_BUSY_HOST = _SHORT_NAMES["on a busy host"]
#: How much of the cores others took, in the words of the warning.
_BUSY_SHARE_PATTERN = re.compile(r"^busy_host: .*?(\d+)%")


def boolean_column_per_warning(cases: pd.DataFrame) -> pd.DataFrame:
    """One boolean column per warning, named by what is said of the process.

    Args:
        cases: a row each, with `status`, `throttle_reasons`, `steady`, `other_processes` and `warnings`, and with the
            metrics `throughput`, `sustained_throughput`, `clock_gap` and `energy_per_image`.
    """
    # Without an energy no warning about it is needed.
    metered = cases["energy_per_image"].notna()
    reasons = _DistinctCells.from_column(cases["throttle_reasons"])
    warnings = _DistinctCells.from_column(cases["warnings"])

    def has_warning(code: str) -> NDArray[np.bool_]:
        return warnings.rows_with_matching_cell(
            lambda cell: any(str(w).startswith(f"{code}:") for w in _cell_as_list(cell))
        )

    flags = {
        "unstable": cases["status"] == "unstable",
        "throttled": reasons.rows_with_matching_cell(lambda cell: bool(_throttle_reasons(cell) - {POWER_CAP_REASON})),
        "at its power limit": reasons.rows_with_matching_cell(lambda cell: POWER_CAP_REASON in _throttle_reasons(cell)),
        "not warmed up": _DistinctCells.from_column(cases["steady"]).rows_with_matching_cell(
            lambda steady: steady is False
        ),
        "with ranks missing": has_warning("missing_ranks"),
        "on a shared device": cases["other_processes"].fillna(0).astype(float) > 0,
        "with device errors": has_warning("ecc_uncorrected") | has_warning("xid"),
        "on a busy host": has_warning("busy_host"),
        "limited by the host": has_warning("host_bound"),
        "with settings reset": has_warning("settings_reset"),
        "with a partial FLOP count": has_warning("flop_partial"),
        "with a varying FLOP count": has_warning("flop_varies"),
        "uneven steps": derived_metrics.has_uneven_steps(cases),
        "clocks apart": cases["clock_gap"] > CLOCK_GAP_LIMIT,
        "meters disagree": metered & has_warning("energy_mismatch"),
        "short energy window": metered & has_warning("short_energy_window"),
    }
    return pd.DataFrame(flags, index=cases.index, dtype=bool)


@dataclass(frozen=True)
class _DistinctCells:
    """The different cells of a column, and which of them each row has: a large store repeats few lists of texts."""

    cells: list[object]
    codes: NDArray[np.int64]

    @staticmethod
    def from_column(column: pd.Series) -> _DistinctCells:
        cells = column.tolist()
        # By identity, for a list has no hash.
        codes, ids = pd.factorize(np.fromiter(map(id, cells), np.int64, len(cells)))
        by_id = dict(zip(map(id, cells), cells, strict=True))
        return _DistinctCells([by_id[number] for number in ids.tolist()], codes)

    def rows_with_matching_cell(self, holds: Callable[[object], bool]) -> NDArray[np.bool_]:
        """The rows whose cell fulfils a condition."""
        found: NDArray[np.bool_] = np.fromiter(map(holds, self.cells), bool, len(self.cells))[self.codes]
        return found


def warnings_per_process(cases: pd.DataFrame) -> list[str]:
    """The warnings of each process in short words, except that it is unstable, which its status says."""
    found = boolean_column_per_warning(cases).drop(columns="unstable")
    names = [_SHORT_NAMES.get(str(name), str(name)) for name in found.columns]
    said = [[name for name, holds in zip(names, row, strict=True) if holds] for row in found.to_numpy()]
    return [
        ", ".join(f"{name}{_format_other_cpu_load(warnings)}" if name == _BUSY_HOST else name for name in of_one)
        for of_one, warnings in zip(said, cases["warnings"], strict=True)
    ]


def add_warnings_column(cases: pd.DataFrame, processes: pd.DataFrame) -> pd.DataFrame:
    """`cases` with the column `warning_words`: the warnings of any of their processes, in short words.

    `processes` are as `side_by_side.add_case_numbers` gives them, `cases` as `summarize_processes` makes of these.
    """
    if cases.empty:
        return cases.assign(warning_words=[])
    keys = ["number", "system_id"]
    words = processes[keys].assign(warning_words=warnings_per_process(processes)).groupby(keys)["warning_words"]
    return cases.join(words.agg(_join_distinct_warnings), on=keys)


def describe_status_and_warnings(case: Mapping[Any, Any] | pd.Series) -> str:
    """The status of a case of `add_warnings_column`, unless it is ok, and its warnings; "" without any."""
    return ", ".join(part for part in ("" if case["status"] == "ok" else case["status"], case["warning_words"]) if part)


def summarize_warnings(processes: pd.DataFrame, with_energy: bool) -> str:
    """The warnings of all in words ("2 of 3 on a busy host"), those about the energy if asked for; "" without any."""
    found = boolean_column_per_warning(processes)
    return _warning_counts_text(found if with_energy else found.drop(columns=_ENERGY_WARNINGS))


def summarize_case_warnings(processes: pd.DataFrame, cases: pd.DataFrame) -> str:
    """As `summarize_warnings`, of cases: with the warnings of any of its processes, and unstable if its status is.

    The arguments are those of `add_warnings_column`.
    """
    if processes.empty:
        return ""
    keys = ["number", "system_id"]
    found = boolean_column_per_warning(processes).groupby([processes[key] for key in keys]).any()
    return _warning_counts_text(found.assign(unstable=cases.set_index(keys)["status"].eq("unstable")))


def _warning_counts_text(flags: pd.DataFrame) -> str:
    several = len(flags) > 1
    counts = flags.sum()
    found = {str(name): count for name, count in counts.items() if count}
    said = [
        f"{count} of {len(flags)} {_COUNTED_NAMES.get(name, name)}" if several else name
        for name, count in found.items()
    ]
    return ", ".join(said)


def _throttle_reasons(reasons: object) -> set[str]:
    return {str(reason) for reason in _cell_as_list(reasons)} - set(CHOSEN_CLOCK_REASONS)


def _join_distinct_warnings(said: pd.Series[str]) -> str:
    parts = [part for words in said for part in words.split(", ") if part]
    # For a busy host the share of the worst process.
    busy = [part for part in parts if part.startswith(_BUSY_HOST)]
    worst = max(busy, key=lambda part: int("".join(filter(str.isdigit, part)) or 0), default="")
    return ", ".join(dict.fromkeys(worst if part in busy else part for part in parts))


def _format_other_cpu_load(warnings: object) -> str:
    """How much of the host's cores others took: " (others: 63 % CPU)"."""
    found = [match[1] for warning in _cell_as_list(warnings) if (match := _BUSY_SHARE_PATTERN.match(str(warning)))]
    return f" (others: {found[0]} % CPU)" if found else ""


def _cell_as_list(cell: object) -> Sequence[object]:
    """What a cell holds; nothing where it is empty."""
    return cell if isinstance(cell, list | tuple | np.ndarray) else ()  # type: ignore[return-value]
