"""The results folder during a run: fit to be written at the start, and the same one until the end.

A folder that is moved, deleted or unmounted under a run is never made again in silence: what was measured before would
be in one place, and what comes after in another.
"""

from __future__ import annotations

import os
from pathlib import Path

from dlbench.atomic_file import temporary_name
from dlbench.errors import StoreError
from dlbench.launch.attempts import attempts_folder

#: The free space that a campaign must start with, and that a case needs [bytes].
MIN_FREE_BYTES = 64 * 2**20
#: A case makes about ten files, several ranks some more.
MIN_FREE_INODES = 100
#: What dlbench adds to the folder's own path at most: `attempts/<attempt>/ranks/<file>`, and a claim with its suite.
_LONGEST_INSIDE = 400
_PATH_MAX = 4096


class FolderGone(StoreError):
    """The results folder was moved, deleted or unmounted during a run."""


def check_folder(root: Path, make: bool = True) -> None:
    """Find out before the first case whether results can be kept in `root`.

    Args:
        root: the results folder.
        make: make it if it is not there.

    Raises:
        StoreError: the folder cannot be made or written, its name cannot be used, or its disk is full.
    """
    check_name(root)
    if root.is_symlink() and not root.exists():
        raise StoreError(
            f"'{root}' is a link to '{root.readlink()}', which does not exist; make that folder, "
            "or choose another with --results"
        )
    probe = temporary_name(root / "write-test")
    try:
        if make:
            root.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        raise StoreError(
            f"cannot write results to '{root}': {error.strerror or error}; choose another with --results"
        ) from None
    check_space(root)


def check_name(root: Path) -> None:
    """Refuse a name that Parquet, JSON or this machine cannot carry.

    Raises:
        StoreError: it is not UTF-8, or the paths inside would be too long.
    """
    try:
        length = len(str(root).encode())
    except UnicodeEncodeError:
        shown = os.fsencode(root).decode("utf-8", "backslashreplace")
        raise StoreError(f"cannot use '{shown}' for results: its name is not UTF-8; choose another") from None
    if length + _LONGEST_INSIDE > _PATH_MAX:
        raise StoreError(
            f"cannot use '{str(root)[:40]}...' for results: its path has {length} bytes, and the files inside need "
            f"{_LONGEST_INSIDE} of the {_PATH_MAX} that a path may have; choose a shorter one"
        )


def check_space(root: Path) -> None:
    """Whether the disk has room for a case.

    Raises:
        StoreError: it is full, or has no room for further files (inodes), or cannot be asked.
    """
    try:
        status = os.statvfs(root)
    except OSError as error:
        raise StoreError(f"cannot write results to '{root}': {error.strerror or error}") from None
    free_bytes = status.f_bavail * status.f_frsize
    if free_bytes < MIN_FREE_BYTES:
        raise StoreError(
            f"only {free_bytes / 2**20:.0f} MiB free in '{root}', and a campaign needs {MIN_FREE_BYTES / 2**20:.0f} MiB"
        )
    # Some file systems make inodes as they are needed, and say that there are none.
    if status.f_files and status.f_favail < MIN_FREE_INODES:
        raise StoreError(
            f"room for only {status.f_favail} more files (inodes) in '{root}', and a case needs {MIN_FREE_INODES}"
        )


class ResultsFolder:
    """A results folder that is held, so that another one in its place is noticed.

    The folders are held open: their numbers are not given to new ones meanwhile, and an automounter leaves them alone.
    """

    def __init__(self, root: Path) -> None:
        """Hold the folder and its attempts, which are made if they are not there.

        Raises:
            StoreError: there is no such folder, or it cannot be read or written.
        """
        self.root = root
        self._held: dict[Path, int] = {}
        try:
            attempts_folder(root).mkdir(exist_ok=True)
            for folder in (root, attempts_folder(root)):
                self._held[folder] = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise FolderGone(_gone(root)) from None
        except OSError as error:
            raise StoreError(f"cannot write results to '{root}': {error.strerror or error}") from None

    def check(self) -> None:
        """Find out whether it is still there.

        Raises:
            FolderGone: it was moved, deleted or unmounted, or another one is in its place.
        """
        for folder, descriptor in self._held.items():
            try:
                found, held = folder.stat(), os.fstat(descriptor)
            except (FileNotFoundError, NotADirectoryError):
                raise FolderGone(_gone(folder)) from None
            except OSError as error:
                raise StoreError(f"cannot read '{folder}': {error.strerror or error}") from None
            if (found.st_dev, found.st_ino) != (held.st_dev, held.st_ino):
                raise FolderGone(_gone(folder))

    def __del__(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)


def _gone(folder: Path) -> str:
    return f"'{folder}' was moved, deleted or unmounted during the run"
