"""Which process is it, and does it still run? Process ids mean something on one kernel, in one PID namespace only."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any


def identity() -> dict[str, Any]:
    """This process: its machine, its process id, where that id has a meaning, and its start (ids are used again)."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "pid_started": start_time(pid), **place()}


def is_running(who: dict[str, Any]) -> bool | None:
    """Whether the process that `identity` described, over there, still runs; None where that cannot be told from here.

    Two containers can share a host name, and each count its processes from 1.
    """
    pid = who.get("pid")
    comparable = all(value is not None and who.get(name) == value for name, value in place().items())
    if not comparable or not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < 2**31 or is_hidden(pid):
        return None
    started = start_time(pid)
    return started is not None and started == who.get("pid_started")


def place() -> dict[str, str | None]:
    """In which a process id has a meaning: one start of one kernel, and one PID namespace of it; None where unknown."""
    boot, namespace = None, None
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return {"boot_id": boot, "pid_namespace": namespace}


def is_hidden(pid: int) -> bool:
    """Whether the process is there and /proc, mounted with hidepid, does not show it: it is another user's."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not Path(f"/proc/{pid}").exists()
    except OSError:
        return False
    return False


def start_time(pid: int) -> str | None:
    """When a process started, as the kernel counts it from its own start; None when there is none (or a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
