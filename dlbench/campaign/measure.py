"""Measurement of a campaign: runs missing cases, stores each record, prints the outcome."""

import contextlib
import dataclasses
import itertools
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from dlbench import units
from dlbench.campaign import results_maintenance
from dlbench.campaign.results_maintenance import StoredAttempts
from dlbench.campaign.schedule import Schedule
from dlbench.campaign.setting_search import SettingSearch
from dlbench.errors import StoreError
from dlbench.exit_codes import OK, SOME_FAILED
from dlbench.launch import attempts, claims, supervise
from dlbench.launch.progress import Progress
from dlbench.launch.supervise import Campaign
from dlbench.messages import say
from dlbench.results.records import DONE_STATUSES, Record
from dlbench.suites.case import Case

#: If nothing is left to measure, earlier records are read for the summary alone, up to this number (1.5 ms each).
MAX_EARLIER_RECORDS = 1000
#: Maximum number of cases in the summary at the end of a run.
MAX_SUMMARY_LINES = 50


def cases_to_measure(campaign: Campaign, cases: list[Case], fresh: bool, known: StoredAttempts) -> list[Case]:
    """Return the cases to measure (all with `fresh`); cases that failed before come last."""
    if fresh:
        return cases
    ended = known.ended
    waiting = [case for case in cases if campaign.key(case) not in ended]
    if len(waiting) < len(cases):
        skipped = units.count_text(len(cases) - len(waiting), "process")
        say(f"skipped: {skipped} already measured or out of memory (use --fresh to measure again)")
    elsewhere = {(*key[:3], key[4]) for key in ended}
    anew = sum((*(key := campaign.key(case))[:3], key[4]) in elsewhere for case in waiting)
    if anew:
        say(
            f"measuring {units.count_text(anew, 'process')} again: the earlier results are from another system (for "
            f"example with other cores, threads or memory)"
        )
    _print_changed_networks(campaign, waiting, ended)
    # A case that crashes the whole job must not block the other cases.
    return sorted(waiting, key=lambda case: case.id in known.tried)


def _print_changed_networks(campaign: Campaign, waiting: list[Case], ended: set[Any]) -> None:
    """Print the networks whose cases are measured again because their definition changed."""
    before = {key[:-1]: key[-1] for key in ended}
    changed = [case for case in waiting if campaign.key(case)[:-1] in before]
    for model in dict.fromkeys(case.model for case in changed):
        cases = [case for case in changed if case.model == model]
        reason = "was measured by an older dlbench, which did not record the definition of the network"
        if any(before[campaign.key(case)[:-1]] for case in cases):
            reason = "has changed since it was measured"
        say(f"{model} {reason}: {units.count_text(len(cases), 'case')} will be measured again")


def measure_cases(
    campaign: Campaign, cases: list[Case], fresh: bool, max_processes: int = 0, budget_s: float | None = None
) -> int:
    """Measure the missing cases of a campaign in a `schedule.Schedule`; return the exit status."""
    return measure_with_schedule(campaign, cases, fresh, Schedule(cases, max_processes, budget_s, say))


def measure_with_schedule(
    campaign: Campaign, cases: list[Case], fresh: bool, schedule: Schedule | SettingSearch
) -> int:
    """Measure what the schedule yields; return the exit status."""
    try:
        return _measure_all(campaign, cases, fresh, schedule)
    except StoreError as error:
        results_maintenance.print_write_error(error, campaign.folder)
        return SOME_FAILED


