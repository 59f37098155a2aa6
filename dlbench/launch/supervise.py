"""Runs cases one after the other, each in processes of its own, and turns whatever happens into a record."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from dlbench.errors import StoreError
from dlbench.launch import aftermath, attempts, claims
from dlbench.launch.attempts import Attempt
from dlbench.launch.launchers import Launcher, local
from dlbench.results.records import DONE_STATUSES, Outcome, Record
from dlbench.spec.case import Case

#: How long a worker may take to write its result after it was asked to stop [s].
GRACE_S = 10.0
#: The free space that a campaign must start with [bytes].
MIN_FREE_BYTES = 64 * 2**20
_PR_SET_PDEATHSIG = 1


class Stopped(BaseException):
    """The supervisor was told to stop: by Ctrl-C, by the batch system before the limit, or at shutdown."""

    def __init__(self, signal_number: int) -> None:
        self.signal_name = signal.Signals(signal_number).name
        super().__init__(self.signal_name)


@dataclass(frozen=True)
class Campaign:
    """What stays the same over all cases of one run."""

    root: Path
    suite: str
    suite_version: int
    system_key: str
    launcher: Launcher = local
    #: Called with each finished record: stores it, and says so.
    on_record: Callable[[Record], None] = field(default=lambda record: None)
    #: Called about once a second while a case runs, with the case, the seconds so far and the worker's phase.
    on_tick: Callable[[Case, float, str], None] = field(default=lambda case, elapsed_s, phase: None)
    #: What the Parquet parts already hold, besides the attempt folders.
    stored: frozenset[attempts.DoneKey] = frozenset()
    #: Goes into each record: what sets this campaign apart from another of the same suite.
    label: str | None = None
    #: Environment variables of the workers, over those of this process.
    environment: Mapping[str, str] = field(default_factory=dict)

    def key(self, case: Case) -> attempts.DoneKey:
        """Under which key the case counts as done."""
        return self.suite, self.suite_version, case.id, self.system_key


def check_folder(root: Path) -> None:
    """Find out before the first case whether results can be kept in `root`.

    Raises:
        StoreError: the folder cannot be made or written, or its disk is full.
    """
    probe = root / f".write-test-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
        status = os.statvfs(root)
    except OSError as error:
        raise StoreError(
            f"cannot write results to '{root}': {error.strerror or error}; choose another with --results"
        ) from None
    free_bytes = status.f_bavail * status.f_frsize
    if free_bytes < MIN_FREE_BYTES:
        raise StoreError(
            f"only {free_bytes / 2**20:.0f} MiB free in '{root}', and a campaign needs {MIN_FREE_BYTES / 2**20:.0f} MiB"
        )


def recover(root: Path) -> list[Record]:
    """Close the attempts that a killed supervisor left open; what their workers had finished is kept."""
    closed = []
    for attempt, owner in attempts.unclosed(root):
        if claims.is_alive(owner, attempt.folder.stat().st_mtime):
            continue
        outcome = attempts.outcome_of(attempt.folder)
        if outcome is None:
            outcome = Outcome("crashed", "the supervisor was killed before this case ended")
        closed.append(_close(attempt, outcome, None, None))
    return closed


def run(cases: list[Case], campaign: Campaign, fresh: bool = False) -> Iterator[Record]:
    """Measure the cases that are not done yet; one record per attempt, closed and handed to `on_record`.

    Args:
        cases: what to measure, in this order.
        campaign: where the results go.
        fresh: measure again what is already done.

    Raises:
        StoreError: results cannot be written any more.
        Stopped: a signal asked for the end; the case in flight has been recorded as preempted.
    """
    for case in cases:
        claim = claims.take(campaign.root, "-".join(map(str, campaign.key(case))))
        if claim is None:
            continue  # another process measures it right now
        try:
            # Looked up under the claim, since another process may have finished the case a moment ago.
            if not fresh and campaign.key(case) in attempts.done_keys(campaign.root) | campaign.stored:
                continue
            record = _run_case(case, campaign, claim)
        finally:
            claim.release()
        yield record
        if record.status == "preempted" and record.error in signal.Signals.__members__:
            raise Stopped(signal.Signals[str(record.error)])


def _run_case(case: Case, campaign: Campaign, claim: claims.Claim) -> Record:
    suite, version, _, system_key = campaign.key(case)
    attempt = attempts.create(campaign.root, case, suite, version, system_key, claims.owner(), campaign.label)
    started = time.monotonic()
    oom_kills = _oom_kills()
    process = _start(campaign.launcher(case, attempt.folder), attempt.folder, campaign.environment)
    ended_by = _wait(process, case, attempt, campaign, claim)
    if case.is_distributed:
        aftermath.end_leftovers(attempt.folder)
    outcome = _classify(attempt.folder, process.returncode, ended_by, case, _oom_kills() > oom_kills)
    record = _close(attempt, outcome, process.returncode, time.monotonic() - started)
    campaign.on_record(record)
    return record


def _start(argv: list[str], folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with (folder / "stdout.txt").open("wb") as out, (folder / "stderr.txt").open("wb") as err:
        # A session of its own, so that a time limit can end the worker's children too; and it dies with us, since a
        # worker that outlives a killed supervisor would disturb the next measurement.
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # safe: no other thread runs yet, `_wait` starts its own
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment),
        )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait(
    process: subprocess.Popen[bytes], case: Case, attempt: Attempt, campaign: Campaign, claim: claims.Claim
) -> str | None:
    """Wait for the worker; gives "timeout" or the signal's name when it had to be ended."""
    # A thread blocks in waitpid and this one in the join: nothing polls while the worker measures.
    waiter = threading.Thread(target=process.wait, daemon=True)
    waiter.start()
    started = touched = time.monotonic()
    ended_by = None
    try:
        while waiter.is_alive():
            waiter.join(timeout=1.0)
            now = time.monotonic()
            campaign.on_tick(case, now - started, phase_of(attempt.folder))
            if now - touched > claims.TOUCH_EVERY_S:
                claim.touch()
                os.utime(attempt.folder)
                touched = now
            if now - started > case.protocol.timeout_s and waiter.is_alive():
                ended_by = "timeout"
                break
            if case.is_distributed and waiter.is_alive() and aftermath.has_failed(attempt.folder):
                break  # its launcher should have ended it by now
    except Stopped as stop:
        ended_by = stop.signal_name
    finally:
        _end(process, waiter)
    return ended_by


