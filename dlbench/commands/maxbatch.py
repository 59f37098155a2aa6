"""`dlbench maxbatch`: find the largest batch that fits into memory."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.commands.arguments import (
    add_command,
    add_format_option,
    add_model_argument,
    add_override_option,
    make_number_parser,
)
from dlbench.exit_codes import INTERRUPTED, OK, SOME_FAILED
from dlbench.launch.max_batch import (
    BatchTrial,
    TrialRunner,
    effective_memory_limit,
    find_largest_batch,
    parse_case_without_batch,
)
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.suites.case import Case

_BYTE_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BYTE_UNITS |= {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
#: Larger than any address space: a larger value is a typing error.
_MAX_BYTES = 2**60


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "maxbatch", _run_maxbatch_command, "resnet50 -P precision=amp_bf16")
    add_model_argument(parser)
    add_override_option(parser, "set an axis (-P mode=inference -P precision=amp_bf16); repeatable")
    parser.add_argument("--memory", type=_parse_bytes, metavar="SIZE",
                        help="CPU only: memory limit of the process, such as 2GiB (default: free memory)")  # fmt: skip
    parser.add_argument("--within", default=1.0, metavar="PERCENT",
                        type=make_number_parser("a percentage from 0 to below 100", lambda value: 0 <= value < 100,
                                           suffix="%"),
                        help="accuracy of the largest batch found, in percent (default: 1)")  # fmt: skip
    parser.add_argument(
        "--timeout",
        type=make_number_parser("a time above 0 s", lambda value: 0 < value < 1e9),
        default=600.0,
        metavar="SECONDS",
        help="time limit per tested batch size (default: 600)",
    )
    add_format_option(parser)


def _run_maxbatch_command(options: argparse.Namespace) -> int:
    from dlbench.errors import BadInput
    from dlbench.free_memory import available_bytes
    from dlbench.launch import probe, processes
    from dlbench.units import bytes_text

    parse_case_without_batch(
        options.model, options.overrides, "auto"
    )  # report wrong values before the slow device probe
    found = probe.probe_machine([options.model])
    case = parse_case_without_batch(options.model, options.overrides, found.device_kind)
    probe.require_devices([case], found)
    if case.device == "cuda" and options.memory is not None:
        raise BadInput("--memory applies to the CPU only; omit it on a GPU, where the limit is the GPU's memory")
    if case.device == "cuda":
        limit_bytes, where = int(found.facts["devices"][0]["memory_bytes"]), found.description
    else:
        limit_bytes = effective_memory_limit(available_bytes() if options.memory is None else options.memory)
        where = found.facts["cpu_model"] or "the CPU"
    say(f"{case.model} {case.mode} {case.precision} on {where}: memory limit {bytes_text(limit_bytes)}")
    with tempfile.TemporaryDirectory(prefix="dlbench-maxbatch-") as folder:
        runs = TrialRunner(case, Path(folder), limit_bytes, options.timeout)
        try:
            line = runs.predict_memory_by_batch()
            trials = find_largest_batch(
                lambda batch: runs.run_trial(batch, line), line, runs.room_bytes, options.within / 100
            )
        except processes.StoppedBySignal as stop:
            fitting = [trial.batch_size for trial in runs.done if trial.fits]
            say(f"stopped by {stop.signal_name}; largest batch that fitted so far: {max(fitting, default='none')}")
            return INTERRUPTED
    _print_trials(case, trials, limit_bytes, options.format)
    return OK if any(t.fits for t in trials) else SOME_FAILED


def _print_trials(case: Case, trials: list[BatchTrial], limit_bytes: int, form: str) -> None:
    from dlbench.table import Cell, Column, Table, bytes_text, render

    largest = max((t for t in trials if t.fits), key=lambda t: t.batch_size, default=None)
    failing = min((t for t in trials if not t.fits), key=lambda t: t.batch_size, default=None)
    if form == "json":
        axes = {name: value for name, value in case.to_dict().items() if name not in ("batch_size", "protocol")}
        values = {
            "case": axes,
            "limit_bytes": limit_bytes,
            "largest_batch": largest.batch_size if largest else None,
            "smallest_failing_batch": failing.batch_size if failing else None,
            "trials": [asdict(t) for t in trials],
        }
        print(json.dumps(values, indent=1))
        return
    columns = [
        Column("batch_size", "batch"),
        Column("fits"),
        Column("predicted_bytes", "predicted", "right", bytes_text),
        Column("allocated_peak_bytes", "allocated", "right", bytes_text),
        Column("rss_peak_bytes", "resident", "right", bytes_text),
        Column("seconds", "time [s]"),
        Column("reason", "", "left"),
    ]
    # Each trial was printed when it ended; the table for people holds the two that decide, its title the reason.
    deciding = trials if form == "csv" else [t for t in (largest, failing) if t]
    if form != "csv":
        limited = "rss_peak_bytes" if case.device == "cpu" else "allocated_peak_bytes"
        columns = [c for c in columns if c.key in ("batch_size", "fits", "predicted_bytes", limited, "seconds")]
    rows: list[list[Cell]] = [[getattr(t, c.key) for c in columns] for t in deciding]
    title = f"{case.model}, {case.mode}, {case.precision}: {_largest_batch_text(largest, failing, limit_bytes)}"
    print(render(Table(columns, rows, title), form), end="")


def _largest_batch_text(largest: BatchTrial | None, failing: BatchTrial | None, limit_bytes: int) -> str:
    """Say which batch fits, how much memory it uses, and what limits it."""
    from dlbench.units import bytes_text

    limit = f"batch {failing.batch_size} {failing.does_not_fit_text}" if failing else "larger batches were not tried"
    if largest is None:
        return f"no batch fits into {bytes_text(limit_bytes)}; {limit}"
    used = largest.allocated_peak_bytes or largest.rss_peak_bytes
    memory = f", which uses {bytes_text(used)} of {bytes_text(limit_bytes)}" if used else ""
    return f"the largest batch that fits is {largest.batch_size}{memory}; {limit}"


def _parse_bytes(text: str) -> int:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?i?)b?", text.strip().lower())
    size = float(match.group(1)) * _BYTE_UNITS.get(match.group(2), 0) if match else 0.0
    if not 1 <= size < _MAX_BYTES:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size; use for example 2GiB or 500MB")
    return int(size)
