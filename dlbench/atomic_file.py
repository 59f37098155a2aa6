"""Files that are written whole or not at all: under a temporary name that says who writes, then renamed.

    .<name>.<place>-<pid>-<start>.tmp

`place` stands for a kernel and a PID namespace, in which the process id has a meaning. What a killed writer leaves
behind can therefore be told from what is being written at this moment (`writer_runs`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from dlbench import process_identity

_SCHEME = re.compile(r"\..+\.(?P<place>[0-9a-f]{8})-(?P<pid>\d{1,10})-(?P<start>\d+)\.tmp")
#: Schemes of earlier versions, which name the process id alone.
_EARLIER = re.compile(r"\..+\.parquet\.\d+\.tmp|\..+\.json\.\d+(?:\.tmp)?|\.write-test-\d+")


def temporary_name(target: Path) -> Path:
    """Where this process writes what will become `target`: beside it, under a name that no other process uses."""
    pid = os.getpid()
    return target.with_name(f".{target.name}.{_place()}-{pid}-{process_identity.start_time(pid) or 0}.tmp")


def read_text(path: Path) -> str:
    """The UTF-8 text of a regular file: a pipe that lies in its place would be waited for without end.

    Raises:
        OSError: there is no such file, or it cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), encoding="utf-8") as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no file", str(path))
        return file.read()


def write_atomically(path: Path, text: str | Iterable[str]) -> None:
    """Write the whole text, or the parts of it, or nothing: temporary name, flush to disk, rename.

    What is no regular file, such as a pipe or /dev/stdout, is written to directly.

    Raises:
        OSError: the folder is not there or cannot be written; nothing is left behind.
    """
    parts = [text] if isinstance(text, str) else text
    if path.exists() and not path.is_file():
        path.write_text("".join(parts), encoding="utf-8")
        return
    temporary = temporary_name(path)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlast a crash of the node, where its file system can."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is one that dlbench, in this version or an earlier one, was writing."""
    return bool(_SCHEME.fullmatch(name) or _EARLIER.fullmatch(name))


def writer_runs(name: str) -> bool | None:
    """Whether the process that writes under the temporary name still runs; None where that cannot be told from here."""
    found = _SCHEME.fullmatch(name)
    if found is None or found["place"] != _place():
        return None
    who = {"pid": int(found["pid"]), "pid_started": found["start"], **process_identity.place()}
    return process_identity.is_running(who)


def _place() -> str:
    known = process_identity.place()
    return hashlib.sha256("\n".join(map(str, known.values())).encode()).hexdigest()[:8]
