"""Supervisor: runs cases one after the other in separate processes and records each outcome."""

import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dlbench import units
from dlbench.errors import StoreError
from dlbench.free_memory import read_kernel_file_number
from dlbench.launch import attempts, claims, failure_diagnosis, leftovers, processes, scheduler, worker_process
from dlbench.launch.attempts import Attempt
from dlbench.launch.launchers import Launcher, local_command
from dlbench.launch.processes import StoppedBySignal, describe_exit, last_error_line, last_phase, tail_lines
from dlbench.launch.results_folder import ResultsFolder, require_disk_space
from dlbench.launch.workers_ahead import StartedWorker, WorkersAhead
from dlbench.results.records import DONE_STATUSES, FINAL_STATUSES, Outcome, Record, printable_text
from dlbench.suites.case import Case

#: Number of out-of-memory kills since boot.
_OOM_KILLS = (Path("/proc/vmstat"), "oom_kill")


@dataclass(frozen=True)
class Campaign:
    """Settings of one run that hold for all cases."""

    root: Path
    suite: str
    suite_version: int
    system_key: attempts.SystemKeys
    launcher: Launcher = local_command
    #: Called with each finished record: stores and prints it.
    on_record: Callable[[Record], None] = field(default=lambda record: None)
    #: Called about once a second while a case runs: case, elapsed seconds, phase of the worker.
    on_tick: Callable[[Case, float, str], None] = field(default=lambda case, elapsed_s, phase: None)
    #: Called with messages for the user.
    on_note: Callable[[str], None] = field(default=lambda text: None)
    #: From Parquet parts, besides the attempt folders: keys that have ended, and names of attempts.
    stored: frozenset[attempts.DoneKey] = frozenset()
    stored_ids: frozenset[str] = frozenset()
    #: The results folder, opened at the start of the command; if None, opened at the first case.
    folder: ResultsFolder | None = None
    #: Label in each record, to distinguish campaigns of the same suite.
    label: str | None = None
    #: Environment variables of the workers, added to those of this process.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Network key per model name; "" for catalogue networks.
    network_keys: Mapping[str, str] = field(default_factory=dict)
    #: Facts from an earlier process of the case that are the same in every process; see `records.reusable_facts`.
    facts: Callable[[Case], Mapping[str, Any] | None] = field(default=lambda case: None)
    #: Cases planned after the running one, whose workers may be started ahead.
    upcoming: Callable[[], Iterable[Case]] = field(default=lambda: ())
    #: Source files of user networks, with the digests behind the network keys.
    network_files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    #: Facts of the machine, as `python -m dlbench.worker --probe` gives them.
    machine: Mapping[str, Any] = field(default_factory=dict)

    def key(self, case: Case) -> attempts.DoneKey:
        """Return the key under which the case counts as done."""
        system_key = attempts.system_key_of_device_kind(self.system_key, case.device)
        return self.suite, self.suite_version, case.id, system_key, self.network_keys.get(case.model, "")


def recover_open_attempts(
    root: Path, among: Iterable[Path] | None = None, problems: list[str] | None = None
) -> list[Record]:
    """Close attempts that a killed supervisor left open; results of their workers are kept.

    Attempts of owners on other hosts are closed only after a long time without a change.

    Args:
        among: only these attempt folders.
        problems: receives the reason for each attempt that cannot be closed.
    """
    closed = []
    for attempt, owner in attempts.find_open_attempts(root, among):
        if not claims.is_owner_alive(owner, attempt.folder):
            try:
                closed.append(_close_open_attempt(attempt, owner))
            except StoreError as error:
                if problems is not None:
                    problems.append(f"{error}; attempt {attempt.id} is still unfinished")
    return closed


def unfinished_attempts_on_other_nodes(root: Path) -> list[Path]:
    """Return open attempts of owners on other nodes, running or dead."""
    return [a.folder for a, _ in attempts.find_open_attempts(root) if not claims.is_owner_local_or_gone(a.folder)]


