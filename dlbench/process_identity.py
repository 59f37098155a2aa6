"""Identity of a process, and whether it still runs. Process ids are valid only on one kernel, in one PID namespace."""

import contextlib
import os
import socket
from pathlib import Path
from typing import Any


def current_process_identity() -> dict[str, Any]:
    """Return the identity of this process: machine, process id, kernel and PID namespace, start time (ids are
    reused)."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "pid_started": process_start_time(pid),
        **boot_id_and_pid_namespace(),
    }


def is_running(who: dict[str, Any]) -> bool | None:
    """Whether the process of this `identity` still runs; None if it is on another host or in another namespace.

    Two containers can have the same host name and the same process ids.
    """
    pid = who.get("pid")
    comparable = all(
        value is not None and who.get(name) == value for name, value in boot_id_and_pid_namespace().items()
    )
    if (
        not comparable
        or not isinstance(pid, int)
        or isinstance(pid, bool)
        or not 0 < pid < 2**31
        or is_process_hidden(pid)
    ):
        return None
    started = process_start_time(pid)
    return started is not None and started == who.get("pid_started")


def boot_id_and_pid_namespace() -> dict[str, str | None]:
    """Return the scope of process ids: boot id of the kernel and PID namespace; None if unknown."""
    boot, namespace = None, None
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with contextlib.suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return {"boot_id": boot, "pid_namespace": namespace}


def is_process_hidden(pid: int) -> bool:
    """Whether the process exists but /proc hides it (hidepid): it belongs to another user."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not Path(f"/proc/{pid}").exists()
    except OSError:
        return False
    return False


def process_start_time(pid: int) -> str | None:
    """Return the start time of a process, in kernel ticks since boot; None if it does not exist (or is a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
