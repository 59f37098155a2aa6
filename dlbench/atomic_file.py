"""Atomic writes: files are written under a temporary name that contains the writer, then renamed.

    .<name>.<place>-<pid>-<start>.tmp

`place` identifies a kernel and a PID namespace, the scope of the process id. Files of killed writers can therefore be
distinguished from files being written (`is_writer_running`).
"""

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from dlbench import process_identity
from dlbench.errors import convert_write_errors

_TEMPORARY_NAME = re.compile(r"\..+\.(?P<place>[0-9a-f]{8})-(?P<pid>\d{1,10})-(?P<start>\d+)\.tmp")
#: Names of earlier versions, which contain only the process id.
_EARLIER_TEMPORARY_NAME = re.compile(r"\..+\.parquet\.\d+\.tmp|\..+\.json\.\d+(?:\.tmp)?|\.write-test-\d+")


def temporary_name(target: Path) -> Path:
    """Return the temporary name for `target`: in the same folder, unique to this process."""
    pid = os.getpid()
    writer = f"{_boot_and_namespace_digest()}-{pid}-{process_identity.process_start_time(pid) or 0}"
    return target.with_name(f".{target.name}.{writer}.tmp")


def read_text(path: Path) -> str:
    """Read a regular file as UTF-8; other files, such as a pipe that would block, are an error.

    Raises OSError if the file cannot be read, UnicodeDecodeError if it is not UTF-8.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), encoding="utf-8") as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        return file.read()


def write_atomically(path: Path, text: str | Iterable[str]) -> None:
    """Write a text (or its parts) atomically: temporary name, flush to disk, rename; pipes and devices directly.

    Raises OSError if the folder does not exist or cannot be written; no file is left then.
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


def save_text(path: Path, text: str | Iterable[str]) -> None:
    """Write a text (or its parts) atomically; create a missing folder. Raises StoreError if it cannot be written."""
    with convert_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlast a crash of the node, where its file system can."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def is_temporary_name(name: str) -> bool:
    """Whether the name is a temporary name of this or an earlier version of dlbench."""
    return bool(_TEMPORARY_NAME.fullmatch(name) or _EARLIER_TEMPORARY_NAME.fullmatch(name))


def is_writer_running(name: str) -> bool | None:
    """Whether the writer of the temporary file still runs; None if it is on another host or in another namespace."""
    found = _TEMPORARY_NAME.fullmatch(name)
    if found is None or found["place"] != _boot_and_namespace_digest():
        return None
    who = {"pid": int(found["pid"]), "pid_started": found["start"], **process_identity.boot_id_and_pid_namespace()}
    return process_identity.is_running(who)


def _boot_and_namespace_digest() -> str:
    return hashlib.sha256(
        "\n".join(map(str, process_identity.boot_id_and_pid_namespace().values())).encode()
    ).hexdigest()[:8]
