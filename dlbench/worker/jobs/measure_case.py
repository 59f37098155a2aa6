"""Measurement of the case of a request, as its only or one of its ranks; writes its outcome to result.json.

Exit status: 0 if the outcome is ok or unstable, `NOT_DONE` for any other outcome, `BAD_INPUT` without outcome
(unreadable case). stderr carries "phase: NAME" lines and, of an unexpected error, its traceback. On SIGTERM and
SIGUSR1, which a scheduler sends before the time limit or a preemption, the outcome is `preempted`.
"""

import contextlib
import dataclasses
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from dlbench.atomic_file import sync_folder, write_atomically
from dlbench.errors import DlbenchError
from dlbench.exit_codes import BAD_INPUT, NOT_DONE, OK
from dlbench.results.records import DONE_STATUSES, Outcome
from dlbench.suites import worker_request as requests
from dlbench.suites.case import Case
from dlbench.worker.fork_check import exit_if_forked
from dlbench.worker.imports import import_modules, total_import_s
from dlbench.worker.progress import current_phase, enter_phase
from dlbench.worker.ranks.context import DetectedRank, RankContext, detect_rank


def handle_request(request: dict[str, Any], folder: Path) -> int:
    """Measure the case of the request; return the exit status."""
    try:
        case = requests.requested_case(request)
    except DlbenchError as error:
        print(f"{folder}: {error}", file=sys.stderr)
        return BAD_INPUT
    try:
        found = detect_rank(os.environ, case.world_size)
    except DlbenchError as error:
        print(error, file=sys.stderr, flush=True)
        write_outcome(folder, Outcome("crashed", str(error)))
        return NOT_DONE
    if case.is_distributed:
        return _measure_as_rank(case, folder, found)
    _install_signal_handlers(folder)
    facts = request.get("facts")
    outcome = _measure_outcome(case, RankContext(), facts if isinstance(facts, dict) else None)
    _ignore_signals()
    write_outcome(folder, outcome)
    return OK if outcome.status in DONE_STATUSES else NOT_DONE


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Writes result.json whole or not at all, and so that it outlasts a crash of the node."""
    exit_if_forked()
    write_atomically(folder / "result.json", outcome.to_json())
    sync_folder(folder)


def _measure_outcome(case: Case, context: RankContext, facts: dict[str, Any] | None) -> Outcome:
    """The outcome of `case`, whatever happens to it."""
    enter_phase("import")
    import_modules("dlbench.worker.failures", "dlbench.worker.measure")
    from dlbench.worker.failures import report_failure
    from dlbench.worker.measure import describe_failed_rank, measure

    try:
        return measure(case, context, total_import_s(), facts)
    except (Exception, SystemExit) as error:  # a network may call sys.exit
        outcome = Outcome(*report_failure(error))
        with contextlib.suppress(Exception):  # for example with a lost device
            return dataclasses.replace(outcome, ranks=describe_failed_rank(case, context))
        return outcome


def _measure_as_rank(case: Case, folder: Path, found: DetectedRank) -> int:
    """Measure a case as one of its ranks; rank 0 writes the outcome. Return the exit status."""
    import_modules("dlbench.worker.measure", "dlbench.worker.ranks.process_group")
    from dlbench.worker.measure import measure
    from dlbench.worker.ranks.process_group import merge_rank_outcomes, run_rank

    def measure_rank(case: Case, context: RankContext) -> Outcome:
        outcome = merge_rank_outcomes(measure(case, context, total_import_s()), context, found)
        if context.rank == 0:
            write_outcome(folder, outcome)
        return outcome

    return run_rank(case, folder, found, measure_rank)


def _install_signal_handlers(folder: Path) -> None:
    def write_preempted_and_exit(number: int, frame: FrameType | None) -> None:
        _ignore_signals()
        text = f"stopped by {signal.Signals(number).name} in phase {current_phase()}"
        write_outcome(folder, Outcome("preempted", text))
        os.write(2, f"preempted: {text}\n".encode())
        # Not an exception: it would run through C++ frames and other people's handlers, with seconds left to live.
        os._exit(NOT_DONE)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, write_preempted_and_exit)


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
