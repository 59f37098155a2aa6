"""Which processes of two sides belong together: what has to agree, what each side has, and which pairs are whole.

Attempts that differ in the axis `repeat` alone are processes of one case. All axes but that, the suite with its version
and the protocol have to agree, unless they are named as allowed to differ.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dlbench import units
from dlbench.errors import BadInput, UnknownName
from dlbench.report.analysis.comparison_statistics import DEFAULT_MARGIN
from dlbench.report.analysis.derived_metrics import attempts_from_rows, latest_attempts
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.loading.sample_statistics import LIMIT_COLUMNS
from dlbench.report.loading.stores import METRIC_COLUMNS
from dlbench.report.loading.systems import add_system_ids
from dlbench.results import store
from dlbench.results.frame_builder import release_memory
from dlbench.results.reader import NUMBER_LISTS, StoreReader, tables_to_frame
from dlbench.results.records import DONE_STATUSES
from dlbench.results.schema import LONG_TEXT, SCHEMA
from dlbench.suites.case import AXES, Case, Protocol
from dlbench.table import Cell

#: What has to agree between two processes for them to be compared, by the names that `ignore` takes.
IDENTITY_COLUMNS = ("suite", "suite_version", *(axis for axis in AXES if axis != "repeat"), "protocol")

#: Keys of the protocol that do not touch what a process measures.
_IGNORED_PROTOCOL_KEYS = ("timeout_s",)

#: Between the halves of a pair lies no more than this [s]; what ran further apart did not share its conditions.
MAX_PAIR_GAP_S = 60.0

#: Facts about a system that may explain a difference, in the order in which they are shown.
SYSTEM_FACTS = {
    "device_name": "device",
    "device_count": "devices",
    "driver_version": "driver",
    "hostname": "host",
    "cpu_model": "CPU",
    "cpu_cores": "CPU cores",
    "cpu_threads": "CPU threads",
    "torch_threads": "threads of torch",
    "cpu_quota": "CPU quota",
    "cpu_binding": "binding of threads",
    "node_cpu_cores": "cores of the node",
    "node_memory_bytes": "memory of the node [B]",
    "memory_bytes": "memory [B]",
    "firmware": "firmware",
    "os": "operating system",
    "kernel": "kernel",
    "python_version": "Python",
    "torch_version": "torch",
    "torchvision_version": "torchvision",
    "cuda_version": "CUDA",
    "cudnn_version": "cuDNN",
    "nccl_version": "NCCL",
    "container_runtime": "container runtime",
    "container_image": "container image",
    "dlbench_version": "dlbench",
    "git_commit": "git commit",
    "git_dirty": "uncommitted changes",
}

#: The columns of rows that attempts can be selected by.
READ_COLUMNS = tuple(
    name for name in SCHEMA.names if name != LONG_TEXT and (name not in NUMBER_LISTS or name == "step_s")
)
#: The columns that every comparison needs; the others may take gigabytes.
_NEEDED_COLUMNS = {*METRIC_COLUMNS, "step_s", *(f"system_{fact}" for fact in SYSTEM_FACTS)}

#: The metrics that verdicts, notes and warnings need beside the one that is compared.
_METRICS = ("step_time", "steps", "throughput", "sustained_throughput", "clock_gap", "energy_per_image")

MatchKey = tuple[Any, ...]


@dataclass(frozen=True)
class ComparisonRules:
    """How two sides are compared."""

    metric: str = "step_time"
    confidence: float = 0.95
    margin: float = DEFAULT_MARGIN
    between_processes: float | None = None  # relative standard deviation between processes, where it is known
    ignore: frozenset[str] = frozenset()  # of `IDENTITY_COLUMNS`: what may differ

    def __post_init__(self) -> None:
        for name in self.ignore:
            if name not in IDENTITY_COLUMNS:
                raise UnknownName("identity", name, IDENTITY_COLUMNS, "--ignore")
        for name in ("model", "mode"):
            if name in self.ignore:
                raise BadInput(f"--ignore {name}: cases that differ in {name} do different work and cannot be compared")


@dataclass(frozen=True)
class AttemptGroup:
    """All attempts of one side at one case."""

    key: MatchKey
    good: pd.DataFrame
    bad: pd.DataFrame


def read_selected_rows(source: str, where: Sequence[str], option: str) -> pd.DataFrame:
    """The rows of a store that are selected, with the columns that a comparison needs.

    Raises StoreError if the source does not exist, BadInput as `select_rows_by_values` does.
    """
    reader = StoreReader.from_sources([source])
    for text in where:
        _parse_selection(text, option, READ_COLUMNS)
    names = _NEEDED_COLUMNS | {text.partition("=")[0] for text in where}
    columns = [name for name in READ_COLUMNS if name in names]
    rows = tables_to_frame((_drop_unselected_rows(table, where) for table in reader.attempt_tables(columns)), columns)
    store.warn_about_skipped_parts(reader.problems)
    return select_rows_by_values(rows, where, option)


def _drop_unselected_rows(table: pa.Table, where: Sequence[str]) -> pa.Table:
    """The rows that `select_rows_by_values` may keep; the others need no memory."""
    for text in where:
        column, _, value = text.partition("=")
        if pa.types.is_string(table.schema.field(column).type):
            table = table.filter(pc.equal(table[column], value))
    return table


def usable_attempts_of_side(
    rows: pd.DataFrame, where: Sequence[str], every: bool, name: str, rules: ComparisonRules
) -> pd.DataFrame:
    """One row per attempt of a side that counts, with its system's facts and whether it is usable (`_good`)."""
    rows = select_rows_by_values(rows, where, f"--{name.lower()}-where")
    if rows.empty:
        raise BadInput(f"{name} contains no records" + (f" with {', '.join(where)}" if where else ""))
    # Two settings of a CPU are two systems, though records of earlier versions have one key for both.
    cases = add_system_ids(attempts_from_rows(rows), rows)
    if not every:
        cases = latest_attempts(cases)
    cases = cases.drop(columns=[name for name in (*METRICS, *LIMIT_COLUMNS) if name not in (*_METRICS, rules.metric)])
    cases = fill_missing_axes(cases).assign(protocol=normalize_protocol_column(cases["protocol"]))
    columns = ["attempt_id", *(f"system_{fact}" for fact in SYSTEM_FACTS)]
    facts = rows[columns].drop_duplicates("attempt_id").set_index("attempt_id")
    cases = cases.join(facts, on="attempt_id")
    values = cases[rules.metric]
    release_memory()
    return cases.assign(_good=cases["status"].isin(DONE_STATUSES) & np.isfinite(values) & (values > 0))


