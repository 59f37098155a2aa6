"""Claims: at most one process measures a case at a time, on one machine or on many that share a folder.

A claim is a file made with O_EXCL, which is atomic on local disks and on NFS, Lustre and GPFS alike (advisory locks are
not). Its owner touches it while it works; a claim is stale, and may be taken over, when its owner is dead, where that
can be told from here, or else when its owner has been silent for long.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dlbench.errors import StoreError
from dlbench.results.records import load_json

#: An owner whose process cannot be looked at from here is taken for dead when it has not touched its claim so long [s].
SILENCE_S = 300.0
#: How often an owner must touch its claim [s].
TOUCH_EVERY_S = 30.0
_POLL_S = 1.0


def owner() -> dict[str, Any]:
    """Who this process is: its machine, its process id, what that counts in, and its start (ids are used again)."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "pid_started": _start_time(pid), **_place()}


def is_alive(who: dict[str, Any], touched: float) -> bool:
    """Whether an owner still works, judged from here.

    Args:
        who: what `owner` gave, over there.
        touched: when its claim was last touched [s since the epoch].
    """
    seen = _look_for(who)
    return time.time() - touched < SILENCE_S if seen is None else seen


def _look_for(who: dict[str, Any]) -> bool | None:
    """Whether the owner's process is there; None where that cannot be told from here.

    A process id can be looked up where it was given: on this machine since it was switched on, and in this PID
    namespace. Two containers can share a host name, and each count its processes from 1.
    """
    pid = who.get("pid")
    comparable = all(value is not None and who.get(name) == value for name, value in _place().items())
    if not comparable or not isinstance(pid, int) or _is_hidden(pid):
        return None
    started = _start_time(pid)
    return started is not None and started == who.get("pid_started")


class Claim:
    """A case claimed by this process until `release`."""

    def __init__(self, path: Path, nonce: str) -> None:
        self.path = path
        self._nonce = nonce

    def touch(self) -> None:
        """Show that the owner is still at work."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def release(self) -> None:
        """Give the claim up, unless somebody took it over in the meantime."""
        if (_read(self.path) or {}).get("nonce") == self._nonce:
            self.path.unlink(missing_ok=True)


def take(root: Path, name: str) -> Claim | None:
    """Claim `name` in the results folder `root`; None when a living process holds it.

    Raises:
        StoreError: the folder cannot be written.
    """
    path = _path(root, name)
    nonce = secrets.token_hex(8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _create(path, nonce) or (_remove_stale(path) and _create(path, nonce)):
            return Claim(path, nonce)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    return None


def abandoned(root: Path, names: Iterable[str]) -> Iterator[str]:
    """Those of the claims `names` that turn out to be stale, as soon as that is known.

    An owner at work touches its claim every `TOUCH_EVERY_S`, so this waits so long for a sign of each owner that cannot
    be looked at, and up to `SILENCE_S` for one that gives none. Claims of the living and released ones are passed over.
    """
    touched = {name: _touched(root, name) for name in names}
    while touched:
        for name, before in list(touched.items()):
            seen = _look_for(_read(_path(root, name)) or {})
            if before is None or seen or _touched(root, name) != before:
                del touched[name]
            elif seen is False or time.time() - before >= SILENCE_S:
                del touched[name]
                yield name
        if touched:
            time.sleep(_POLL_S)


def _path(root: Path, name: str) -> Path:
    return root / "claims" / f"{name}.json"


def _touched(root: Path, name: str) -> float | None:
    try:
        return _path(root, name).stat().st_mtime
    except OSError:
        return None


def _create(path: Path, nonce: str) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(owner() | {"nonce": nonce}, file)
    return True


def _remove_stale(path: Path) -> bool:
    """Move a stale claim aside; False when it is alive, or another process was quicker."""
    try:
        touched = path.stat().st_mtime
    except FileNotFoundError:
        return True
    holder = _read(path)
    if holder is None:
        # Being written this very moment, or cut off by a kill: give its owner time.
        if time.time() - touched < 10:
            return False
    elif is_alive(holder, touched):
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


def _read(path: Path) -> dict[str, Any] | None:
    try:
        values = load_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _place() -> dict[str, str | None]:
    """In which a process id has a meaning: one start of one kernel, and one PID namespace of it; None where unknown."""
    boot, namespace = None, None
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return {"boot_id": boot, "pid_namespace": namespace}


def _is_hidden(pid: int) -> bool:
    """Whether the process is there and /proc, mounted with hidepid, does not show it: it is another user's."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not Path(f"/proc/{pid}").exists()
    except OSError:
        return False
    return False


def _start_time(pid: int) -> str | None:
    """When a process started, as the kernel counts it from its own start; None when there is none (or a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
