"""Progress output of a campaign on stderr: one line per case; on a terminal also a live line.

A log gets each line in full. A terminal gets what is the same in every case once, before the first line, and no line
wider than it is.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from dlbench import messages, stats, units
from dlbench.results.case_figures import case_figures
from dlbench.results.records import DONE_STATUSES, Record
from dlbench.suites.case import USUAL_CONFIDENCE, Case, describe_axis
from dlbench.table_width import join_wrapped, terminal_width

#: Axes that are added to a line where they differ from their default.
_SHOWN_AXES = (
    *("memory_format", "compile", "cuda_graph", "optimizer", "optimizer_impl", "data", "loader", "loader_workers"),
    *("prefetch", "cudnn_benchmark_limit", "fold_batch_norm", "freeze", "flush_denormals", "threads"),
    *("power_cap_w", "clock_mhz"),
)
#: What the ± of a run covers.
_SCOPE = "within one run"
#: Of the further lines of a case on a narrow terminal.
_INDENT = 6
_PERCENTAGE = re.compile(r"([+-]?\d+(?:\.\d+)?) ?%")


@dataclass
class Progress:
    """Progress of a campaign: counts cases and prints a line for each."""

    total: int
    cases: Sequence[Case] = ()  # all that will be measured; none if that is not known yet
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    number: int = 0
    _bar: LiveBar | None = None
    _shared: dict[str, str] = field(default_factory=dict)  # columns that were printed once for all cases
    _started: bool = False
    _num_measured: int = 0
    _no_interval: Counter[str] = field(default_factory=Counter)  # runs by the reason

    def __post_init__(self) -> None:
        self._model_width = max((len(case.model) for case in self.cases), default=0)

    def _finished_line_parts(self, record: Record) -> list[str]:
        """The line of a finished case: setting, status, and its main figures."""
        # A preempted case is not done and may run again.
        head = self._case_line_start(self.number + (record.status == "preempted"), Case.from_dict(record.case))
        is_done = record.status in DONE_STATUSES
        figures = _main_result_texts(record, self._shared) if is_done else (record.error or "").splitlines()[:1]
        return [*head, f"{record.status:<8}", *figures]

    def _case_line_start(self, number: int, case: Case) -> list[str]:
        first, *more = _case_setting_texts(case, self._shared, self._model_width)
        return [f"[{number:>{len(str(self.total))}}/{self.total}] {first}", *more]

    def print_finished_case(self, record: Record) -> None:
        """Print the line of a finished case; with `-q` only of a failed one."""
        self.number += record.status != "preempted"
        if record.status in DONE_STATUSES:
            self._num_measured += 1
            self._no_interval.update(_why_no_interval(record))
        if messages.is_quiet() and record.status in DONE_STATUSES:
            return
        self._print_common_settings({"scope": _SCOPE})
        self._print_wrapped(self._finished_line_parts(record))

    def print_case_summary(self, case: Case, figures: Sequence[str]) -> None:
        """Print the figures over several processes of a case, below the lines of all cases."""
        if not messages.is_quiet():
            self._print_common_settings({})
            self._print_wrapped([*_case_setting_texts(case, self._shared, self._model_width), *figures])

    def describe_missing_intervals(self) -> list[str]:
        """Explain each "no ±" of the lines."""
        runs = units.count_text(self._num_measured, "process")
        none = "no confidence interval (±) in"
        return [f"{none} {count} of {runs}: {reason}" for reason, count in self._no_interval.items()]

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def show_running_case(self, case: Case, elapsed_s: float, phase: str) -> None:
        """Show the running case on a terminal, with bar, elapsed and remaining time; print nothing elsewhere."""
        if not self._shows_live_bar:
            return
        self._print_common_settings({"scope": _SCOPE})
        state = f"{phase or 'start'} {elapsed_s:.0f} s"
        if self._bar is None and importlib.util.find_spec("rich"):
            self._bar = LiveBar(self.stream, self.number)
        if self._bar:
            setting = " ".join(" ".join(_case_setting_texts(case, self._shared)).split())
            self._bar.redraw(self.number, self.total, f"{state}: {setting}")  # the end may have no room
            return
        line = "  ".join([*self._case_line_start(self.number + 1, case), state])
        self._write_to_stderr(line[: (terminal_width(self.stream) or 80) - 1])

    def _print_common_settings(self, more: Mapping[str, str]) -> None:
        """Before the first line on a terminal: print what the lines then leave out, the setting of all cases first."""
        if self._started or messages.is_quiet() or terminal_width(self.stream) is None:
            return
        self._started = True
        columns = [_setting_columns(case) for case in self.cases]
        first = columns[0] if columns else {}
        shared = {name: text for name, text in first.items() if all(one.get(name) == text for one in columns)}
        if shared:
            words = ", ".join(" ".join(text.split()) for text in shared.values())
            self._print_wrapped([f"all cases: {words}{''.join(f'; ± {text}' for text in more.values())}"])
            self._shared = {**shared, **more}

    @property
    def _shows_live_bar(self) -> bool:
        return not messages.is_quiet() and self.stream.isatty() and os.environ.get("TERM") != "dumb"

    def _print_wrapped(self, parts: Sequence[str]) -> None:
        """Print a line, on a terminal over several where it is narrow."""
        width = terminal_width(self.stream)
        lines = ["  ".join(parts).rstrip()] if width is None else join_wrapped(parts, width, _INDENT)
        for line in lines:
            if self._bar:
                self._bar.print_above(line)
            else:
                self._write_to_stderr(f"{line}\n")

    def _write_to_stderr(self, text: str) -> None:
        """Write to stderr; ignore a closed stderr (`2>&1 | head`), so that measuring goes on."""
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(("\r\x1b[2K" if self._shows_live_bar else "") + text)
            self.stream.flush()


class LiveBar:
    """The last line of the terminal: bar, cases done, elapsed and remaining time, and the running case."""

    def __init__(self, stream: TextIO, done: int) -> None:
        from rich import progress
        from rich.console import Console
        from rich.table import Column

        # No refresh by itself: a thread that wakes would disturb the measurement.
        self._progress = progress.Progress(
            progress.BarColumn(10),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            progress.TextColumn(
                "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
            ),
            console=Console(file=stream),
            auto_refresh=False,
            transient=True,
            expand=True,
            speed_estimate_period=math.inf,
        )
        self._task = self._progress.add_task("", completed=done)
        self._progress.start()

    def redraw(self, done: int, total: int, words: str) -> None:
        """Draw the line anew."""
        self._progress.update(self._task, completed=done, total=total, description=words, refresh=True)

    def print_above(self, line: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Take the line away."""
        self._progress.stop()


