"""Results in the formats of tools that sites already run: Bencher, Prometheus, JUnit, MLPerf's log, JUBE.

Each case of a system is one entry: the geometric mean over its fresh processes, with the interval that a rerun confirms
where three or more ran (`dlbench.process_statistics`), else with that within one run.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import pandas as pd

from dlbench.json_text import dump_json
from dlbench.report.analysis.acceptance import SELECTORS
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import MAIN_AXES
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.side_by_side import MetricEstimate, estimate_metric
from dlbench.results.records import DONE_STATUSES
from dlbench.suites.case import AXES
from dlbench.version import __version__

#: What is given away, and under which name with its unit.
_METRIC_NAMES = {
    "throughput": "throughput_img_per_s",
    "step_time": "step_time_s",
    "energy_per_image": "energy_per_image_j",
    "average_power": "average_power_w",
    "mfu": "model_flop_utilization",
    "memory_allocated": "memory_allocated_peak_bytes",
}


@dataclass(frozen=True)
class CaseEntry:
    """One case on one system."""

    labels: Mapping[str, str]  # the axes that tell it from the others, and its system
    selectors: Mapping[str, str]  # all that a case of an acceptance file may name
    figures: Mapping[str, MetricEstimate]  # by the names of `_METRIC_NAMES`
    status: str  # of its latest attempt
    error: str
    started_at: pd.Timestamp  # of its latest attempt
    wall_s: float
    batch_size: int  # over all devices

    @property
    def name(self) -> str:
        """`resnet50/training/fp32/32 @ system`."""
        axes = [value for key, value in self.labels.items() if key != "system"]
        return f"{'/'.join(axes)} @ {self.labels['system']}"


def case_entries(content: Content) -> list[CaseEntry]:
    """One entry for each case of each system, in the order of their first attempts."""
    attempts = content.attempts
    if attempts.empty:
        return []
    varying = [axis for axis in AXES if axis != "repeat" and attempts[axis].nunique(dropna=False) > 1]
    axes = [axis for axis in AXES if axis in (*MAIN_AXES, *varying) and axis != "repeat"]
    # The other axes would only take time: a million rows are grouped.
    groups = attempts.groupby(["system_id", *varying], sort=False, dropna=False)
    return [_case_entry(own, axes, content) for _, own in groups]


def _case_entry(own: pd.DataFrame, axes: list[str], content: Content) -> CaseEntry:
    latest = own.iloc[-1]
    # Only the columns of figures, since the rows of each metric are copied.
    figures = [n for m in _METRIC_NAMES for n in (m, f"{m}_low", f"{m}_high") if n in own]
    done = own.loc[own["status"].isin(DONE_STATUSES), figures]
    known = {name: done[done[name].gt(0)] for name in _METRIC_NAMES}
    found = {_METRIC_NAMES[name]: estimate_metric(rows, name) for name, rows in known.items() if len(rows)}
    system = content.system_names.get(str(latest["system_id"]), "unknown")
    error = latest["error"]
    return CaseEntry(
        labels={axis: str(latest[axis]) for axis in axes} | {"system": system},
        selectors={name: str(latest[name]) for name in SELECTORS if name != "repeat" and pd.notna(latest[name])},
        figures=found,
        status=str(latest["status"]),
        error="" if pd.isna(error) else str(error),
        started_at=latest["started_at"],
        wall_s=float(latest["wall_s"]) if "wall_s" in own and pd.notna(latest["wall_s"]) else 0.0,
        batch_size=int(latest["batch_size"] * latest["nodes"] * latest["devices_per_node"]),
    )


def format_bencher(content: Content) -> Iterator[str]:
    """Bencher Metric Format: a value with lower and upper value for each case and metric (bencher.dev)."""
    found: dict[str, Any] = {}
    for entry in case_entries(content):
        measures = {name: _bencher_value(figure) for name, figure in entry.figures.items()}
        if measures:
            found[entry.name] = measures
    yield dump_json(found) + "\n"


def _bencher_value(figure: MetricEstimate) -> dict[str, float]:
    limits = {"lower_value": figure.low, "upper_value": figure.high}
    return {"value": figure.value} | {name: value for name, value in limits.items() if value is not None}


def format_prometheus(content: Content) -> Iterator[str]:
    """Prometheus' text format, for node_exporter's textfile collector: it takes no time stamps."""
    found = case_entries(content)
    for metric, title in _METRIC_NAMES.items():
        lines = [
            f"dlbench_{title}{_prometheus_labels({**entry.labels, **bound})} {value!r}\n"
            for entry in found
            if (figure := entry.figures.get(title))
            for bound, value in (({}, figure.value), ({"bound": "low"}, figure.low), ({"bound": "high"}, figure.high))
            if value is not None
        ]
        if lines:
            words = " ".join(METRICS[metric].description.split()).replace("\\", "\\\\")
            yield f"# HELP dlbench_{title} {words}\n# TYPE dlbench_{title} gauge\n"
            yield from lines
    if found:
        yield "# HELP dlbench_ok Whether the latest attempt was measured (1) or failed (0).\n# TYPE dlbench_ok gauge\n"
        yield from (f"dlbench_ok{_prometheus_labels(e.labels)} {int(e.status in DONE_STATUSES)}\n" for e in found)
        yield "# HELP dlbench_started_seconds Start of the latest attempt.\n# TYPE dlbench_started_seconds gauge\n"
        yield from (
            f"dlbench_started_seconds{_prometheus_labels(e.labels)} {e.started_at.timestamp()!r}\n" for e in found
        )


def _prometheus_labels(labels: Mapping[str, str]) -> str:
    def escape_label_value(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escape_label_value(value)}"' for name, value in labels.items()) + "}"


def format_junit(content: Content) -> Iterator[str]:
    """JUnit's XML: a test per case, failed where its latest attempt was not measured."""
    found = case_entries(content)
    failed = sum(entry.status not in DONE_STATUSES for entry in found)
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    yield f'<testsuite name="dlbench" tests="{len(found)}" failures="{failed}" errors="0" skipped="0">\n'
    for entry in found:
        suite, name = quoteattr(_xml_safe(f"dlbench.{entry.labels['model']}")), quoteattr(_xml_safe(entry.name))
        yield f'  <testcase classname={suite} name={name} time="{entry.wall_s:.3f}">\n'
        if entry.status not in DONE_STATUSES:
            yield f"    <failure type={quoteattr(entry.status)} message={quoteattr(_xml_safe(entry.error[:200]))}/>\n"
        figures = "\n".join(f"{title} {figure.value!r}" for title, figure in entry.figures.items())
        yield f"    <system-out>{escape(_xml_safe(figures))}</system-out>\n  </testcase>\n"
    yield "</testsuite>\n"


