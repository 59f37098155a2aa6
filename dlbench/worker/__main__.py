"""`python -m dlbench.worker ATTEMPT_DIR` measures the case in ATTEMPT_DIR/case.json and leaves result.json beside it.

Exit status: 0 with an outcome that is ok or unstable, 3 with any other outcome, 2 without one (no case to read).
stderr carries "phase: NAME" lines and, of an unexpected error, its traceback. On SIGTERM and SIGUSR1, which a scheduler
sends before the time limit or a preemption, the outcome is `preempted`.

`python -m dlbench.worker --probe [MODEL ...]` prints one line of JSON about this machine, and what keeps it from
building these networks.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from dlbench.errors import DlbenchError
from dlbench.results.records import DONE_STATUSES, Measurement, Outcome, System
from dlbench.suites.case import Case
from dlbench.worker.progress import current_phase, enter_phase
from dlbench.worker.ranks.context import DetectedRank, RankContext, detect
from dlbench.worker.ranks.rank_status import leave

EXIT_BAD_INPUT = 2
EXIT_NOT_DONE = 3


def main(arguments: list[str]) -> int:
    """Runs the worker; see the module."""
    # Kineto greets on stderr, where the last line should be ours.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    if arguments[:1] == ["--probe"]:
        return probe(arguments[1:])
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m dlbench.worker ATTEMPT_DIR | --probe [MODEL ...]", file=sys.stderr)
        return EXIT_BAD_INPUT
    attempt = Path(arguments[0])
    try:
        case = Case.from_dict(json.loads((attempt / "case.json").read_text()))
    except (OSError, ValueError, DlbenchError) as error:
        print(f"{attempt / 'case.json'}: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    try:
        found = detect(os.environ, case.world_size)
    except DlbenchError as error:
        print(error, file=sys.stderr, flush=True)
        write_outcome(attempt, Outcome("crashed", str(error)))
        return EXIT_NOT_DONE
    if case.is_distributed:
        return _measure_as_rank(case, attempt, found, write_outcome)
    _install_signals(attempt)
    outcome = measured_outcome(case, RankContext())
    _ignore_signals()
    write_outcome(attempt, outcome)
    return 0 if outcome.status in DONE_STATUSES else EXIT_NOT_DONE


def probe(models: list[str]) -> int:
    """Prints as JSON the facts of this machine (`machine.system.stack`), its key, and the facts of these networks."""
    # The answer has the channel to itself: what a library or a user's code prints, also from C, goes to stderr.
    answer = os.dup(1)
    os.dup2(2, 1)
    import torch

    from dlbench.worker.machine.system import stack, system_key, system_keys
    from dlbench.worker.network_check import look_at
    from dlbench.worker.precision import precisions

    networks = {name: look_at(name) for name in models}
    facts = stack()
    kinds = {"cpu", facts["device_kind"]}
    computes = {
        "precisions": {kind: precisions(torch.device(kind)) for kind in sorted(kinds)},
        "torch_threads": torch.get_num_threads(),
    }
    found = {
        "system_key": system_key(facts),
        "system_keys": system_keys(facts),
        "broken_models": {name: network.error for name, network in networks.items() if network.error},
        "network_keys": {name: network.key for name, network in networks.items()},
        "network_files": {name: network.files for name, network in networks.items() if network.files},
    }
    text = json.dumps({**facts, **computes, **found})
    with os.fdopen(answer, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    return 0


def measured_outcome(case: Case, context: RankContext) -> Outcome:
    """The outcome of `case`, whatever happens to it."""
    enter_phase("import")
    began_s = time.perf_counter()
    from dlbench.worker.failures import classify
    from dlbench.worker.measure import measure

    import_s = time.perf_counter() - began_s
    try:
        return measure(case, context, import_s)
    except (Exception, SystemExit) as error:  # a network may call sys.exit
        if not isinstance(error, DlbenchError) or error.__cause__ is not None:
            traceback.print_exc()
        status, text = classify(error)
        print(f"{status} in phase {current_phase()}: {text}", file=sys.stderr, flush=True)
        return Outcome(status, text, _known_system(case, context))


def _known_system(case: Case, context: RankContext) -> tuple[tuple[System, Measurement], ...]:
    """What the record of a failure says about the machine; nothing where that fails as well, as with a lost device."""
    from dlbench.worker.measure import what_is_known

    try:
        return what_is_known(case, context)
    except Exception:
        return ()


def _measure_as_rank(case: Case, attempt: Path, found: DetectedRank, write: Callable[[Path, Outcome], None]) -> int:
    """Measures a case as one of its ranks; gives the exit status.

    Args:
        write: called on rank 0 with the attempt's folder and the outcome of all ranks.
    """
    from dlbench.worker.ranks.outcomes import merge_rank_outcomes
    from dlbench.worker.ranks.process_group import serve

    began_s = time.perf_counter()
    from dlbench.worker.measure import measure

    import_s = time.perf_counter() - began_s

    def work(case: Case, context: RankContext) -> Outcome:
        outcome = merge_rank_outcomes(measure(case, context, import_s), context, found)
        if context.rank == 0:
            write(attempt, outcome)
        return outcome

    return serve(case, attempt, found, work)


def write_outcome(attempt: Path, outcome: Outcome) -> None:
    """Writes result.json whole or not at all, and so that it outlasts a crash of the node."""
    partial = attempt / f".result.json.{os.getpid()}"
    with partial.open("w", encoding="utf-8") as file:
        file.write(outcome.to_json())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(attempt / "result.json")
    # The rename itself lies in the folder; some file systems refuse to sync one.
    with contextlib.suppress(OSError):
        folder = os.open(attempt, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _install_signals(attempt: Path) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        _ignore_signals()
        text = f"stopped by {signal.Signals(number).name} in phase {current_phase()}"
        write_outcome(attempt, Outcome("preempted", text))
        os.write(2, f"preempted: {text}\n".encode())
        # Not an exception: it would run through C++ frames and other people's handlers, with seconds left to live.
        os._exit(EXIT_NOT_DONE)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, stop)


def _ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
