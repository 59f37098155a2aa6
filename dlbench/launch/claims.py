"""Claims: at most one process measures a case at a time, on one machine or on many that share a folder.

A claim is a file made with O_EXCL, which is atomic on local disks and on NFS, Lustre and GPFS alike (advisory locks are
not). Its owner touches it while it works; a claim is stale, and may be taken over, when its owner is dead, where that
can be seen from here, or else when its owner has been silent for long. Silence is what this process has watched by its
own clock: the clocks of hosts and file servers differ by minutes or hours, so no time of a file is compared with one.
"""

from __future__ import annotations

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
from dlbench.atomic_file import read_text
from dlbench.errors import StoreError
from dlbench.json_text import load_json

#: An owner whose process cannot be looked at from here is taken for dead when its claim did not change for so long [s].
SILENCE_S = 300.0
#: How often an owner must touch its claim [s].
TOUCH_EVERY_S = 30.0
#: A claim that names no owner is being written at this moment, or was cut off by a kill when it stays so for this [s].
_HALF_WRITTEN_S = 10.0
_POLL_S = 1.0
#: A stale claim that is being removed.
_ASIDE = re.compile(r"\..+\.json\.[0-9a-f]{8}")


@dataclass
class Watch:
    """How long files have shown no change, by this process's own clock."""

    _seen: dict[Path, tuple[object, float]] = field(default_factory=dict)

    def silent_s(self, path: Path) -> float:
        """Seconds since this process first saw the file or folder in its present state; 0 at the first look."""
        now, state = time.monotonic(), _state(path)
        known, since = self._seen.get(path, (None, now))
        if path not in self._seen or known != state:
            since = now
            self._seen[path] = state, since
        return now - since


#: What this process has watched so far. A longer run has seen more, and waits less.
WATCH = Watch()


def owner() -> dict[str, Any]:
    """Who this process is: its machine, its process id, what that counts in, and its start (ids are used again)."""
    return process_identity.identity()


def is_alive(who: dict[str, Any], heartbeat: Path) -> bool:
    """Whether an owner still works, judged from here; one that cannot be looked at has to be watched for `SILENCE_S`.

    Args:
        who: what `owner` gave, over there.
        heartbeat: the file or folder that it touches.
    """
    seen = process_identity.is_running(who)
    silent_s = WATCH.silent_s(heartbeat)  # looked at in any case: the watch begins with the first look
    return silent_s < SILENCE_S if seen is None else seen


def seems_alive(who: dict[str, Any], heartbeat: Path) -> bool:
    """An estimate at first sight, for display: it compares the time of a file with this host's clock.

    Nothing may be closed or measured because of it.
    """
    seen = process_identity.is_running(who)
    if seen is not None:
        return seen
    try:
        return time.time() - heartbeat.stat().st_mtime < SILENCE_S
    except OSError:
        return False


class Claim:
    """A case claimed by this process until `release`."""

    def __init__(self, path: Path, nonce: str, dead: dict[str, Any] | None = None) -> None:
        self.path = path
        self._nonce = nonce
        self._dead = dead

    def was_held_by(self, who: dict[str, Any]) -> bool:
        """Whether the claim was taken over from this owner, who is dead."""
        return self._dead is not None and all(self._dead.get(name) == who.get(name) for name in owner())

    def touch(self) -> None:
        """Show that the owner is still at work."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def release(self) -> None:
        """Give the claim up, unless somebody took it over in the meantime.

        Where the folder cannot be written any more the claim stays, and is stale when this process has ended.
        """
        if (_read(self.path) or {}).get("nonce") == self._nonce:
            with contextlib.suppress(OSError):
                self.path.unlink()


def take(root: Path, name: str) -> Claim | None:
    """Claim `name` in the results folder `root`, which must be there; None when a process that may live holds it.

    Raises:
        StoreError: the folder cannot be written.
    """
    path = path_of(root, name)
    nonce = secrets.token_hex(8)
    try:
        path.parent.mkdir(exist_ok=True)
        if _create(path, nonce):
            return Claim(path, nonce)
        holder = _read(path)
        if _remove_stale(path) and _create(path, nonce):
            return Claim(path, nonce, holder)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    return None


def is_visible(heartbeat: Path) -> bool:
    """Whether the owner behind a claim or an attempt's folder can be looked at from here, or has released it."""
    return not heartbeat.exists() or process_identity.is_running(_holder(heartbeat)) is not None


def abandoned(heartbeats: Iterable[Path]) -> Iterator[Path]:
    """Those claims and attempts' folders whose owners turn out to be dead, as soon as that is known.

    An owner at work touches both every `TOUCH_EVERY_S`, so this waits so long for a sign of each owner that cannot be
    looked at, and up to `SILENCE_S` for one that gives none. The living and what was released are passed over.
    """
    first = {path: _state(path) for path in heartbeats}
    while first:
        for path, before in list(first.items()):
            seen = process_identity.is_running(_holder(path))
            silent_s = WATCH.silent_s(path)
            if before is None or seen or _state(path) != before:
                del first[path]
            elif seen is False or silent_s >= SILENCE_S:
                del first[path]
                yield path
        if first:
            time.sleep(_POLL_S)


def remove_stale(root: Path) -> int:
    """Remove the claims of owners that are seen to be dead; gives how many."""
    removed = 0
    for path in _files(root / "claims"):
        with contextlib.suppress(OSError):
            if path.suffix == ".json":
                holder = _read(path)
                if holder is not None and process_identity.is_running(holder) is False:
                    removed += _remove_stale(path)
            elif _ASIDE.fullmatch(path.name) and WATCH.silent_s(path) >= _HALF_WRITTEN_S:
                path.unlink()  # whoever took it over was killed at that moment
                removed += 1
    return removed


def holders(root: Path) -> list[str]:
    """The names of all claims that are there, of the living and the dead."""
    return [path.stem for path in _files(root / "claims") if path.suffix == ".json"]


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def path_of(root: Path, name: str) -> Path:
    """The file of a claim."""
    return root / "claims" / f"{name}.json"


def _state(path: Path) -> tuple[int, int, int] | None:
    """What a touch changes, and a new file of the same name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _create(path: Path, nonce: str) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(owner() | {"nonce": nonce}, file)
    return True


def _remove_stale(path: Path) -> bool:
    """Whether the claim is gone now. It stays if its owner may be alive, or another process was quicker."""
    holder = _read(path)
    if holder is None and not path.exists():
        return True
    silent_s = WATCH.silent_s(path)
    seen = process_identity.is_running(holder) if holder else None
    if seen or (seen is None and silent_s < (SILENCE_S if holder else _HALF_WRITTEN_S)):
        return False
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return True
    if _read(aside) != holder:
        # Between our look and our rename another process had taken over: give it back what it holds.
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
        aside.unlink()
        return False
    aside.unlink()
    return True


def _holder(heartbeat: Path) -> dict[str, Any]:
    return _read(heartbeat / "owner.json" if heartbeat.is_dir() else heartbeat) or {}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        values = load_json(read_text(path))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
