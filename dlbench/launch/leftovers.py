"""Cleanup after killed processes in a results folder: partial files, empty attempts, claims. Safe while others run.

Only files with dlbench's own names are removed, and only if their writer is dead; on other hosts, if they did not
change for `claims.DEAD_AFTER_S`.
"""

import contextlib
import os
import shutil
from pathlib import Path

from dlbench import atomic_file
from dlbench.launch import attempts, claims
from dlbench.suites import worker_request as requests


def remove_leftovers(root: Path) -> int:
    """Remove files of killed processes from the results folder; return the number of files and folders."""
    removed = claims.remove_stale_claims(root)
    for folder in (root, attempts.attempts_folder(root)):
        removed += sum(map(_remove_if_abandoned, _temporary_files(folder)))
    claimed = "\n".join(claims.claim_names(root))
    return removed + sum(_remove_if_empty(attempt, claimed) for attempt in attempts.list_attempt_folders(root))


def remove_partial_files(folder: Path) -> None:
    """Remove partial files of an attempt whose processes have all ended."""
    for path in _temporary_files(folder):
        with contextlib.suppress(OSError):
            path.unlink()


def _temporary_files(folder: Path) -> list[Path]:
    try:
        found = os.listdir(folder)  # noqa: PTH208 (a third of the time that pathlib takes)
    except OSError:
        return []
    return [folder / name for name in found if name[:1] == "." and atomic_file.is_temporary_name(name)]


def _remove_if_abandoned(path: Path) -> bool:
    runs = atomic_file.is_writer_running(path.name)
    time_since_change_s = claims.FILE_CHANGE_TIMER.time_since_change_s(path)
    if runs or (runs is None and time_since_change_s < claims.DEAD_AFTER_S):
        return False
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        return True
    return False


def _remove_if_empty(attempt: Path, claimed: str) -> bool:
    """Remove empty attempt folders, which earlier versions could leave."""
    case_id = attempt.name.split("-")[1] if attempt.name.count("-") == 2 else ""
    names = ("owner.json", requests.REQUEST_FILE, requests.EARLIER_REQUEST_FILE)
    if not case_id or case_id in claimed or any((attempt / name).exists() for name in names):
        return False
    with contextlib.suppress(OSError):
        remove_partial_files(attempt)
        attempt.rmdir()  # fails if it is not empty
        return True
    return False