def _close_open_attempt(attempt: Attempt, owner: Mapping[str, Any]) -> Record:
    outcome = attempts.read_worker_outcome(attempt.folder)
    if outcome is None:
        lost = scheduler.job_loss_reason(owner)
        crashed = Outcome("crashed", "the supervisor was killed before this case ended")
        outcome = Outcome("preempted", lost) if lost else crashed
    return _close_attempt(attempt, outcome, None, None)


def run_cases(cases: Iterable[Case], campaign: Campaign, fresh: bool = False) -> Iterator[Record]:
    """Measure the cases that are neither measured nor out of memory; with `fresh` these, too.

    Yields one record per attempt, after closing it and calling `on_record`.

    Raises:
        StoreError: results cannot be written.
        StoppedBySignal: a signal stopped the run; the running case is recorded as preempted.
    """
    folder = campaign.folder or ResultsFolder(campaign.root)
    workers = WorkersAhead(campaign.root, campaign.environment, campaign.facts)
    try:
        yield from _run_cases(cases, campaign, folder, workers, fresh)
    finally:
        workers.stop()


def _run_cases(
    cases: Iterable[Case], campaign: Campaign, folder: ResultsFolder, workers: WorkersAhead, fresh: bool
) -> Iterator[Record]:
    held: dict[Path, Case] = {}  # by claim or attempt folder, which the owner touches
    for case in cases:
        for heartbeat in held:
            # Starts the clock early, so that less waiting is left at the end.
            claims.FILE_CHANGE_TIMER.time_since_change_s(heartbeat)
        taken = _claim_case(case, campaign, folder)
        if isinstance(taken, Path):
            held[taken] = case  # another process is measuring it
        else:
            yield from _run_claimed_case(case, campaign, folder, workers, taken, fresh)
    # Or its node failed: its claims become stale after `DEAD_AFTER_S`.
    unseen = sum(not claims.is_owner_local_or_gone(heartbeat) for heartbeat in held)
    if unseen:
        campaign.on_note(
            f"{units.count_text(unseen, 'case')} claimed by runs on other nodes; waiting up to "
            f"{claims.DEAD_AFTER_S:.0f} s, then measuring here those of dead runs. Press Ctrl-C to end without them"
        )
    for heartbeat in claims.heartbeats_of_dead_owners(held):
        taken = _claim_case(held[heartbeat], campaign, folder)
        if isinstance(taken, _ClaimedCase):
            yield from _run_claimed_case(held[heartbeat], campaign, folder, workers, taken, fresh)


def claim_name_of_case(case: Case, campaign: Campaign) -> str:
    """Return the name of the claim of a case."""
    return "-".join(map(str, campaign.key(case)))


@dataclass(frozen=True)
class _ClaimedCase:
    """A claimed case, with the folders of all earlier attempts."""

    claim: claims.Claim
    tried: list[Path]


def _claim_case(case: Case, campaign: Campaign, folder: ResultsFolder) -> _ClaimedCase | Path:
    """Claim the case; if another process holds it, return the file that its owner touches."""
    folder.require_same_folder()
    name = claim_name_of_case(case, campaign)
    claim = claims.take_claim(campaign.root, name)
    if claim is None:
        return claims.claim_path(campaign.root, name)
    tried = attempts.list_attempt_folders(campaign.root, case.id)
    for attempt, owner in attempts.find_open_attempts(campaign.root, tried):
        # Its claim may have been removed, or released after an error.
        mine = attempt.key == campaign.key(case) and not claim.was_taken_over_from(owner)
        if mine and claims.is_owner_alive(owner, attempt.folder):
            claim.release()
            return attempt.folder
    return _ClaimedCase(claim, tried)


def _run_claimed_case(
    case: Case, campaign: Campaign, folder: ResultsFolder, workers: WorkersAhead, taken: _ClaimedCase, fresh: bool
) -> Iterator[Record]:
    try:
        # Read while holding the claim: another process may just have finished the case, or been killed between the
        # worker's result and its record.
        record, stop = _close_own_open_attempts(case, campaign, taken.tried), None
        if record is None or fresh:
            key = campaign.key(case)
            if not fresh and (key in campaign.stored or key in attempts.finished_keys(campaign.root, taken.tried)):
                return
            require_disk_space(campaign.root)
            record, stop = _run_case(case, campaign, folder, workers, taken)
            for _ in range(scheduler.STEP_TRIES - 1):
                if stop is not None or not str(record.error).startswith(scheduler.STEP_FAILED_PREFIX):
                    break
                if not scheduler.wait_for_controller(taken.claim.refresh_heartbeat):
                    break
                record, stop = _run_case(case, campaign, folder, workers, taken)
    finally:
        taken.claim.release()
    yield record
    if stop is not None:
        raise stop  # also if the worker ended before the signal arrived
    if record.status == "preempted" and record.error in signal.Signals.__members__:
        raise StoppedBySignal(signal.Signals[str(record.error)])


