"""What a results folder holds already when a run starts, and how it is kept in order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from dlbench import units
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.errors import StoreError
    from dlbench.launch.attempts import DoneKey
    from dlbench.launch.results_folder import ResultsFolder
    from dlbench.results.records import Record

#: So many parts of their own are put into one file, which reads much faster.
MERGE_FROM = 200
MERGE_AT_ONCE = 400
#: Larger files stay as they are: what a merge costs must not grow with what is done.
MERGE_UP_TO_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Known:
    """The attempts of a results folder, each looked at once."""

    ended: set[DoneKey]  # what needs no further attempt
    tried: set[str]  # the cases that have any attempt
    ids: frozenset[str]  # all attempts
    own_parts: int  # how many attempts have a Parquet part of their own
    without_part: list[tuple[Path, Record]]  # closed, with samples in no Parquet file


def look(root: Path) -> Known:
    """Find out what is in a results folder; attempts that a merged file holds are not opened.

    Raises:
        StoreError: the folder cannot be read.
    """
    from dlbench.launch import attempts

    folders = attempts.folders(root)
    own, merged, ended = _in_parquet(root, {folder.name for folder in folders})
    without_part = []
    for folder, record in attempts.heads(root, [folder for folder in folders if folder.name not in merged]):
        has_part = folder.name in own
        if attempts.has_ended(folder, record, has_part):
            ended.add(attempts.key_of(record))
        if not has_part:
            without_part.append((folder, record))
    ids = frozenset(merged | {folder.name for folder in folders})
    tried = {case_id for name in ids if (case_id := attempts.case_id_of(name))}
    return Known(ended, tried, ids, len(own), without_part)


def _in_parquet(root: Path, names: set[str]) -> tuple[set[str], set[str], set[DoneKey]]:
    """The attempts that have a part of their own, those that other files hold whole, and what has ended by those."""
    store = store_module()
    if store is None or not root.is_dir():
        return set(), set(), set()
    from dlbench.results import own_parts

    own, others = own_parts.split(store.find(root)[0], root, names)
    return own, store.attempt_ids(root, among=others), store.final_keys(root, among=others)


def store_module() -> ModuleType | None:
    """`dlbench.results.store`; None where this Python has no pyarrow, such as that of a node outside of its container.

    The attempts' folders hold everything that is measured; Parquet is made of them, here or later.
    """
    try:
        from dlbench.results import store
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        return None
    return store


def say_stopped(error: StoreError, folder: ResultsFolder | None) -> None:
    """Say that results cannot be written any more, and what is kept.

    Args:
        folder: the results folder of the run; where it is gone, that is why writing failed.
    """
    from dlbench.launch.results_folder import FolderGone

    try:
        if folder is not None:
            folder.check()
    except FolderGone as gone:
        error = gone
    if isinstance(error, FolderGone):
        say(f"dlbench: {error}; stopped. What was measured went with it: name its new place with --results to go on")
    else:
        say(f"dlbench: {error}; stopped. What was measured is kept, and the same command goes on from here")


def close_left_open(root: Path) -> int:
    """Close and name what killed runs left open, and sweep what else they left; gives how many attempts were closed."""
    from dlbench.launch import leftovers, supervise

    problems: list[str] = []
    closed = supervise.recover(root, problems=problems)
    for problem in problems:
        say(problem)
    for record in closed:
        say(f"closed {record.attempt_id}, left open by a run that was killed: {record.status}")
    leftovers.sweep(root)
    return len(closed)


def rebuild_parts(root: Path, missing: Iterable[tuple[Path, Record]]) -> int:
    """Write the Parquet parts that are missing; what a killed run had measured comes back this way."""
    from dlbench.errors import StoreError
    from dlbench.launch import attempts
    from dlbench.results import store
    from dlbench.results.records import DONE_STATUSES

    rebuilt = 0
    lost: list[str] = []
    for folder, head in missing:
        try:
            record = attempts.full_record(folder, head)
            if record.status in DONE_STATUSES and not record.ranks:
                lost.append(folder.name)
                continue
            store.append(root, record, make_folder=False)
            rebuilt += 1
        except StoreError as error:
            say(f"{error}; passed over")
    if lost:
        names = ", ".join(lost[:3]) + (" ..." if len(lost) > 3 else "")
        say(f"samples lost, in result.json and in Parquet, of {units.counted(len(lost), 'attempt')}: {names}")
    return rebuilt


def merge_parts(root: Path, own_parts: int) -> int:
    """Put parts into one file; gives how many are left of `own_parts`.

    One process at a time does it, and nobody waits for it.
    """
    from dlbench.errors import StoreError
    from dlbench.launch import claims

    store = store_module()
    if store is None:
        return 0
    try:
        claim = claims.take(root, "merge")
        if claim is None:
            return 0
        try:
            store.merge(root, max_bytes=MERGE_UP_TO_BYTES, most=MERGE_AT_ONCE)
        finally:
            claim.release()
    except StoreError as error:
        say(f"{error}; the parts stay as they are")
        return 0
    return max(0, own_parts - MERGE_AT_ONCE)
