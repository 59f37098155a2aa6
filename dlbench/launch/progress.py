"""Progress output of a campaign: one line per case on stderr, and a live line on a terminal."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import re
import shutil
import sys
from dataclasses import dataclass, field
from typing import TextIO

from dlbench import messages, units
from dlbench.results.case_figures import case_figures
from dlbench.results.records import DONE_STATUSES, Record
from dlbench.suites.case import USUAL_CONFIDENCE, Case, describe_axis

#: Axes that are added to a line where they differ from their default.
_SHOWN_AXES = (
    *("memory_format", "compile", "cuda_graph", "optimizer", "optimizer_impl", "data", "loader", "loader_workers"),
    *("prefetch", "cudnn_benchmark_limit", "fold_batch_norm", "freeze", "flush_denormals", "threads"),
    *("power_cap_w", "clock_mhz"),
)
_PERCENTAGE = re.compile(r"([+-]?\d+(?:\.\d+)?) ?%")


@dataclass
class Progress:
    """Progress of a campaign: counts cases and prints a line for each."""

    total: int
    model_width: int = 12
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    number: int = 0
    _bar: LiveBar | None = None

    def case_line(self, record: Record) -> str:
        """Format the line of a finished case: setting, status, and its main figures."""
        case = Case.from_dict(record.case)
        # A preempted case is not done and may run again.
        number = self.number + (record.status == "preempted")
        head = f"[{number:>{len(str(self.total))}}/{self.total}] {setting_text(case, self.model_width)}"
        figures = (
            _figure_texts(case, record) if record.status in DONE_STATUSES else (record.error or "").splitlines()[:1]
        )
        return f"{head}  {record.status:<8}  {'  '.join(figures)}".rstrip()

    def print_finished(self, record: Record) -> None:
        """Print the line of a finished case; with `-q` only of a failed one."""
        self.number += record.status != "preempted"
        if messages.is_quiet() and record.status in DONE_STATUSES:
            return
        if self._bar:
            self._bar.print(self.case_line(record))
        else:
            self._write(f"{self.case_line(record)}\n")

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def tick(self, case: Case, elapsed_s: float, phase: str) -> None:
        """Show the running case on a terminal, with bar, elapsed and remaining time; print nothing elsewhere."""
        if not self._is_live:
            return
        if self._bar is None and importlib.util.find_spec("rich"):
            self._bar = LiveBar(self.stream, self.number)
        if self._bar:
            self._bar.update(self.number, self.total, f"{setting_text(case)}  {phase or 'start'} {elapsed_s:.0f} s")
            return
        head = f"[{self.number + 1:>{len(str(self.total))}}/{self.total}] {setting_text(case, self.model_width)}"
        line = f"{head}  {phase or 'start'} {elapsed_s:.0f} s"
        self._write(line[: shutil.get_terminal_size().columns - 1])

    @property
    def _is_live(self) -> bool:
        return not messages.is_quiet() and self.stream.isatty() and os.environ.get("TERM") != "dumb"

    def _write(self, text: str) -> None:
        """Write to stderr; ignore a closed stderr (`2>&1 | head`), so that measuring goes on."""
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(("\r\x1b[2K" if self._is_live else "") + text)
            self.stream.flush()


class LiveBar:
    """The last line of the terminal: bar, cases done, elapsed and remaining time, and the running case."""

    def __init__(self, stream: TextIO, done: int) -> None:
        from rich import progress
        from rich.console import Console
        from rich.table import Column

        # No refresh by itself: a thread that wakes would disturb the measurement.
        self._progress = progress.Progress(
            progress.BarColumn(16),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold")),
            console=Console(file=stream),
            auto_refresh=False,
            transient=True,
            speed_estimate_period=math.inf,
        )
        self._task = self._progress.add_task("", completed=done)
        self._progress.start()

    def update(self, done: int, total: int, words: str) -> None:
        """Draw the line anew."""
        self._progress.update(self._task, completed=done, total=total, description=words, refresh=True)

    def print(self, line: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Take the line away."""
        self._progress.stop()


def setting_text(case: Case, model_width: int = 0) -> str:
    """Describe a case: ``resnet50  training   fp32      32 x 1 CPU``; axes with their usual value are omitted."""
    devices = f"{case.world_size} {'CPU' if case.device == 'cpu' else 'GPU'}"
    extra = [text for axis in _SHOWN_AXES if (text := describe_axis(axis, getattr(case, axis)))]
    extra += [f"process {case.repeat + 1}"] if case.repeat else []
    words = f"{case.model:<{model_width}}  {case.mode:<9}  {case.precision:<8}  {case.batch_size:>5} x {devices}"
    return "  ".join([words, *extra])


def _short_warning(warning: str) -> str:
    """Shorten a warning to its code and percentage, if it has one: ``busy_host 63 %``."""
    code, _, words = warning.partition(":")
    share = _PERCENTAGE.search(words)
    return f"{code} {share[1]} %" if share else code


def _figure_texts(case: Case, record: Record) -> list[str]:
    found = case_figures(record)
    if found is None:
        return ["no samples"]
    # The usual level of 95 % is not printed.
    level = (
        "" if case.protocol.confidence == USUAL_CONFIDENCE else f" at {units.confidence_text(case.protocol.confidence)}"
    )
    spread = units.half_width(None)
    if interval := found.interval:
        # The ends of the throughput, which stands before it.
        ends = interval.value / interval.high, interval.value / interval.low
        spread = units.half_width(interval.relative_half_width, ends)
    # A single process does not show the spread between processes.
    unit = found.sample_unit
    words = [f"{units.rate(found.throughput, f'{unit}/s'):>12} {spread + level:<7} within one run"]
    if unit == "seq":
        words.append(f"{units.rate(found.throughput * found.items_per_sample, 'tok/s'):>12}")
    if found.energy_per_image_j is not None:
        words.append(f"{units.quantity(found.energy_per_image_j, f'J/{unit}'):>12}")
    if found.flop_per_s:
        share = f"  {units.percent(found.share_of_peak)} of peak" if found.share_of_peak is not None else ""
        # Uncounted operations can only increase it.
        least = "≥ " if found.flop_partial else ""
        words.append(f"{least + units.quantity(found.flop_per_s, 'FLOP/s'):>13}{share}")
    warnings = dict.fromkeys(_short_warning(warning) for _, measured in record.ranks for warning in measured.warnings)
    if warnings:
        words.append(f"({', '.join(warnings)})")
    return words