def _close_own_open_attempts(case: Case, campaign: Campaign, tried: list[Path]) -> Record | None:
    """Close open attempts of the case: their owners are dead, since this process holds the claim.

    Returns the record of one whose worker had finished, after calling `on_record`.
    """
    finished = None
    for attempt, owner in attempts.find_open_attempts(campaign.root, tried):
        if attempt.key == campaign.key(case):
            record = _close_open_attempt(attempt, owner)
            if record.status in FINAL_STATUSES:
                campaign.on_record(record)
                finished = record
    return finished


def _run_case(
    case: Case, campaign: Campaign, folder: ResultsFolder, workers: WorkersAhead, taken: _ClaimedCase
) -> tuple[Record, StoppedBySignal | None]:
    """Run the case; return its record, and the signal received meanwhile."""
    suite, version, _, system_key, network_key = campaign.key(case)
    owner = claims.owner_identity() | scheduler.current_job()
    earlier = [*(one.name for one in taken.tried), *campaign.stored_ids]
    root, label, facts = campaign.root, campaign.label, campaign.facts(case)
    attempt = attempts.create_attempt(root, case, suite, version, system_key, owner, label, network_key, earlier, facts)
    started = time.monotonic()
    oom_kills = read_kernel_file_number(*_OOM_KILLS)
    worker: StartedWorker | None = None
    ended_by = None
    stopped: StoppedBySignal | None = None
    changed = _find_changed_file(case, campaign)
    try:
        if changed is None:
            argv = campaign.launcher(case, attempt.folder)
            worker = workers.start(argv, case, attempt.folder, campaign.upcoming())
            on_tick = _make_progress_callback(case, attempt, campaign, folder, taken.claim)
            if worker_process.wait_for_worker(worker.process, attempt.folder, case.protocol.timeout_s, on_tick):
                ended_by = "timeout"
    except StoppedBySignal as stop:
        stopped = stop
        ended_by = stop.signal_name
    finally:
        if worker:
            processes.stop_worker(worker.process)
            failure_diagnosis.kill_leftover_processes(worker.folder)
        exit_code = worker.process.returncode if worker else None
        if exit_code != 0:
            scheduler.cancel_steps(attempt.id)
    oom_kill = read_kernel_file_number(*_OOM_KILLS) != oom_kills or failure_diagnosis.slurm_reported_oom(attempt.folder)
    folder.require_same_folder()
    outcome = _classify_outcome(attempt.folder, exit_code, ended_by, case, oom_kill)
    changed = changed or _find_changed_file(case, campaign)
    if changed and outcome.status != "preempted":
        text = f"{changed} has changed since this run began; run the same command to measure {case.model} again"
        outcome = Outcome("invalid", text, outcome.ranks)
    record = _close_attempt(attempt, outcome, exit_code, time.monotonic() - started)
    campaign.on_record(record)
    return record, stopped


def _make_progress_callback(
    case: Case, attempt: Attempt, campaign: Campaign, folder: ResultsFolder, claim: claims.Claim
) -> Callable[[float], None]:
    """Return the function called once a second while a case runs: progress, check of the results folder, heartbeat."""
    touched_s = 0.0

    def on_tick(elapsed_s: float) -> None:
        nonlocal touched_s
        campaign.on_tick(case, elapsed_s, last_phase(attempt.folder / "stderr.txt"))
        folder.require_same_folder()
        if elapsed_s - touched_s > claims.HEARTBEAT_S:
            claim.refresh_heartbeat()
            with suppress(OSError):
                os.utime(attempt.folder)
            touched_s = elapsed_s

    return on_tick