def fill_missing_axes(cases: pd.DataFrame) -> pd.DataFrame:
    """`cases` in which parts from before an axis existed, which say nothing of it, have its default."""
    for axis in fields(Case):
        if axis.name in AXES and axis.name != "model" and axis.name in cases:
            unknown = cases[axis.name].isna()
            if unknown.any():
                cases = cases.assign(**{axis.name: cases[axis.name].mask(unknown, axis.default)})
    return cases


def select_rows_by_values(rows: pd.DataFrame, where: Sequence[str], option: str) -> pd.DataFrame:
    """The rows in which each named column has the given value, written as text: ``precision=fp32``.

    Raises BadInput if a selection is not KEY=VALUE, or names no column.
    """
    for text in where:
        column, value = _parse_selection(text, option, rows.columns)
        # A column of whole numbers in which some are missing holds floats: 2.0 is what was asked for as 2.
        if pd.api.types.is_numeric_dtype(rows[column]) and not pd.api.types.is_bool_dtype(rows[column]):
            wanted = rows[column] == pd.to_numeric(value, errors="coerce")
        else:
            wanted = rows[column].astype(str) == value
        rows = rows if wanted.all() else rows[wanted]
    return rows


def _parse_selection(text: str, option: str, columns: Collection[str]) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not equals:
        raise BadInput(f"cannot use {option} {text}: write column=value")
    if column not in columns:
        raise UnknownName("column", column, map(str, columns), option)
    return column, value


@lru_cache(maxsize=10_000)
def normalize_protocol(text: str | None) -> str:
    """A record's protocol as text, equal where the measuring was: defaults filled in, harmless keys left out."""
    values = asdict(Protocol()) | json.loads(text or "{}")
    return json.dumps({k: v for k, v in values.items() if k not in _IGNORED_PROTOCOL_KEYS}, sort_keys=True)


def normalize_protocol_column(column: pd.Series) -> pd.Series:
    """The same of each row, as objects: texts of their own for a million rows would take half a gigabyte."""
    codes, texts = column.factorize()
    # What is missing has the code -1: the last.
    found = np.array([*map(normalize_protocol, texts), normalize_protocol(None)], dtype=object)
    return pd.Series(found[codes], column.index, dtype=object)


def is_usable_attempt(case: Mapping[Any, Any], rules: ComparisonRules) -> bool:
    """Whether an attempt ended well and has the metric that is compared."""
    value = case[rules.metric]
    return case["status"] in DONE_STATUSES and value is not None and math.isfinite(value) and value > 0


