"""Claims: at most one process measures a case at a time, also on several machines that share a folder.

A claim is a file made with O_EXCL, which is atomic on local disks and on NFS, Lustre and GPFS (advisory locks are
not). The owner touches it regularly. A claim is stale, and may be taken over, if its owner is dead; if the owner runs
on another host, the claim is stale after `DEAD_AFTER_S` without a change. This process measures that time with its own
clock: the clocks of hosts and file servers can differ by hours.
"""

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlbench import process_identity
from dlbench.errors import convert_write_errors
from dlbench.json_text import read_json_object

#: Time without a change after which an owner on another host counts as dead [s].
DEAD_AFTER_S = 300.0
#: Interval at which an owner touches its claim [s].
HEARTBEAT_S = 30.0
#: A claim without an owner is being written; if it stays so for this time, its process was killed [s].
_HALF_WRITTEN_S = 10.0
_POLL_S = 1.0
#: File name of a stale claim during its removal.
_MOVED_ASIDE_NAME = re.compile(r"\..+\.json\.[0-9a-f]{8}")


@dataclass
class FileChangeTimer:
    """Time since the last change of files, by the clock of this process."""

    _seen: dict[Path, tuple[object, float]] = field(default_factory=dict)

    def time_since_change_s(self, path: Path) -> float:
        """Return the seconds since the file or folder last changed, as seen by this process; 0 at the first call."""
        now, state = time.monotonic(), _file_change_stamp(path)
        known, since = self._seen.get(path, (None, now))
        if path not in self._seen or known != state:
            since = now
            self._seen[path] = state, since
        return now - since


#: Shared by the whole process, so that time already spent watching counts.
FILE_CHANGE_TIMER = FileChangeTimer()


#: Identity of this process: machine, process id, its PID namespace, and start time (ids are reused).
owner_identity = process_identity.current_process_identity


def is_owner_alive(who: dict[str, Any], heartbeat: Path) -> bool:
    """Whether owner `who` runs; on another host it is dead once `heartbeat` is unchanged for `DEAD_AFTER_S`."""
    seen = process_identity.is_running(who)
    time_since_change_s = FILE_CHANGE_TIMER.time_since_change_s(
        heartbeat
    )  # always called: the time starts with the first call
    return time_since_change_s < DEAD_AFTER_S if seen is None else seen


def is_owner_probably_alive(who: dict[str, Any], heartbeat: Path) -> bool:
    """Estimate for display whether an owner runs, by file time and clock: too unreliable to close or measure."""
    seen = process_identity.is_running(who)
    if seen is not None:
        return seen
    try:
        return time.time() - heartbeat.stat().st_mtime < DEAD_AFTER_S
    except OSError:
        return False


class Claim:
    """A case claimed by this process until `release`."""

    def __init__(self, path: Path, nonce: str, dead: dict[str, Any] | None = None) -> None:
        self.path = path
        self._nonce = nonce
        self._dead = dead

    def was_taken_over_from(self, who: dict[str, Any]) -> bool:
        """Whether the claim was taken over from this dead owner."""
        return self._dead is not None and all(self._dead.get(name) == who.get(name) for name in owner_identity())

    def refresh_heartbeat(self) -> None:
        """Update the file time: the owner is still running."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def release(self) -> None:
        """Release the claim, unless another process has taken it over.

        If the folder cannot be written, the claim stays; it is stale once this process has ended.
        """
        if (read_json_object(self.path) or {}).get("nonce") == self._nonce:
            with contextlib.suppress(OSError):
                self.path.unlink()


def take_claim(root: Path, name: str) -> Claim | None:
    """Claim `name` in the results folder `root`; None if another process holds it. Raises StoreError if that fails."""
    path = claim_path(root, name)
    nonce = secrets.token_hex(8)
    with convert_write_errors(path):
        path.parent.mkdir(exist_ok=True)
        if _create_claim(path, nonce):
            return Claim(path, nonce)
        holder = read_json_object(path)
        if _remove_claim_if_stale(path) and _create_claim(path, nonce):
            return Claim(path, nonce, holder)
    return None


def is_owner_local_or_gone(heartbeat: Path) -> bool:
    """Whether the owner of a claim or attempt folder runs on this host, has released it, or never wrote its name."""
    owner = _read_owner(heartbeat)
    return not owner or process_identity.is_running(owner) is not None


def heartbeats_of_dead_owners(heartbeats: Iterable[Path]) -> Iterator[Path]:
    """Iterate over the claims and attempt folders whose owners are dead, each as soon as that is certain.

    Owners on other hosts are watched until they touch the file (every `HEARTBEAT_S`) or stay silent for `DEAD_AFTER_S`;
    a claim without an owner is abandoned after a few seconds, for its process was killed while writing it.
    Claims of running owners and released claims are skipped.
    """
    first = {path: _file_change_stamp(path) for path in heartbeats}
    while first:
        for path, before in list(first.items()):
            owner = _read_owner(path)
            seen = process_identity.is_running(owner)
            time_since_change_s = FILE_CHANGE_TIMER.time_since_change_s(path)
            if before is None or seen or _file_change_stamp(path) != before:
                del first[path]
            elif seen is False or time_since_change_s >= _stale_after_s(owner):
                del first[path]
                yield path
        if first:
            time.sleep(_POLL_S)


def remove_stale_claims(root: Path) -> int:
    """Remove the claims of dead owners on this host; return their number."""
    removed = 0
    for path in _list_files(root / "claims"):
        with contextlib.suppress(OSError):
            if path.suffix == ".json":
                holder = read_json_object(path)
                if holder is not None and process_identity.is_running(holder) is False:
                    removed += _remove_claim_if_stale(path)
            elif (
                _MOVED_ASIDE_NAME.fullmatch(path.name)
                and FILE_CHANGE_TIMER.time_since_change_s(path) >= _HALF_WRITTEN_S
            ):
                path.unlink()  # the process that took it over was killed
                removed += 1
    return removed


def claim_names(root: Path) -> list[str]:
    """List the names of all claims, stale ones included."""
    return [path.stem for path in _list_files(root / "claims") if path.suffix == ".json"]


def _list_files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def claim_path(root: Path, name: str) -> Path:
    """Return the file of a claim."""
    return root / "claims" / f"{name}.json"


def _file_change_stamp(path: Path) -> tuple[int, int, int] | None:
    """Return the state that a touch or a new file changes; None if the file does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _create_claim(path: Path, nonce: str) -> bool:
    text = json.dumps(owner_identity() | {"nonce": nonce})  # before the file exists: a kill seldom leaves it empty
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return True


def _remove_claim_if_stale(path: Path) -> bool:
    """Remove the claim if it is stale; return whether it is gone."""
    holder = read_json_object(path)
    if holder is None and not path.exists():
        return True
    time_since_change_s = FILE_CHANGE_TIMER.time_since_change_s(path)
    seen = process_identity.is_running(holder) if holder else None
    if seen or (seen is None and time_since_change_s < _stale_after_s(holder)):
        return False
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return True
    if read_json_object(aside) != holder:
        # Another process took the claim over before the rename: restore it.
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
        aside.unlink()
        return False
    aside.unlink()
    return True


def _stale_after_s(holder: dict[str, Any] | None) -> float:
    """Time without a change after which a claim that cannot be judged otherwise is stale [s]."""
    return DEAD_AFTER_S if holder else _HALF_WRITTEN_S


def _read_owner(heartbeat: Path) -> dict[str, Any]:
    return read_json_object(heartbeat / "owner.json" if heartbeat.is_dir() else heartbeat) or {}
