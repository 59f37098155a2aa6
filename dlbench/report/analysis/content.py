"""The data of a report: what was read from the stores, and what follows from it for every chapter."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from dlbench.errors import UnknownName
from dlbench.report.analysis import case_bounds, derived_metrics, row_accounting
from dlbench.report.analysis.projection import Prices
from dlbench.report.analysis.workload_mix import WorkShare
from dlbench.report.loading import machine_state, stores, systems
from dlbench.results import bounds_store, store
from dlbench.results.aggregation import PROCESS_COLUMNS
from dlbench.results.frame_builder import as_shared_text_objects, release_memory
from dlbench.results.records import DONE_STATUSES
from dlbench.suites.ab_sides import Side
from dlbench.suites.case import AXES

#: Tables and figures are made of at most so many cases; metrics.csv has all.
MAX_CASES = 1000
#: What chapters need of each row besides the facts about its system; metrics stand in `Content.attempts`.
ROW_COLUMNS = frozenset(
    (
        *PROCESS_COLUMNS,
        *("rank", "status", "device_uuid", "energy_j", "energy_window_s", "sm_clock_before_mhz", "sm_clock_after_mhz"),
        *("sm_clock_max_mhz", "forward_flop", "pytorch_forward_flop", "flop_partial", "memory_device_total_bytes"),
        *("source_name", "source_number"),
    )
)
#: What is wrong with a case that is said to be measured and has no time that can be a step's.
UNUSABLE_REASON = "no valid step time: there is none, or one is NaN, infinite, zero, negative or impossibly large"


@dataclass(frozen=True, eq=False)
class Content:
    """The data behind a report, read once. Each is equal to itself alone, so that what is derived can be remembered."""

    sources: tuple[str, ...]
    #: As stored, one per rank: `ROW_COLUMNS` and facts about systems, `system_details` once per system.
    rows: pd.DataFrame
    attempts: pd.DataFrame  # one per attempt, all metrics and their intervals
    shown: pd.DataFrame  # of each case the attempt that counts, with samples, traces of power, communication
    failed: pd.DataFrame  # of each case without samples the latest attempt
    system_names: dict[str, str]  # by system_id
    skipped: tuple[str, ...]  # parts that could not be read, in words
    left_out: int = 0  # measured cases beyond those that are shown, which stand in metrics.csv alone
    account: row_accounting.RowCounts = field(default_factory=lambda: row_accounting.RowCounts(0, {}, {}))
    baseline: str | None = None  # the name of the system that speedups are over; None for the first
    prices: Prices | None = None
    mix: tuple[WorkShare, ...] = ()  # the user's own mix of work
    bounds: bounds_store.StoredBounds = field(default_factory=bounds_store.StoredBounds)
    files: Mapping[str, Path] = field(default_factory=dict)  # of each listed attempt the Parquet file that holds it
    #: The largest median step of each attempt's ranks [s], from which the history is made.
    medians: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    sides: Mapping[str, Side] = field(default_factory=dict)  # by system_id, where these are those of an A/B experiment
    machine_states: Mapping[str, machine_state.NodeState] = field(default_factory=dict)  # of nodes, by MachineState

    def cases_of_system(self, system_id: str) -> pd.DataFrame:
        """The shown cases of one system."""
        return self.shown[self.shown["system_id"] == system_id]

    def baseline_id(self, names: Mapping[str, str]) -> str:
        """The `system_id` of the baseline; the first of `names` where the baseline is not one of them."""
        return next((system for system, name in names.items() if name == self.baseline), next(iter(names)))

    def warn_of_unreadable_files(self) -> None:
        """A `SkippedPart` warning for each part that could not be read, for those who show nothing but figures."""
        if self.account.error:
            warnings.warn(self.account.error, store.SkippedPart, stacklevel=3)
        for problem in self.skipped:
            warnings.warn(problem, store.SkippedPart, stacklevel=3)


def read_content(
    sources: Sequence[Path | str],
    baseline: str | None = None,
    prices: Prices | None = None,
    progress: stores.ProgressCallback | None = None,
    max_shown: float | None = None,
    with_rows: bool = True,
    mix: tuple[WorkShare, ...] = (),
    with_sides: bool = False,
) -> Content:
    """Read the stores and derive everything that a report shows.

    Args:
        sources: results folders, Parquet files or glob patterns; NAME=SOURCE gives the system its name.
        baseline: the name of the system that speedups are over; None for the first.
        prices: of energy and devices, for what a training costs.
        progress: called with a sentence on how far the reading is.
        max_shown: at most so many cases are shown, with their samples; None for `MAX_CASES`.
        with_rows: keep the rows; those of a large store take more than a gigabyte.
        mix: the user's own work, for a verdict on it.
        with_sides: the two sides of an A/B experiment (`dlbench ab`) are systems, if the sources hold nothing else.

    Raises:
        StoreError: a source does not exist.
        UnknownName: no system is called as the baseline is.
    """
    named = [systems.parse_source(source) for source in sources]
    loaded = stores.load_stores(named, progress, stores.ROW_COLUMNS if with_rows else stores.METRIC_COLUMNS, with_sides)
    states, unread = machine_state.read_node_states([source.path for source in named])
    rows = loaded.rows
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", store.SkippedPart)
        bounds = bounds_store.read_bounds([source.path for source in named])
    names = systems.system_names(rows)
    if baseline is not None and baseline not in names.values():
        raise UnknownName("system", baseline, names.values(), "--baseline")
    attempts = case_bounds.add_bound_metrics(
        derived_metrics.attempts_from_statistics(rows, loaded.statistics), rows, bounds
    )
    first = rows[["attempt_id", "system_id", "power_limit_w"]].drop_duplicates("attempt_id").set_index("attempt_id")
    longest = rows.groupby("attempt_id")["gradient_allreduce_s"].max()
    medians = loaded.statistics["slowest_median"].copy()  # a view would keep all statistics
    columns = [name for name in rows if name in ROW_COLUMNS or str(name).startswith("system_")]
    rows = rows[columns if with_rows else ["attempt_id"]]
    loaded = replace(loaded, rows=rows, statistics=loaded.statistics.iloc[:0].copy())
    system_id = as_shared_text_objects(attempts["attempt_id"].map(first["system_id"])).rename("system_id")
    attempts = pd.concat([derived_metrics.add_metric_intervals(attempts), system_id], axis=1)
    sides = systems.ab_side_by_system(attempts) if with_sides else {}
    attempts = derived_metrics.make_network_names_unique(attempts, by_system=bool(sides))
    latest = derived_metrics.latest_attempts(attempts)
    usable = latest["status"].isin(DONE_STATUSES) & latest["steps"].gt(0)
    measured = latest if usable.all() else latest[usable]
    chosen = limit_shown_cases(measured, MAX_CASES if max_shown is None else max_shown)
    if with_rows:
        # Sections look at these case by case, which columns of Arrow's texts are slow at.
        chosen = chosen.astype(dict.fromkeys(chosen.select_dtypes("str"), object))
    account = _count_used_and_unused_rows(loaded, attempts, latest, usable, chosen)
    if not with_rows:
        rows, medians = rows.iloc[:0].copy(), medians.iloc[:0].copy()  # slices would keep the memory of all
        loaded = replace(loaded, rows=rows)
    release_memory()
    kept = loaded.read_samples_of_attempts(chosen["attempt_id"].tolist())
    traces = first.reindex(kept.index)["power_limit_w"].to_numpy()
    allreduce = longest.reindex(kept.index).to_numpy(dtype=float)
    kept = kept.assign(power_limit_w=traces, allreduce=allreduce)
    shown = pd.concat([chosen, kept.set_index(chosen.index)], axis=1)
    if with_rows:
        shown = shown.copy()  # in one piece, which is faster
    failed = latest[~usable]
    failed = failed.assign(error=failed["error"].mask(failed["status"].isin(DONE_STATUSES), UNUSABLE_REASON))
    release_memory()
    unread += [str(w.message) for w in caught if issubclass(w.category, store.SkippedPart)]
    # A table of a report names these; of the other attempts it names the newest.
    listed = dict.fromkeys(a for cases in (chosen, failed, attempts.iloc[-MAX_CASES:]) for a in cases["attempt_id"])
    return Content(
        sources=tuple(source.path for source in named),
        rows=rows,
        attempts=attempts,
        shown=shown,
        failed=failed,
        system_names=names,
        skipped=(*loaded.problems, *unread),
        left_out=len(measured) - len(chosen),
        account=account,
        baseline=baseline,
        prices=prices,
        mix=mix,
        bounds=bounds,
        medians=medians,
        sides=sides,
        machine_states=states,
        files=loaded.part_file_of_attempts(list(listed)) if with_rows else {},
    )


def metrics(sources: str | Path | Sequence[str | Path] = "results", every_attempt: bool = False) -> pd.DataFrame:
    """One row per case: what names it, its axes, every metric in SI units, and the intervals as `_low` and `_high`.

    Args:
        sources: a results folder, a Parquet file, a glob pattern, NAME=SOURCE, or several of them.
        every_attempt: one row per attempt instead, failed and superseded ones included.

    Returns:
        The columns of metrics.csv and `system` (its name); without `every_attempt` also `samples` (step times [s] of
        the slowest rank) and the power trace. What is missing is NaN. `dlbench.plots` draws from such a frame, or from
        a part of it; of every attempt only what needs no samples.

    `attrs["rows"]` of the frame says where every row of the files is: how many were read, how many stand behind the
    rows of the frame ("shown"), and how many are left out for which reason.

    A part that cannot be read is passed over with a `SkippedPart` warning.

    Raises:
        StoreError: a source does not exist.
    """
    content = read_content(
        [sources] if isinstance(sources, str | Path) else sources,
        max_shown=0 if every_attempt else math.inf,
        with_rows=False,
    )
    content.warn_of_unreadable_files()
    frame = content.attempts if every_attempt else content.shown
    names, account = content.system_names, content.account
    del content  # of a large store its other frames take gigabytes
    frame = frame.assign(system=frame["system_id"].map(names)).reset_index(drop=True)
    frame.attrs["rows"] = (
        account.row_counts_with_every_attempt() if every_attempt else {"read": account.read, **account.rows}
    )
    return frame


def _count_used_and_unused_rows(
    loaded: stores.LoadedStores, attempts: pd.DataFrame, latest: pd.DataFrame, usable: pd.Series, chosen: pd.DataFrame
) -> row_accounting.RowCounts:
    """What became of every row that was read."""
    kinds = pd.Series(row_accounting.SUPERSEDED, attempts.index, dtype=object)
    # By the index, not by the ids: `latest` and `chosen` are rows of `attempts`.
    unknown = derived_metrics.ended_before_system_was_known(attempts) & ~attempts.index.isin(latest.index)
    kinds[unknown] = row_accounting.SYSTEM_UNKNOWN
    kinds[latest.index[~usable]] = row_accounting.FAILED
    kinds[latest.index[usable]] = row_accounting.BEYOND_LIMIT
    kinds[chosen.index] = row_accounting.SHOWN
    kinds = kinds.set_axis(attempts["attempt_id"])
    of_rows, of_attempts = loaded.rows["attempt_id"].map(kinds).value_counts(), kinds.value_counts()
    rows = {kind: int(of_rows.get(kind, 0)) for kind in row_accounting.KINDS_OF_ATTEMPTS}
    rows |= {row_accounting.COPIES: loaded.num_copies, row_accounting.PASSED_OVER: loaded.num_passed_over}
    counts = {kind: int(of_attempts.get(kind, 0)) for kind in row_accounting.KINDS_OF_ATTEMPTS}
    return row_accounting.RowCounts(loaded.num_rows, rows, counts)


def limit_shown_cases(cases: pd.DataFrame, limit: float) -> pd.DataFrame:
    """At most so many cases, of every system and network some: of each setting the latest, and of these the fastest.

    A setting are all axes but `repeat`. Its earlier repeats come only when every setting has had its turn.
    """
    if len(cases) <= limit:
        return cases
    setting = ["system_id", *(axis for axis in AXES if axis != "repeat")]
    turn = cases.groupby(setting, dropna=False).cumcount(ascending=False)
    kind = ["system_id", "model", "mode", "precision"]
    by_speed = cases[[*kind, "throughput"]].assign(turn=turn).sort_values("throughput", ascending=False, kind="stable")
    place = by_speed.groupby([*kind, "turn"], dropna=False).cumcount()
    order = pd.DataFrame({"turn": turn, "place": place}).sort_values(["turn", "place"], kind="stable")
    return cases.loc[order.index[: int(limit)].sort_values()]
