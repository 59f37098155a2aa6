"""Contents of a results folder at the start of a run, and its maintenance."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from dlbench import units
from dlbench.errors import StoreError
from dlbench.launch import attempts, claims, leftovers, supervise
from dlbench.launch.results_folder import ResultsFolder, ResultsFolderMissing
from dlbench.messages import say, say_warnings
from dlbench.results.records import DONE_STATUSES, Record

#: Number of small parts that are merged into one file, which loads much faster.
MIN_PARTS_TO_MERGE = 200
MAX_PARTS_PER_MERGE = 400
#: Larger files are not merged: the cost of a merge must not grow with the store.
MAX_PART_BYTES_TO_MERGE = 4 * 2**20


@dataclass(frozen=True)
class StoredAttempts:
    """Attempts of a results folder, each read once."""

    ended: set[attempts.DoneKey]  # what needs no further attempt
    tried: set[str]  # the cases that have any attempt
    ids: frozenset[str]  # all attempts
    own_parts: int  # how many attempts have a Parquet part of their own
    without_part: list[tuple[Path, Record]]  # closed, with samples in no Parquet file


def read_stored_attempts(root: Path) -> StoredAttempts:
    """Read the contents of a results folder, but no attempts in merged files. Raises StoreError if that fails."""
    folders = attempts.list_attempt_folders(root)
    own, merged, ended = _attempts_in_parquet(root, {folder.name for folder in folders})
    without_part = []
    problems: list[str] = []
    unmerged = [folder for folder in folders if folder.name not in merged]
    for folder, record in attempts.find_closed_attempts(root, unmerged, problems):
        has_part = folder.name in own
        if attempts.is_case_done(folder, record, has_part):
            ended.add(attempts.record_key(record))
        if not has_part:
            without_part.append((folder, record))
    say_warnings(problems)
    ids = frozenset(merged | {folder.name for folder in folders})
    tried = {case_id for name in ids if (case_id := attempts.attempt_case_id(name))}
    return StoredAttempts(ended, tried, ids, len(own), without_part)


def _attempts_in_parquet(root: Path, names: set[str]) -> tuple[set[str], set[str], set[attempts.DoneKey]]:
    """Return attempts with their own part, attempts complete in merged files, and the keys these have ended."""
    store = import_parquet_store_or_none()
    if store is None or not root.is_dir():
        return set(), set(), set()
    found = store.find_parts(root)[0]
    own = {p.stem for p in found if p.stem in names and p.parent == root and store.is_written_by_dlbench(p)}
    others = [p for p in found if p.stem not in own or p.parent != root]
    return own, store.complete_attempt_ids(root, among=others), store.finished_keys(root, among=others)


def import_parquet_store_or_none() -> ModuleType | None:
    """Return `dlbench.results.store`; None without pyarrow, such as on a host outside its container.

    Attempt folders contain all results; Parquet files are built from them, now or later.
    """
    try:
        from dlbench.results import store
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        return None
    return store


def print_write_error(error: StoreError, folder: ResultsFolder | None) -> None:
    """Print that results cannot be written, and which are kept; if `folder` was removed, that is the reason."""
    try:
        if folder is not None:
            folder.require_same_folder()
    except ResultsFolderMissing as gone:
        error = gone
    if isinstance(error, ResultsFolderMissing):
        say(
            f"dlbench: {error}; stopped. A moved folder keeps its results; to resume, run the same command with the "
            f"new path as --results"
        )
    else:
        say(f"dlbench: {error}; stopped. Results so far are kept; run the same command again to resume")


def close_interrupted_attempts(root: Path) -> int:
    """Close and print attempts that killed runs left open, remove their leftovers; return the number closed."""
    problems: list[str] = []
    closed = supervise.recover_open_attempts(root, problems=problems)
    for problem in problems:
        say(problem)
    for record in closed:
        say(f"a killed run did not finish attempt {record.attempt_id}; it is now recorded with status {record.status}")
    leftovers.remove_leftovers(root)
    return len(closed)


def attempts_missing_in_parquet(root: Path) -> list[tuple[Path, Record]]:
    """The closed attempts that no Parquet part holds whole; each part is read for it."""
    from dlbench.results import store

    def read_attempt_record(attempt_id: str) -> Record | None:
        folder = attempts.attempts_folder(root) / attempt_id
        found = [attempts.read_full_record(folder, head) for _, head in attempts.find_closed_attempts(root, [folder])]
        # Without its samples it proves nothing: what a file holds of the attempt is all that is left.
        return next((r for r in found if r.ranks and r.attempt_id == attempt_id), None)

    stored = store.complete_attempt_ids(root, original=read_attempt_record)
    problems: list[str] = []
    folders = [folder for folder in attempts.list_attempt_folders(root) if folder.name not in stored]
    closed = attempts.find_closed_attempts(root, folders, problems)
    missing = [found for found in closed if found[1].attempt_id not in stored]
    say_warnings(problems)
    return missing


def merge_all_parquet_parts(root: Path) -> None:
    """Put all parts that dlbench wrote into one file per month, and say which are left."""
    from dlbench.results import store

    for merged in store.merge_parts_by_month(root):
        say(f"merged parts into {merged}")
    others = sorted(part.name for part in root.glob("*.parquet") if not store.is_written_by_dlbench(part))
    if others:
        names = units.list_text(others, 3)
        say(f"not merged: {names} ({len(others)} in total); another program or an earlier dlbench wrote these files")


def rebuild_parquet_parts(root: Path, missing: Iterable[tuple[Path, Record]]) -> int:
    """Write missing Parquet parts, for example of a killed run."""
    from dlbench.results import store

    rebuilt = 0
    lost: list[str] = []
    for folder, head in missing:
        try:
            record = attempts.read_full_record(folder, head)
            if record.status in DONE_STATUSES and not record.ranks:
                lost.append(folder.name)
                continue
            store.append_record(root, record, make_folder=False)
            rebuilt += 1
        except StoreError as error:
            say(f"{error}; skipped")
    if lost:
        count = units.count_text(len(lost), "attempt")
        say(f"the samples of {count} are lost (neither result.json nor Parquet has them): {units.list_text(lost, 3)}")
    return rebuilt


def merge_parquet_parts(root: Path, own_parts: int) -> int:
    """Merge parts into one file, unless another process does; return how many of `own_parts` remain."""
    store = import_parquet_store_or_none()
    if store is None:
        return 0
    try:
        claim = claims.take_claim(root, "merge")
        if claim is None:
            return 0
        try:
            store.merge_parts_by_month(root, max_bytes=MAX_PART_BYTES_TO_MERGE, most=MAX_PARTS_PER_MERGE)
        finally:
            claim.release()
    except StoreError as error:
        say(f"{error}; the Parquet files were not merged")
        return 0
    return max(0, own_parts - MAX_PARTS_PER_MERGE)
