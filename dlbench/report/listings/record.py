"""One record with all that is known of it for `dlbench show`: outcome, metrics, samples, system, protocol, warnings."""

import json
import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dlbench import table, units
from dlbench.errors import BadInput
from dlbench.json_text import dump_json
from dlbench.report.analysis import derived_metrics
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.chapters import tables
from dlbench.results import store
from dlbench.results.records import parse_system_details
from dlbench.results.schema import SCHEMA, unit_of_column
from dlbench.suites.case import AXES
from dlbench.table import Cell, Column, Table
from dlbench.table_width import terminal_width

#: Elsewhere than on a terminal, lists of words break before lines get wider than this.
_LINE_WIDTH = 120
#: Settings of which 0 is no quantity, and what it means.
_MEANING_OF_ZERO = {
    **dict.fromkeys(("threads", "power_cap_w", "clock_mhz", "warmup_until_c"), "not set"),
    "cudnn_benchmark_limit": "all",
}
#: The quantiles that are shown for each list of samples.
_QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99}
_OUTCOME_COLUMNS = (
    *("attempt_id", "case_id", "suite", "suite_version", "label", "status", "error", "exit_code", "started_at"),
    *("finished_at", "wall_s", "system_key", "schema_version"),
)


def find_attempt(wanted: str, sources: Sequence[str | Path]) -> tuple[Path, str]:
    """The file that holds an attempt, and the attempt's full id, by this or a part that no other attempt's id has.

    Raises StoreError if a source does not exist, BadInput if no attempt is called so, or several are.
    """
    found: dict[str, Path] = {}
    for part in (part for source in sources for part in store.find_parts_with_warnings(source)):
        ids = set(store.read_part(part, ["attempt_id"])["attempt_id"].to_pylist())
        found |= {attempt: part for attempt in ids if wanted in attempt and attempt not in found}
    if wanted in found:
        return found[wanted], wanted
    if len(found) == 1:
        return next((part, attempt) for attempt, part in found.items())
    place = ", ".join(map(str, sources))
    if not found:
        where = "".join(f" --results {shlex.quote(str(source))}" for source in sources if str(source) != "results")
        raise BadInput(
            f"no record '{wanted}' in {place}; `dlbench query 'select attempt_id from records'{where}` lists all"
        )
    names = units.list_text(sorted(found), 5)
    raise BadInput(f"'{wanted}' matches {len(found)} records in {place}: {names}; give more characters of the id")


def show_record(wanted: str, sources: Sequence[str | Path], format: str = "text") -> str:
    """The record as text or JSON. Raises StoreError and BadInput as `find_attempt` does."""
    part, attempt = find_attempt(wanted, sources)
    record = describe_attempt(store.read_part(part), attempt, part)
    return dump_json(record) + "\n" if format == "json" else _record_text(record)


def describe_attempt(table: pa.Table, attempt: str, part: Path) -> dict[str, Any]:
    """All that the rows of one attempt tell, as JSON types: SI units, lists of samples summarised, nothing rounded."""
    table = table.filter(pc.equal(table["attempt_id"], attempt)).sort_by("rank")
    rows = table.to_pylist()
    cases = derived_metrics.add_metric_intervals(derived_metrics.attempts_from_rows(table.to_pandas()))
    case = cases.iloc[0].to_dict()
    first = rows[0]
    facts = [name for name in first if name.startswith("system_") and name not in ("system_key", "system_details")]
    system = {name.removeprefix("system_"): _to_json_type(first[name]) for name in facts}
    has_folder = (part.parent / tables.attempt_folder(attempt)).is_dir()
    return {
        **{name: _to_json_type(first[name]) for name in _OUTCOME_COLUMNS},
        "file": str(part),
        "folder": str(part.parent / tables.attempt_folder(attempt)) if has_folder else None,
        "command": tables.rerun_command(case, str(part.parent) if has_folder else ""),
        "case": {axis: first[axis] for axis in AXES},
        "protocol": json.loads(first["protocol"] or "{}"),
        "metrics": {name: _metric_value_and_interval(case, name) for name in METRICS if name in case},
        "ranks": [_summarize_rank(row) for row in rows],
        "system": {**system, "details": parse_system_details(first.get("system_details"))},
    }


def _metric_value_and_interval(case: dict[Any, Any], name: str) -> dict[str, Any]:
    values = {"value": name, "low": f"{name}_low", "high": f"{name}_high"}
    known = {key: float(case[column]) for key, column in values.items() if not pd.isna(case.get(column, np.nan))}
    level = {"confidence": float(case["confidence"])} if "low" in known else {}
    return {**known, **level, "unit": METRICS[name].unit} if known else {"value": None, "unit": METRICS[name].unit}


