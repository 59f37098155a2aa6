"""Large stores reduced by DuckDB: one row per process without its samples, or one row per case and day.

Only the columns of the query are read, in pieces: 1.8 million records fit into the memory of a laptop.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from dlbench.errors import BadInput
from dlbench.results.case_figures import LONGEST_STEP_S, SHORTEST_STEP_S
from dlbench.results.query import query_as_arrow_table
from dlbench.results.records import DONE_STATUSES
from dlbench.results.schema import SCHEMA
from dlbench.suites.case import AXES

if TYPE_CHECKING:
    import pandas as pd

#: Columns that are equal for two processes of the same case: all axes except repeat.
SETTING_AXES = tuple(axis for axis in AXES if axis != "repeat")
#: The same with the threads that compute on a CPU: two numbers of threads are two settings of the machine. In the rows
#: below it is null on other devices, where their number does not matter.
THREADS_COLUMN = "system_torch_threads"
SETTING_COLUMNS = (*SETTING_AXES, THREADS_COLUMN)
#: Software and machine columns, with their titles.
SYSTEM_FACTS = {
    "system_driver_version": "driver",
    "system_cuda_version": "CUDA",
    "system_cudnn_version": "cuDNN",
    "system_nccl_version": "NCCL",
    "system_torch_version": "PyTorch",
    "system_torchvision_version": "torchvision",
    "system_python_version": "Python",
    "system_kernel": "kernel",
    "system_os": "operating system",
    "system_firmware": "firmware",
    "system_container_image": "container image",
    "system_dlbench_version": "dlbench",
    "system_git_commit": "commit",
    "system_cpu_cores": "cores of the job",
    "system_cpu_threads": "logical cores of the job",
    "system_node_cpu_cores": "cores of the node",
    "system_memory_bytes": "memory of the job",
    "system_device_count": "devices of the job",
    "system_cpu_quota": "CPU quota of the control group",
    "system_cpu_binding": "binding of threads",
    "power_limit_w": "power limit",
    "memory_clock_mhz": "memory clock",
}
_MEASURED_SQL = f"status in {DONE_STATUSES}"
#: The median step of a rank [s]; null where a step cannot be one.
_MEDIAN_SQL = (
    f"case when list_min(step_s) >= {SHORTEST_STEP_S} and list_max(step_s) <= {LONGEST_STEP_S} "
    "then list_median(step_s) end"
)
_THREADS_SQL = f"case when device = 'cpu' then {THREADS_COLUMN} end as {THREADS_COLUMN}"


def read_process_rows(
    sources: Sequence[str | Path], columns: Sequence[str], since: datetime | None = None
) -> pd.DataFrame:
    """One row per rank of every measured attempt, those before `since` omitted; raises StoreError without a source.

    Returns:
        The columns `attempt_id`, `rank`, `world_size`, `started_at`, `SETTING_COLUMNS`, `step_s` (the median [s])
        and the given ones of `records`.
    """
    names = dict.fromkeys(("attempt_id", "rank", "world_size", "started_at", *SETTING_COLUMNS, *columns))
    later = f" and started_at >= timestamptz '{since.isoformat()}'" if since else ""
    sql = f"select {_quoted_columns(names)}, {_MEDIAN_SQL} as step_s from records where {_MEASURED_SQL}{later}"
    frame: pd.DataFrame = query_as_arrow_table(sql, sources).to_pandas()
    return frame


def read_daily_rows(sources: Sequence[str | Path]) -> pa.Table:
    """One row per case, kind of device and day, over all processes of that day; raises StoreError without a source.

    Returns:
        `SETTING_COLUMNS`, `device_kind` (its name), `day`, `processes`, `log_step` (median of the natural logarithms of
        the median steps [s]), `log_sd` (their standard deviation), `suite`, `suite_version`, `protocol` and
        `SYSTEM_FACTS`: the commonest value of each, of the case or, beyond `_OF_CASE`, of all cases on that kind of
        device that day.
    """
    # Each step of several ranks counts with the slowest; the median of the slowest rank comes near, and needs no copy.
    sql = f"""
        with ranks as (
            select {_quoted_columns(PROCESS_COLUMNS)}, {_MEDIAN_SQL} as step_s
            from records where {_MEASURED_SQL}
        ), attempts as (
            select * from ranks where step_s is not null and nodes * devices_per_node = 1
            union all by name
            select any_value(columns(* exclude (attempt_id, step_s))), attempt_id, max(step_s) as step_s
            from ranks where nodes * devices_per_node > 1
            group by attempt_id having count(step_s) = count(*)
        )
        {_daily_rows_sql(PROCESS_COLUMNS, f"records where {_MEASURED_SQL}")}
    """
    return query_as_arrow_table(sql, sources)


def daily_rows_of_attempts(attempts: pd.DataFrame) -> pa.Table:
    """The same of measured attempts in memory, which have `PROCESS_COLUMNS` and `step_s`.

    `step_s` is the largest median step of an attempt's ranks [s], not NaN.
    """
    # Most columns have one value, and to group or count by each takes as long as by one that varies.
    known = ("attempt_id", "started_at", "device_name", "system_cpu_model", "step_s")
    attempts = attempts.assign(**{THREADS_COLUMN: attempts[THREADS_COLUMN].where(attempts["device"].eq("cpu"))})
    alike = {n for n in (*SETTING_COLUMNS, *_DAY_FACTS) if n not in known and attempts[n].nunique(dropna=False) == 1}
    names = [n for n in (*PROCESS_COLUMNS, "step_s") if n not in alike]
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("attempts", pa.table({name: _column_to_arrow(attempts[name], name) for name in names}))
        found: pa.Table = connection.sql(_daily_rows_sql(names)).to_arrow_table()
    for name in sorted(alike):
        value = _column_to_arrow(attempts[name].iloc[:1], name)[0].as_py()
        found = found.append_column(name, pa.repeat(pa.scalar(value, SCHEMA.field(name).type), found.num_rows))
    return found


def _column_to_arrow(column: pd.Series, name: str) -> pa.Array | pa.ChunkedArray:
    """A column of rows with the type of the store; texts are not copied."""
    kind = pa.float64() if name == "step_s" else SCHEMA.field(name).type
    if not pa.types.is_string(kind):
        # pandas holds whole numbers of which some are missing as floats.
        return pa.array(column, kind, from_pandas=True)
    if column.dtype != object:
        return pa.array(column, pa.large_string(), from_pandas=True)
    codes, texts = column.factorize()
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=codes < 0), pa.array(texts, pa.string()))


def _quoted_columns(names: Iterable[str]) -> str:
    """Column names for SQL; some axes are called like words of SQL."""
    return ", ".join(_THREADS_SQL if name == THREADS_COLUMN else f'"{name}"' for name in names)


#: Facts whose change may explain a change of the figures.
_OF_CASE = ("suite", "suite_version", "protocol", "network_key", "power_limit_w", "memory_clock_mhz")
#: The others are counted per day, not per case: that would take gigabytes.
_OF_SYSTEM = tuple(name for name in SYSTEM_FACTS if name not in _OF_CASE)
_DAY_FACTS = (*_OF_CASE, *_OF_SYSTEM)
#: What `read_daily_rows` needs of each process, beside its step time.
PROCESS_COLUMNS = tuple(
    dict.fromkeys(("attempt_id", *SETTING_COLUMNS, "started_at", *_DAY_FACTS, "device_name", "system_cpu_model"))
)


def _daily_rows_sql(columns: Collection[str], measured: str = "attempts") -> str:
    """The SQL that reduces `attempts` to days by those of the columns that are `SETTING_COLUMNS` or `_DAY_FACTS`.

    `measured` is where the facts of a kind of device are counted.
    """
    key = "coalesce(device_name, system_cpu_model, '') as device_kind, date_trunc('day', started_at) as day"
    setting = "".join(f', "{name}"' for name in SETTING_COLUMNS if name in columns)
    return f"""
        select cases.*, systems.* exclude (device_kind, day) from (
            select {key}{setting}, count(*) as processes, median(ln(step_s)) as log_step,
                stddev_samp(ln(step_s)) as log_sd{_most_common_sql(_OF_CASE, columns)}
            from attempts group by device_kind, day{setting}
        ) cases join (
            select {key}{_most_common_sql(_OF_SYSTEM, columns)} from {measured} group by device_kind, day
        ) systems using (device_kind, day)
    """


def _most_common_sql(names: Iterable[str], columns: Collection[str]) -> str:
    return "".join(f', mode("{name}") as "{name}"' for name in names if name in columns)


def parse_since_date(text: str) -> datetime:
    """Parse a date such as 2026-11-01, or one with a time; without a time zone it is UTC. Raises BadInput."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"--since {text!r} is not a date; write for example 2026-11-01 or 2026-11-01T12:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
