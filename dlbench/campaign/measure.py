"""Measures the cases of a campaign that are missing, stores each record, and says what happened."""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import TYPE_CHECKING, Any

from dlbench import units
from dlbench.campaign import existing
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.campaign.existing import Known
    from dlbench.launch.supervise import Campaign
    from dlbench.results.records import Record
    from dlbench.suites.case import Case


def waiting_cases(campaign: Campaign, cases: list[Case], fresh: bool, known: Known) -> list[Case]:
    """The cases that have not ended yet, or all; what was tried before in vain comes last."""
    if fresh:
        return cases
    ended = known.ended
    waiting = [case for case in cases if campaign.key(case) not in ended]
    if len(waiting) < len(cases):
        say(f"{len(cases) - len(waiting)} measured already, or out of memory (--fresh measures all anew)")
    elsewhere = {(*key[:3], key[4]) for key in ended}
    anew = sum((*(key := campaign.key(case))[:3], key[4]) in elsewhere for case in waiting)
    if anew:
        say(
            f"{units.counted(anew, 'case')} measured before on another system: measuring again here. "
            "A CPU with other cores, threads or memory of its node is another system, and records of earlier versions "
            "do not name them"
        )
    _say_changed(campaign, waiting, ended)
    # A case that takes the whole job down with it must not keep the others from being measured.
    return sorted(waiting, key=lambda case: case.id in known.tried)


def _say_changed(campaign: Campaign, waiting: list[Case], ended: set[Any]) -> None:
    """Name the networks whose cases are measured again because the network is another one today."""
    before = {key[:-1]: key[-1] for key in ended}
    changed = [case for case in waiting if campaign.key(case)[:-1] in before]
    for model in dict.fromkeys(case.model for case in changed):
        cases = [case for case in changed if case.model == model]
        known = any(before[campaign.key(case)[:-1]] for case in cases)
        reason = (
            "has changed since it was measured"
            if known
            else "was measured by a dlbench that did not record which network the name stood for"
        )
        say(f"{model} {reason}: {units.counted(len(cases), 'case')} will be measured again")


def measure_cases(campaign: Campaign, cases: list[Case], fresh: bool) -> int:
    from dlbench.errors import StoreError

    try:
        return _measure_all(campaign, cases, fresh)
    except StoreError as error:
        existing.say_stopped(error, campaign.folder)
        return 1


def _measure_all(campaign: Campaign, cases: list[Case], fresh: bool) -> int:
    from dlbench.launch import attempts, claims, supervise
    from dlbench.launch.progress import Progress
    from dlbench.results.records import DONE_STATUSES

    root = campaign.root
    assert campaign.folder is not None
    campaign.folder.check()
    existing.close_left_open(root)
    began = time.monotonic()
    found = existing.look(root)
    store = existing.store_module()
    if store:
        existing.rebuild_parts(root, found.without_part)
    else:
        say(
            f"no package 'pyarrow' in {sys.executable}: the results stay in {attempts.attempts_folder(root)}/; "
            f"where it is installed, `dlbench collect --results {root}` makes Parquet of them"
        )
    waiting = waiting_cases(campaign, cases, fresh, found)
    progress = Progress(len(cases), model_width=max(len(case.model) for case in cases))
    parts = found.own_parts

    def keep(record: Record) -> None:
        if store:
            store.append(root, record, make_folder=False)
        progress.finished(record)

    campaign = dataclasses.replace(
        campaign,
        on_record=keep,
        on_tick=progress.tick,
        on_note=say,
        stored=frozenset(found.ended),
        stored_ids=found.ids,
    )
    progress.number = len(cases) - len(waiting)
    statuses: list[str] = []
    busy = 0
    for record in supervise.run(waiting, campaign, fresh):
        statuses.append(record.status)
        busy += any(w.startswith("busy_host:") for _, measured in record.ranks for w in measured.warnings)
        parts += 1
        if parts >= existing.MERGE_FROM:
            parts = existing.merge_parts(root, parts)
    if time.monotonic() - began >= claims.SILENCE_S:
        existing.close_left_open(root)  # what other nodes left has been watched long enough now
    failed = sum(status not in DONE_STATUSES for status in statuses)
    if failed:
        say(f"failed: {failed} of {len(waiting)}; the same command tries them again, those out of memory excepted")
    if busy:
        say(
            f"busy host in {busy} of {units.counted(len(statuses), 'case')}: other work took some of the cores, and "
            "figures may be far off, however narrow their intervals; measure again when it is done"
        )
    left = len(waiting) - len(statuses)
    if left:
        say(f"left to another process that measures, or has measured, them: {left} of {len(waiting)}")
    return 1 if failed else 0