def _xml_safe(text: str) -> str:
    """The text without characters that XML cannot hold."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


def format_mllog(content: Content) -> Iterator[str]:
    """MLPerf's log lines (:::MLLOG), an event each: throughput and energy, for nothing is trained to a quality."""
    for entry in case_entries(content):
        begin_ms = int(entry.started_at.timestamp() * 1000)
        end_ms = begin_ms + int(entry.wall_s * 1000)
        metadata = {"case": entry.name}
        yield _mllog_line(begin_ms, "POINT_IN_TIME", "submission_benchmark", entry.labels["model"], metadata)
        yield _mllog_line(begin_ms, "POINT_IN_TIME", "submission_platform", entry.labels["system"], metadata)
        yield _mllog_line(begin_ms, "POINT_IN_TIME", "global_batch_size", entry.batch_size, metadata)
        yield _mllog_line(begin_ms, "INTERVAL_START", "run_start", None, metadata)
        stats = {title: figure.value for title, figure in entry.figures.items()}
        if stats:
            yield _mllog_line(end_ms, "POINT_IN_TIME", "tracked_stats", stats, metadata)
        status = "success" if entry.status in DONE_STATUSES else "aborted"
        yield _mllog_line(end_ms, "INTERVAL_END", "run_stop", None, metadata | {"status": status})


def _mllog_line(time_ms: int, kind: str, key: str, value: Any, metadata: Mapping[str, Any]) -> str:
    where = {"file": f"dlbench {__version__}", "lineno": 0}
    event = {"namespace": "dlbench", "time_ms": time_ms, "event_type": kind, "key": key, "value": value}
    return f":::MLLOG {json.dumps(event | {'metadata': {**metadata, **where}}, allow_nan=False)}\n"


def format_jube(content: Content) -> Iterator[str]:
    """A line per case that the pattern set of benchmarks/integrations/jube reads."""
    for entry in case_entries(content):
        known = {name: value for name, value in {**entry.labels, **entry.selectors}.items() if value}
        axes = " ".join(f"{name}={'_'.join(value.split())}" for name, value in known.items())
        values = {
            f"{title}{end}": value
            for title, figure in entry.figures.items()
            for end, value in (("", figure.value), ("_low", figure.low), ("_high", figure.high))
            if value is not None
        }
        figures = " ".join(f"{title}={value!r}" for title, value in values.items())
        yield f"dlbench: status={entry.status} {axes} {figures}".rstrip() + "\n"
