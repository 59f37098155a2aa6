"""A worker process that measures no case of a suite (ceilings, profiles), under the same discipline as those that do:
a process of its own, in a session of its own, that ends with us, at a time limit, and with all its children."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlbench.atomic_file import write_atomically
from dlbench.errors import BadInput, DeviceUnavailable, InvalidMeasurement, StoreError
from dlbench.launch.processes import end, how_it_ended, last_words, phase_of, start, stopping_on_signals
from dlbench.results.records import load_json


class JobFailed(InvalidMeasurement):
    """The worker ended without a result: it ran out of memory or time, or crashed."""


def run(
    module: str,
    folder: Path,
    request: dict[str, Any],
    timeout_s: float,
    on_tick: Callable[[float, str], None] = lambda elapsed_s, phase: None,
) -> str:
    """Run `python -m MODULE FOLDER` and give the text of its result.json.

    Args:
        folder: is made; keeps request.json, stdout.txt, stderr.txt and what the worker writes.
        on_tick: called about once a second with the seconds so far and the worker's phase.

    Raises:
        BadInput, DeviceUnavailable: the worker could not begin, for that reason.
        ErrandFailed: it began and brought nothing back.
        StoreError: the folder cannot be written.
        Stopped: a signal asked for the end.
    """
    try:
        folder.mkdir(parents=True)
        write_atomically(folder / "request.json", json.dumps(request, indent=1))
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror or error}; choose another with --results") from None
    with stopping_on_signals():
        process = start([sys.executable, "-m", module, str(folder)], folder, {})
        waiter = threading.Thread(target=process.wait, daemon=True)
        waiter.start()
        began, timed_out = time.monotonic(), False
        try:
            while waiter.is_alive() and not timed_out:
                waiter.join(timeout=1.0)
                on_tick(time.monotonic() - began, phase_of(folder))
                timed_out = waiter.is_alive() and time.monotonic() - began > timeout_s
        finally:
            end(process)
    if (folder / "result.json").exists():  # written by rename: whole, whatever became of the process afterwards
        return (folder / "result.json").read_text(encoding="utf-8")
    if timed_out:
        raise JobFailed(f"no end within {timeout_s:.0f} s, in phase '{phase_of(folder)}'; see {folder}")
    raise _reason(folder, process.returncode)


def _reason(folder: Path, exit_code: int) -> Exception:
    try:
        values = load_json((folder / "error.json").read_text(encoding="utf-8"))
        status, text = str(values["status"]), str(values["text"])
    except (OSError, ValueError, KeyError, TypeError):
        return JobFailed(f"{how_it_ended(exit_code)} in phase '{phase_of(folder)}'; {last_words(folder)}")
    if status == "bad_input":
        return BadInput(text)
    return DeviceUnavailable(text) if status == "no_device" else JobFailed(f"{status}: {text}; see {folder}")