def _measure_all(campaign: Campaign, cases: list[Case], fresh: bool, schedule: Schedule | SettingSearch) -> int:
    root = campaign.root
    assert campaign.folder is not None
    campaign.folder.require_same_folder()
    results_maintenance.close_interrupted_attempts(root)
    began = time.monotonic()
    found = results_maintenance.read_stored_attempts(root)
    store = results_maintenance.import_parquet_store_or_none()
    if store:
        results_maintenance.rebuild_parquet_parts(root, found.without_part)
    else:
        say(
            f"{sys.executable} has no package 'pyarrow': results stay in {attempts.attempts_folder(root)}/; run "
            f"`dlbench collect --results {root}` with a Python that has it"
        )
    waiting = cases_to_measure(campaign, cases, fresh, found)
    progress = Progress(len(cases), () if schedule.searches else cases)
    parts = found.own_parts

    def store_record(record: Record) -> None:
        if store:
            store.append_record(root, record, make_folder=False)
        schedule.add_record(record)
        progress.total = max(progress.total, len(cases) + schedule.num_extra)
        progress.print_finished_case(record)

    further = _extra_processes_measured_earlier(campaign, cases, found.ended) if schedule.adds_processes else ()
    known = [] if fresh else [*cases, *further]
    measured = [case for case in known if campaign.key(case) in found.ended]
    if waiting or schedule.adds_processes or len(measured) <= MAX_EARLIER_RECORDS:
        _add_earlier_records(root, schedule, campaign, measured)

    campaign = dataclasses.replace(
        campaign,
        on_record=store_record,
        on_tick=progress.show_running_case,
        on_note=say,
        facts=schedule.facts_from_earlier_process,
        upcoming=schedule.upcoming_processes,
        stored=frozenset(found.ended),
        stored_ids=found.ids,
    )
    progress.number = len(cases) - len(waiting)
    statuses: list[str] = []
    busy = 0
    with contextlib.closing(progress):
        for record in supervise.run_cases(schedule.processes_to_measure(waiting), campaign, fresh):
            statuses.append(record.status)
            busy += any(w.startswith("busy_host:") for _, measured in record.ranks for w in measured.warnings)
            parts += 1
            if parts >= results_maintenance.MIN_PARTS_TO_MERGE:
                parts = results_maintenance.merge_parquet_parts(root, parts)
    if time.monotonic() - began >= claims.DEAD_AFTER_S:
        results_maintenance.close_interrupted_attempts(root)  # owners on other nodes have been watched long enough now
    failed = sum(status not in DONE_STATUSES for status in statuses)
    if failed and not schedule.searches:
        say(
            f"{failed} of {units.count_text(len(waiting), 'process')} failed; run the same command again "
            f"to retry those that did not run out of memory"
        )
    if busy:
        say(
            f"busy host: other work used the CPU during {busy} of {units.count_text(len(statuses), 'process')}; their "
            f"figures may be wrong even if intervals are narrow; measure again on an idle machine"
        )
    _print_summary(schedule, progress, root)
    left = schedule.num_yielded - len(statuses)
    if left > 0:
        say(f"skipped: {left} of {schedule.num_yielded} processes, which another run measures or has measured")
    if store and failed < len(cases):
        say(f"next: `dlbench report {root}` builds the report")
    return SOME_FAILED if failed else OK


def _print_summary(schedule: Schedule | SettingSearch, progress: Progress, root: Path) -> None:
    """Print why figures have no interval, skipped processes, and the figures over the processes of each case."""
    how_to_fix = "" if schedule.searches else "; raise protocol.max_time_s"  # a search sets its windows itself
    for remark in (
        *(f"{remark}{how_to_fix}" for remark in progress.describe_missing_intervals()),
        *schedule.describe_unmeasured(),
    ):
        say(remark)
    summary = schedule.summarize_processes()
    for case, figures in summary[:MAX_SUMMARY_LINES]:
        progress.print_case_summary(case, figures)
    if len(summary) > MAX_SUMMARY_LINES:
        say(f"... and {len(summary) - MAX_SUMMARY_LINES} more cases: see `dlbench report {root}`")


def _extra_processes_measured_earlier(campaign: Campaign, cases: list[Case], ended: Collection[Any]) -> Iterator[Case]:
    """The processes beyond the planned ones that earlier runs measured; each case's are numbered on."""
    last = {case.first_process_id: case for case in sorted(cases, key=lambda case: case.repeat)}
    for case in last.values():
        numbered = (dataclasses.replace(case, repeat=number) for number in itertools.count(case.repeat + 1))
        yield from itertools.takewhile(lambda process: campaign.key(process) in ended, numbered)


def _add_earlier_records(
    root: Path, schedule: Schedule | SettingSearch, campaign: Campaign, measured: list[Case]
) -> None:
    """Pass the processes that earlier runs measured to the schedule, if their attempt folders still exist."""
    keys = {campaign.key(case) for case in measured}
    ids = {case.id for case in measured}
    if not ids:
        return
    folders = [folder for folder in attempts.list_attempt_folders(root) if attempts.attempt_case_id(folder.name) in ids]
    latest = {
        attempts.record_key(head): (folder, head) for folder, head in attempts.find_closed_attempts(root, folders)
    }
    for key, (folder, head) in latest.items():
        if key in keys:
            schedule.add_record(attempts.read_full_record(folder, head), from_now=False)