def _find_changed_file(case: Case, campaign: Campaign) -> str | None:
    """Return a file of the network that changed since the campaign began; None if unchanged.

    Files that cannot be read here, such as those in a container, are not checked.
    """
    for path, digest in campaign.network_files.get(case.model, {}).items():
        with suppress(OSError):
            if hashlib.sha256(Path(path).read_bytes()).hexdigest() != digest:
                return path
    return None


def _classify_outcome(folder: Path, exit_code: int | None, ended_by: str | None, case: Case, oom_kill: bool) -> Outcome:
    """Classify the outcome of a case. A complete result counts, even if the process failed afterwards."""
    outcome = attempts.read_worker_outcome(folder)
    if outcome and outcome.status in DONE_STATUSES:
        if exit_code == 0:
            return outcome
        how = "it cannot be killed" if exit_code is None else describe_exit(exit_code)
        return replace(outcome, error=f"the measurement is complete, but the process failed afterwards: {how}")
    ranks = outcome.ranks if outcome else ()
    if exit_code and not ended_by:
        began = outcome is not None or bool(failure_diagnosis.read_rank_files(folder))
        if failed := scheduler.step_failure_message("\n".join(tail_lines(folder / "stderr.txt")), began):
            return Outcome("preempted", f"{scheduler.STEP_FAILED_PREFIX}{failed}; the case will be tried again", ranks)
    phase = f" in phase '{phase}'" if (phase := last_phase(folder / "stderr.txt")) else ""
    if outcome and outcome.status not in (*DONE_STATUSES, "preempted"):
        return outcome  # the worker reported this before it was ended for another reason
    if ended_by == "timeout":
        if case.is_distributed:
            phase += f" ({failure_diagnosis.describe_where_ranks_hang(folder, case.world_size)})"
        text = f"did not end within {case.protocol.timeout_s:.0f} s{phase}; raise protocol.timeout_s"
        return Outcome("timeout", text, ranks)
    if ended_by:
        return Outcome("preempted", ended_by, ranks)
    if outcome and outcome.status not in DONE_STATUSES:
        return outcome
    found = failure_diagnosis.diagnose_failed_case(folder, case.world_size, oom_kill) if case.is_distributed else None
    if found:
        return Outcome(*found, ranks)
    # Killed directly, or in an srun step, which then has its own exit status.
    if oom_kill and (exit_code == -signal.SIGKILL or failure_diagnosis.slurm_reported_oom(folder)):
        words = last_error_line(folder, failure_diagnosis.LAUNCHER_PREFIXES)
        return Outcome("oom", f"killed by the kernel's out-of-memory killer{phase}; {words}", ranks)
    how = "the worker did not start or cannot be killed" if exit_code is None else describe_exit(exit_code)
    return Outcome("crashed", f"{how}{phase}; {last_error_line(folder)}", ranks)


def _close_attempt(attempt: Attempt, outcome: Outcome, exit_code: int | None, wall_s: float | None) -> Record:
    record = Record(
        attempt_id=attempt.id,
        case_id=attempt.case.id,
        suite=attempt.suite,
        suite_version=attempt.suite_version,
        case=attempt.case.to_dict(),
        started_at=attempt.started_at,
        finished_at=_attempt_end_time(attempt.started_at, wall_s),
        status=outcome.status,
        error=printable_text(outcome.error),
        exit_code=exit_code,
        wall_s=wall_s,
        system_key=attempt.system_key,
        network_key=attempt.network_key,
        ranks=outcome.ranks,
        label=attempt.label,
    )
    leftovers.remove_partial_files(attempt.folder)
    attempts.write_record(attempt.folder, record)
    return record


def _attempt_end_time(started_at: str, wall_s: float | None) -> str:
    """Return the end time of an attempt; never before its start, whose clock may differ."""
    now = datetime.now(UTC)
    try:
        started = datetime.fromisoformat(started_at)
        return (max(now, started) if wall_s is None else started + timedelta(seconds=wall_s)).isoformat()
    except (ValueError, TypeError, OverflowError):
        return now.isoformat()