def _case_setting_texts(case: Case, shared: Mapping[str, str], model_width: int = 0) -> list[str]:
    """Describe a case: ``resnet50  training   fp32      32 x 1 CPU``; axes with their usual value are omitted."""
    parts = [text for name, text in _setting_columns(case).items() if shared.get(name) != text]
    parts += [f"process {case.repeat + 1}"] if case.repeat else []
    return [f"{case.model:<{model_width}}", f"{case.mode:<9}", *parts]


def _setting_columns(case: Case) -> dict[str, str]:
    """What a line says of the setting besides network and mode, by axis."""
    devices = f"{case.world_size} {'CPU' if case.device == 'cpu' else 'GPU'}"
    extra = {axis: text for axis in _SHOWN_AXES if (text := describe_axis(axis, getattr(case, axis)))}
    return {"precision": f"{case.precision:<8}", "batch_size": f"{case.batch_size:>5} x {devices}", **extra}


def _short_warning(warning: str) -> str:
    """Shorten a warning to its code and percentage, if it has one: ``busy_host 63 %``."""
    code, _, words = warning.partition(":")
    share = _PERCENTAGE.search(words)
    return f"{code} {share[1]} %" if share else code


def _main_result_texts(record: Record, shared: Mapping[str, str]) -> list[str]:
    found = case_figures(record)
    if found is None:
        return ["no samples"]
    # The usual level of 95 % is not printed.
    confidence = Case.from_dict(record.case).protocol.confidence
    level = "" if confidence == USUAL_CONFIDENCE else f" at {units.confidence_text(confidence)}"
    spread = units.plus_minus_text(None)
    if interval := found.interval:
        # The ends of the throughput, which stands before it.
        ends = interval.value / interval.high, interval.value / interval.low
        spread = units.plus_minus_text(interval.relative_half_width, ends)
    # A single process does not show the spread between processes.
    scope = "" if "scope" in shared else f" {_SCOPE}"
    unit = found.sample_unit
    words = [f"{units.rate_text(found.throughput, f'{unit}/s'):>12} {spread + level:<7}{scope}"]
    if unit == "seq":
        words.append(f"{units.rate_text(found.throughput * found.items_per_sample, 'tok/s'):>12}")
    if found.energy_per_image_j is not None:
        words.append(f"{units.quantity_text(found.energy_per_image_j, f'J/{unit}'):>12}")
    if found.flop_per_s:
        # Uncounted operations can only increase it.
        least = "≥ " if found.flop_partial else ""
        words.append(f"{least + units.quantity_text(found.flop_per_s, 'FLOP/s'):>13}")
        words += [f"{units.percent_text(found.share_of_peak)} of peak"] if found.share_of_peak is not None else []
    warnings = dict.fromkeys(_short_warning(warning) for _, measured in record.ranks for warning in measured.warnings)
    if warnings:
        words.append(f"({', '.join(warnings)})")
    return words


def _why_no_interval(record: Record) -> list[str]:
    """Return why the median step of a record has no interval; nothing if it has one, or if there is no step."""
    found = case_figures(record)
    if found is None or found.interval is not None:
        return []
    return [stats.reason_without_interval(len(found.step_s), Case.from_dict(record.case).protocol.confidence)]