def group_attempts(cases: pd.DataFrame, names: list[str], rules: ComparisonRules) -> dict[MatchKey, AttemptGroup]:
    """The attempts by what has to agree, in the order in which they were started."""
    groups = {}
    # Nothing may go because a value is missing, which pandas would leave out.
    for key, attempts in cases.groupby(names, sort=False, dropna=False):
        groups[tuple(key)] = AttemptGroup(tuple(key), attempts[attempts["_good"]], attempts[~attempts["_good"]])
    return groups


def find_nearest_match_key(key: MatchKey, candidates: list[MatchKey], names: list[str]) -> MatchKey | None:
    """The candidate for the same work that disagrees in the fewest names; None where there is none."""
    work = [names.index("model"), names.index("mode")]
    same = [other for other in candidates if all(other[i] == key[i] for i in work)]
    return min(same, key=lambda other: sum(x != y for x, y in zip(key, other, strict=True)), default=None)


def select_attempts_of_sides(rows: pd.DataFrame, sides: tuple[str, str]) -> pd.DataFrame:
    """The attempts that count of both sides."""
    rows = rows[rows["suite"].isin(sides)]
    # A process of a side is measured on what its setting makes of the machine: nothing else tells its cases apart.
    return pd.DataFrame(columns=["suite", "case_id"]) if rows.empty else latest_attempts(attempts_from_rows(rows))


def find_back_to_back_pair(
    cases: pd.DataFrame, sides: tuple[str, str], a: Case, b: Case, number: int
) -> tuple[dict[Any, Any], dict[Any, Any]] | None:  # fmt: skip
    """Both halves of a pair, if they ran one right after the other."""
    halves = []
    for suite, case in zip(sides, (a, b), strict=True):
        name = replace(case, repeat=number).id
        found = cases[(cases["suite"] == suite) & (cases["case_id"] == name)]
        if found.empty:
            return None
        halves.append(found.iloc[-1].to_dict())
    return (halves[0], halves[1]) if ran_back_to_back(*halves) else None


def ran_back_to_back(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> bool:
    """Whether two attempts ran one right after the other."""
    first, second = sorted((a, b), key=lambda half: half["started_at"])
    gap_s = (second["started_at"] - first["finished_at"]).total_seconds()
    # Records keep milliseconds; halves that overlap disturbed each other.
    return bool(-0.01 <= gap_s <= MAX_PAIR_GAP_S)


def combine_settings_of_groups(group: AttemptGroup, other: AttemptGroup | None = None) -> dict[str, Cell]:
    """As `combine_settings_of_sides`, from the first attempts of one or two groups."""
    first = _identity_of_first_attempt(group)
    return combine_settings_of_sides(first, first if other is None else _identity_of_first_attempt(other))


def _identity_of_first_attempt(group: AttemptGroup) -> dict[str, Any]:
    attempts = group.bad if group.good.empty else group.good
    return {name: attempts[name].iloc[0] for name in IDENTITY_COLUMNS}


def combine_settings_of_sides(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Cell]:
    """The axes of a comparison; where its sides differ, both values."""
    return {
        name: _to_python_scalar(first[name]) if first[name] == second[name] else f"{first[name]} → {second[name]}"
        for name in first
        if name not in ("protocol", "repeat")
    }


def system_differences(base: pd.DataFrame, target: pd.DataFrame) -> list[tuple[str, str, str]]:
    """The facts about the systems in which the two sides differ, each with its values."""
    columns = {f"system_{name}": title for name, title in SYSTEM_FACTS.items()} | {"clock": "clock"}
    found = []
    for column, title in columns.items():
        distinct = [side[column].dropna().unique().tolist() for side in (base, target)]
        values = [sorted({_format_setting_value(v) for v in some if is_cell_filled(v)}) for some in distinct]
        if values[0] != values[1]:
            found.append((title, *(", ".join(v) or units.MISSING for v in values)))
    return found  # type: ignore[return-value]  # three texts each


def _format_setting_value(value: Any) -> str:
    # A column of whole numbers in which some are missing holds floats.
    plain = _to_python_scalar(value)
    return str(int(plain)) if isinstance(plain, float) and plain.is_integer() else str(plain)


def _to_python_scalar(value: Any) -> Cell:
    cell: Cell = value.item() if hasattr(value, "item") else value
    return cell


def is_cell_filled(value: Any) -> bool:
    """Whether a cell of a frame holds anything."""
    return value is not None and value == value and value != ""
