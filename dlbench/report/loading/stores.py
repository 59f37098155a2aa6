"""What a report keeps of stores: of every row what is no sample, of every attempt its statistics.

Samples go by in pieces and are not kept; those of the cases that are shown are read once more. So memory grows with the
number of attempts and not with that of steps.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from dlbench import stats
from dlbench.report.loading import intervals, sample_statistics, systems
from dlbench.results.reader import NUMBER_LISTS, AttemptBatch, RaggedArray, StoreReader, tables_to_frame
from dlbench.results.schema import SCHEMA

#: Kept of the samples of a case that is shown: the power of its first rank, and what communication took.
TRACE_COLUMNS = ("power_time_s", "power_w")
COMMUNICATION_COLUMNS = ("unsynced", "unsynced_low", "unsynced_high")
#: So many unreadable parts are named; the others are counted.
MAX_PROBLEMS = 20
#: A long text that differs little within a system: one of each is enough.
_DETAILS_COLUMN = "system_details"
ROW_COLUMNS = tuple(n for n in SCHEMA.names if n not in (*NUMBER_LISTS, _DETAILS_COLUMN))
#: What only the chapters of a report show: neither a metric nor the name of a system needs it.
_CHAPTER_COLUMNS = (
    *("schema_version", "local_rank", "warmup_steps", "warmup_s", "parameters", "forward_macs", "flop_varies"),
    *("pytorch_forward_flop", "pytorch_backward_flop", "memory_device_total_bytes", "buffer_bytes"),
    *("sm_clock_before_mhz", "sm_clock_after_mhz", "sm_clock_max_mhz", "memory_clock_mhz"),
    *("temperature_before_c", "temperature_after_c", "page_faults", "kernel_time_s", "communicator", "transport"),
    *("loader_cpu_s", "loss_first", "loss_last", "facts_from", "system_device_kind", "system_device_name"),
    *("system_device_count", "system_os", "system_kernel", "system_python_version", "system_torchvision_version"),
    *("system_cudnn_version", "system_nccl_version", "system_container_runtime", "system_container_image"),
    *("system_dlbench_version", "system_git_commit", "system_git_dirty", "system_slurm_job_id"),
    *("system_node_cpu_threads", "system_firmware"),
)
#: The columns that metrics and the names of systems follow from.
METRIC_COLUMNS = tuple(n for n in ROW_COLUMNS if n not in _CHAPTER_COLUMNS)

#: One row per attempt: `slowest_rank_median` is the largest median step of its ranks [s].
_STATISTIC_COLUMNS = (*sample_statistics.STATISTICS, *sample_statistics.LIMIT_COLUMNS, "slowest_median")

#: Called with a sentence on how far the reading is.
ProgressCallback = Callable[[str], None]


@dataclass(frozen=True)
class LoadedStores:
    """Stores that were read once, ready to be asked for the samples of some attempts."""

    rows: pd.DataFrame  # one per rank, by attempt and rank, without samples; `system_details` once per system
    statistics: pd.DataFrame  # of each attempt, the columns of `_STATISTIC_COLUMNS`
    readers: Sequence[StoreReader]  # of each source
    source_of: pd.Series  # of each attempt the number of the source that it counts in
    num_rows: int = 0  # that the files of all sources hold
    num_passed_over: int = 0  # of these those that cannot be right or cannot be read
    num_copies: int = 0  # of the others those of an attempt and rank that another row counts for

    @property
    def problems(self) -> list[str]:
        """What could not be read, in words."""
        found = [problem for reader in self.readers for problem in reader.problems]
        more = len(found) - MAX_PROBLEMS
        return [*found[:MAX_PROBLEMS], f"{more} more parts like these"] if more > 0 else found

    def part_file_of_attempts(self, attempts: Sequence[str]) -> dict[str, Path]:
        """The Parquet file that each of these attempts was read from."""
        files: dict[str, Path] = {}
        source_of = self.source_of.loc[list(attempts)]
        for number, some in source_of.groupby(source_of):
            files |= self.readers[int(str(number))].first_part_of_attempts(some.index.tolist())
        return files

    def read_samples_of_attempts(self, attempts: list[str]) -> pd.DataFrame:
        """The samples of these attempts, in their order.

        The columns are `sample_statistics`, `TRACE_COLUMNS` and `COMMUNICATION_COLUMNS`.
        `sample_statistics` are the step times [s] of the slowest rank. Communication is the slowest rank's median step
        without synchronisation [s] and its interval; NaN where there is none.
        """
        columns = ("step_s", "unsynced_step_s", "protocol", *TRACE_COLUMNS)
        batches = _batches_with_attempts(self.source_of.loc[attempts], self.readers, columns)
        kept = [_samples_of_batch(batch) for batch in batches]
        if not kept:
            kept = [pd.DataFrame(columns=["samples", *TRACE_COLUMNS, *COMMUNICATION_COLUMNS])]
        whole: pd.DataFrame = pd.concat(kept).reindex(attempts)
        return whole


def load_stores(
    sources: Sequence[systems.ResultsSource],
    progress: ProgressCallback | None = None,
    columns: Sequence[str] = ROW_COLUMNS,
    with_sides: bool = False,
) -> LoadedStores:
    """Read these columns of the sources once, with sides as `systems.join_sources` takes them.

    Raises StoreError if a source does not exist.
    """
    readers = [StoreReader.from_sources([source.path]) for source in sources]
    frames: list[pd.DataFrame] = []
    statistics: list[pd.DataFrame] = []
    for number, (source, reader) in enumerate(zip(sources, readers, strict=True)):
        batches = reader.attempt_batches(
            (*columns, *sample_statistics.COLUMNS), _progress_of_file(progress, source.path)
        )
        frames.append(
            systems.add_results_name_columns(
                tables_to_frame(_scalar_table_of_each_batch(batches, statistics), columns), source, number
            )
        )
    # What is read once more, later, is not to be counted again.
    counts = [(reader.num_rows, reader.num_rows - reader.num_held, reader.num_copies) for reader in readers]
    num_rows, num_passed_over, num_copies = (sum(of_kind) for of_kind in zip(*counts, strict=True))
    num_copies += _count_duplicate_rows(frames)
    rows = systems.join_sources(frames, with_sides)
    known = pd.concat(statistics) if statistics else pd.DataFrame(columns=_STATISTIC_COLUMNS)
    # An attempt that several sources hold counts as it stands in the first.
    known = known[~known.index.duplicated()]
    first = rows[["attempt_id", "source_number"]].drop_duplicates("attempt_id").set_index("attempt_id")
    rows = rows.assign(**{_DETAILS_COLUMN: _details_once_per_system(rows, readers)})
    return LoadedStores(rows, known, readers, first["source_number"], num_rows, num_passed_over, num_copies)


def _count_duplicate_rows(frames: Sequence[pd.DataFrame]) -> int:
    """Rows of an attempt and rank that a source before holds as well."""
    if len(frames) < 2:
        return 0
    return int(pd.concat([frame[["attempt_id", "rank"]] for frame in frames], ignore_index=True).duplicated().sum())


def _progress_of_file(progress: ProgressCallback | None, path: str) -> Callable[[int, int], None] | None:
    return progress and (lambda done, total: progress(f"{path}: {done} of {total} parts read"))


def _scalar_table_of_each_batch(batches: Iterable[AttemptBatch], statistics: list[pd.DataFrame]) -> Iterator[pa.Table]:
    """What is no sample, while `statistics` takes what the samples say."""
    for batch in batches:
        statistics.append(_statistics_of_batch(batch))
        yield batch.scalars


def _statistics_of_batch(batch: AttemptBatch) -> pd.DataFrame:
    ranks = _ranks_of_attempts(batch)
    stride = batch.scalars["phase_stride"].to_numpy()
    found = sample_statistics.slowest_rank_steps(batch.lists["step_s"], ranks)
    known = sample_statistics.sample_statistics(found, batch.lists, ranks, stride)
    protocols = batch.scalars["protocol"].take(pa.array(ranks.first)).to_pylist()
    limits = intervals.median_intervals(found.steps, intervals.confidence_of_each_protocol(protocols))
    # A median of one rank is that of the slowest.
    alone = sample_statistics.has_one_rank_per_attempt(ranks)
    medians = known["step_time"] if alone else sample_statistics.slowest_rank_median(batch.lists["step_s"], ranks)
    return known.assign(**dict(zip(sample_statistics.LIMIT_COLUMNS, limits.T, strict=True)), slowest_median=medians)


def _ranks_of_attempts(batch: AttemptBatch) -> sample_statistics.RanksOfAttempts:
    return sample_statistics.RanksOfAttempts.from_attempt_ids(batch.scalars["attempt_id"].to_pylist())


def _batches_with_attempts(
    source_of: pd.Series, readers: Sequence[StoreReader], columns: Sequence[str]
) -> Iterator[AttemptBatch]:
    """The batches that hold these attempts, each from the source that it counts in."""
    for number, attempts in source_of.groupby(source_of):
        yield from readers[int(str(number))].read_attempts(attempts.index.tolist(), columns)


def _samples_of_batch(batch: AttemptBatch) -> pd.DataFrame:
    ranks = _ranks_of_attempts(batch)
    values: dict[str, Any] = {
        "samples": sample_statistics.slowest_rank_steps(batch.lists["step_s"], ranks).steps.row_arrays()
    }
    for name in TRACE_COLUMNS:
        traces = batch.lists[name].row_arrays()
        values[name] = [traces[row] for row in ranks.first.tolist()]
    columns = {name: pd.Series(arrays, ranks.attempts, dtype=object) for name, arrays in values.items()}
    limits = _medians_of_unsynchronized_steps(
        batch.lists["unsynced_step_s"], ranks, batch.scalars["protocol"].to_pylist()
    )
    return pd.concat([pd.DataFrame(columns), pd.DataFrame(limits, ranks.attempts, list(COMMUNICATION_COLUMNS))], axis=1)


def _medians_of_unsynchronized_steps(
    steps: RaggedArray, ranks: sample_statistics.RanksOfAttempts, protocols: Sequence[str | None]
) -> NDArray[np.float64]:
    """The median of these steps and its interval for each attempt, each the largest over ranks.

    NaN without steps, and where a rank has one that cannot be right.
    """
    limits = np.full((steps.row_lengths.size, 3), np.nan)
    confidence = intervals.confidence_of_each_protocol(protocols)
    for row in np.flatnonzero(steps.row_lengths).tolist():
        own = steps.row(row)
        if not sample_statistics.is_possible_time(own).all():
            limits[row] = np.inf  # the largest of all ranks
            continue
        interval = stats.median_interval(own.tolist(), confidence[row]) if 0 < confidence[row] < 1 else None
        limits[row] = (interval.value, interval.low, interval.high) if interval else (np.median(own), np.nan, np.nan)
    largest: NDArray[np.float64] = np.fmax.reduceat(limits, ranks.first) if len(ranks.attempts) else limits
    return np.where(np.isfinite(largest), largest, np.nan)


def _details_once_per_system(rows: pd.DataFrame, readers: Sequence[StoreReader]) -> pd.Series:
    """`system_details` of the first row of each system, and nothing in all others."""
    described = rows[rows["system_hostname"].fillna("") != ""].drop_duplicates("system_id")
    details = pd.Series(None, rows.index, dtype=object)
    places = {(attempt, rank): i for i, attempt, rank in described[["attempt_id", "rank"]].itertuples()}
    source_of = described.drop_duplicates("attempt_id").set_index("attempt_id")["source_number"]
    for batch in _batches_with_attempts(source_of, readers, (_DETAILS_COLUMN,)):
        for row in batch.scalars.select(["attempt_id", "rank", _DETAILS_COLUMN]).to_pylist():
            place = places.get((row["attempt_id"], row["rank"]))
            if place is not None:
                details[place] = row[_DETAILS_COLUMN]
    return details
