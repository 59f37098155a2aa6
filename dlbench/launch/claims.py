"""Claims: at most one process measures a case at a time, on one machine or on many that share a folder.

A claim is a file made with O_EXCL, which is atomic on local disks and on NFS, Lustre and GPFS alike (advisory locks are
not). Its owner touches it while it works; a claim whose owner is dead (same host) or silent (another host) is stale and
may be taken over.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from dlbench.errors import StoreError

#: An owner on another host that has not touched its claim for so long is taken for dead [s].
SILENCE_S = 300.0
#: How often an owner must touch its claim [s].
TOUCH_EVERY_S = 30.0


def owner() -> dict[str, Any]:
    """Who this process is: host, process id and start time (a process id alone is used again)."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "pid_started": _start_time(os.getpid())}


def is_alive(who: dict[str, Any], touched: float) -> bool:
    """Whether an owner still works, judged from this host.

    Args:
        who: what `owner` gave, over there.
        touched: when its claim was last touched [s since the epoch].
    """
    if who.get("host") == socket.gethostname():
        pid = who.get("pid")
        started = _start_time(pid) if isinstance(pid, int) else None
        return started is not None and started == who.get("pid_started")
    return time.time() - touched < SILENCE_S


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
    path = root / "claims" / f"{name}.json"
    nonce = secrets.token_hex(8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _create(path, nonce) or (_remove_stale(path) and _create(path, nonce)):
            return Claim(path, nonce)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
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
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _start_time(pid: int) -> str | None:
    """When a process of this host started, as the kernel counts it; None when there is none (or it is a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