def _end(process: subprocess.Popen[bytes], waiter: threading.Thread) -> None:
    """Leave no process of the worker's session behind: first asked, then forced."""
    if waiter.is_alive():
        _signal_group(process.pid, signal.SIGTERM)
        waiter.join(GRACE_S)
    _signal_group(process.pid, signal.SIGKILL)
    waiter.join()


def run_ranks(argv: list[str], folder: Path, case: Case) -> tuple[int, str | None]:
    """Run the ranks of something that is no case of a suite under its time limit; gives exit status and what failed."""
    process = _start(argv, folder, {})
    waiter = threading.Thread(target=process.wait, daemon=True)
    waiter.start()
    began = time.monotonic()
    with stopping_on_signals():
        try:
            while waiter.is_alive() and time.monotonic() - began < case.protocol.timeout_s:
                waiter.join(timeout=1.0)
                if waiter.is_alive() and aftermath.has_failed(folder):
                    break
            late = waiter.is_alive()
        finally:
            _end(process, waiter)
            aftermath.end_leftovers(folder)
    if process.returncode == 0 and not late:
        return 0, None
    found = aftermath.verdict(folder, case.world_size, oom_kill=False)
    if found is None and late:
        found = "timeout", f"no end within {case.protocol.timeout_s:.0f} s"
    return process.returncode, found[1] if found else f"{_how_it_ended(process.returncode)}; {last_words(folder)}"


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _classify(folder: Path, exit_code: int, ended_by: str | None, case: Case, oom_kill: bool) -> Outcome:
    """What became of a case. A result counts as done only if the worker also ended well."""
    outcome = attempts.outcome_of(folder)
    if outcome and outcome.status in DONE_STATUSES and exit_code == 0:
        return outcome
    ranks = outcome.ranks if outcome else ()
    phase = f" in phase '{phase_of(folder)}'" if phase_of(folder) else ""
    if ended_by == "timeout":
        stood = f" ({aftermath.where_they_stood(folder, case.world_size)})" if case.is_distributed else ""
        return Outcome(
            "timeout", f"no end within {case.protocol.timeout_s:.0f} s{phase}{stood}; raise protocol.timeout_s", ranks
        )
    if ended_by:
        return Outcome("preempted", ended_by, ranks)
    if outcome and outcome.status not in DONE_STATUSES:
        return outcome
    found = aftermath.verdict(folder, case.world_size, oom_kill) if case.is_distributed else None
    if found:
        return Outcome(*found, ranks)
    if oom_kill and exit_code == -signal.SIGKILL:
        return Outcome("oom", f"ended by the kernel for want of memory{phase}", ranks)
    return Outcome("crashed", f"{_how_it_ended(exit_code)}{phase}; {last_words(folder)}", ranks)


def _how_it_ended(exit_code: int) -> str:
    if exit_code >= 0:
        return f"worker ended with exit status {exit_code}"
    names = {s.value: s.name for s in signal.Signals}
    return f"worker was killed by signal {-exit_code} ({names.get(-exit_code, 'unknown')})"


def _close(attempt: Attempt, outcome: Outcome, exit_code: int | None, wall_s: float | None) -> Record:
    record = Record(
        attempt_id=attempt.id,
        case_id=attempt.case.id,
        suite=attempt.suite,
        suite_version=attempt.suite_version,
        case=attempt.case.to_dict(),
        started_at=attempt.started_at,
        finished_at=datetime.now(UTC).isoformat(),
        status=outcome.status,
        error=outcome.error,
        exit_code=exit_code,
        wall_s=wall_s,
        system_key=attempt.system_key,
        ranks=outcome.ranks,
        label=attempt.label,
    )
    attempts.write_record(attempt.folder, record)
    return record


def phase_of(folder: Path) -> str:
    """The phase that a worker last said it is in, or ""."""
    phases = [line.partition(":")[2].strip() for line in _tail(folder / "stderr.txt") if line.startswith("phase:")]
    return phases[-1] if phases else ""


def last_words(folder: Path) -> str:
    """The last line a worker wrote on stderr, apart from its phases, and where to read the rest."""
    lines = [line.strip() for line in _tail(folder / "stderr.txt") if line.strip() and not line.startswith("phase:")]
    return f"last words: {lines[-1][:300]}" if lines else f"it said nothing; see {folder}"


def _tail(path: Path, size: int = 16_384) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def _oom_kills() -> int:
    """How often the kernel has ended a process for want of memory, since it started."""
    try:
        counters = Path("/proc/vmstat").read_text(encoding="ascii").split()
        return int(counters[counters.index("oom_kill") + 1])
    except (OSError, ValueError):
        return 0


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM, SIGHUP and SIGUSR1 into `Stopped`, so that the case in flight is still recorded."""

    def stop(number: int, frame: FrameType | None) -> None:
        # A second signal must not break the writing of the record that the first one brings about.
        for other in handled:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before: dict[int, Any] = {number: signal.signal(number, stop) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