def _summarize_rank(row: dict[str, Any]) -> dict[str, Any]:
    """What one rank measured: its numbers, and of each list of numbers a summary."""
    found: dict[str, Any] = {}
    for field in SCHEMA:
        own = field.name not in (*_OUTCOME_COLUMNS, *AXES, "protocol") and not field.name.startswith("system_")
        if own and field.name in row:
            summary = _summarize_samples if field.type == pa.list_(pa.float64()) else _to_json_type
            found[field.name] = summary(row[field.name])
    return found


def _summarize_samples(samples: list[float | None] | None) -> dict[str, float | int] | None:
    values = np.array([v for v in samples or () if v is not None], dtype=np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return None
    spread = {"standard_deviation": float(values.std(ddof=1))} if values.size > 1 else {}
    shares = {name: float(np.quantile(values, share)) for name, share in _QUANTILES.items()}
    ends = {"min": float(values.min()), "max": float(values.max()), "mean": float(values.mean())}
    return {"count": int(values.size), **ends, **shares, **spread}


def _to_json_type(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _record_text(record: dict[str, Any]) -> str:
    """The record for the terminal: names with values, and tables; what is not known is left out."""
    head = {n: record[n] for n in (*_OUTCOME_COLUMNS, "file", "folder", "command")}
    parts = [
        _name_value_lines("", head),
        _name_value_lines("Case", record["case"]),
        _name_value_lines("Protocol", record["protocol"]),
    ]
    metrics = _metrics_table(record)
    parts += [table.text_table(metrics, terminal_width())] if metrics.rows else []
    several = len(record["ranks"]) > 1
    for rank in record["ranks"]:
        of = f" of rank {rank['rank']}" if several else ""
        samples = {n: v for n, v in rank.items() if isinstance(v, dict)}
        parts += [table.text_table(_sample_summary_table(f"Samples{of}", samples), terminal_width())] if samples else []
        parts.append(_name_value_lines(f"Measured{of}", {n: v for n, v in rank.items() if n not in samples}))
    parts.append(_name_value_lines("System", {n: v for n, v in record["system"].items() if n != "details"}))
    parts.append(_name_value_lines("Details of the system", record["system"]["details"]))
    return "\n".join(part for part in parts if part)


def _name_value_lines(title: str, values: dict[str, Any]) -> str:
    """Each value that is known behind its name, long ones over several lines: no table, for some are very long."""
    known = {name: value for name, value in values.items() if value not in (None, "", [], {})}
    width = max(map(len, known), default=0)
    lines = []
    for name, value in known.items():
        first, *more = _wrap_value_into_lines(name, value, (terminal_width() or _LINE_WIDTH) - width - 2)
        lines += [f"{name.ljust(width)}  {first}", *(" " * (width + 2) + line for line in more)]
    return "\n".join([title, "", *lines] if title and lines else lines) + ("\n" if lines else "")


def _wrap_value_into_lines(name: str, value: Any, width: int) -> list[str]:
    """A value as lines: a long list breaks between its items, a text where it does itself."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        text = ", ".join(_format_record_value(name, item) for item in value)
        return textwrap.wrap(text, max(40, width), break_long_words=False, break_on_hyphens=False)
    if isinstance(value, str):
        return [_format_record_value(name, line) for line in value.splitlines() if line.strip()] or [""]
    return [_format_record_value(name, value)]


def _metrics_table(record: dict[str, Any]) -> Table:
    found = {values["confidence"] for values in record["metrics"].values() if "confidence" in values}
    at = f" ({units.confidence_text(found.pop())})" if found else ""
    columns = [Column("metric", "Metric"), Column("value", "Value", "right"), Column("low", f"From{at}", "right")]
    columns += [Column("high", f"To{at}", "right"), Column("name", "Name")]
    rows: list[list[Cell]] = []
    for name, values in record["metrics"].items():
        if values["value"] is not None:
            numbers = [
                METRICS[name].format(values[key], 4) if key in values else "" for key in ("value", "low", "high")
            ]
            rows.append([METRICS[name].title, *numbers, name])
    return Table(columns, rows, "Metrics")


def _sample_summary_table(title: str, samples: dict[str, dict[str, float]]) -> Table:
    names = ("count", "min", "p5", "median", "p95", "p99", "max")
    columns = [Column("name", "Name"), *(Column(name, name, "right") for name in names)]
    rows: list[list[Cell]] = [
        [name, *(str(v["count"]) if key == "count" else _format_record_value(name, v[key]) for key in names)]
        for name, v in samples.items()
    ]
    return Table(columns, rows, title)


def _format_record_value(name: str, value: Any) -> str:
    """A value with its unit, on one line and without what a terminal might obey."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == 0 and name in _MEANING_OF_ZERO:
        return _MEANING_OF_ZERO[name]
    if isinstance(value, int | float):
        unit = unit_of_column(name)
        known = {"s": units.seconds_text, "B": units.bytes_text}
        return known[unit](value) if unit in known else f"{table.default_cell_text(value)} {unit}".strip()
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else " " for c in text)
