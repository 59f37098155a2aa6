"""The results folder during a run: checked at the start, and checked to be the same until the end.

A folder that is moved, deleted or unmounted during a run is not created again: results would be split over two places.
"""

import os
from pathlib import Path

from dlbench.atomic_file import temporary_name
from dlbench.errors import StoreError, convert_write_errors
from dlbench.launch.attempts import attempts_folder

#: Free space required for a campaign and for each case [bytes].
MIN_FREE_BYTES = 64 * 2**20
#: Free inodes required; a case creates about ten files, more with several ranks.
MIN_FREE_INODES = 100
#: Longest path inside the folder: `attempts/<attempt>/ranks/<file>`, or a claim with its suite.
_MAX_INNER_PATH = 400
_PATH_MAX = 4096


class ResultsFolderMissing(StoreError):
    """The results folder was moved, deleted or unmounted during a run."""


def require_writable_folder(root: Path, make: bool = True) -> None:
    """Check that results can be written to `root`, made if `make`. Raises StoreError if not, or if its disk is full."""
    check_folder_name(root)
    if root.is_symlink() and not root.exists():
        raise StoreError(
            f"'{root}' is a link to '{root.readlink()}', which does not exist; create that folder, or choose "
            f"another with --results"
        )
    probe = temporary_name(root / "write-test")
    with convert_write_errors(f"results to '{root}'", "; choose another folder with --results"):
        if make:
            root.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    require_disk_space(root)


def check_folder_name(root: Path) -> None:
    """Check that Parquet, JSON and this machine can handle the name. Raises StoreError: not UTF-8, or too long."""
    try:
        length = len(str(root).encode())
    except UnicodeEncodeError:
        shown = os.fsencode(root).decode("utf-8", "backslashreplace")
        raise StoreError(f"cannot use '{shown}' for results: the name is not UTF-8; choose another name") from None
    if length + _MAX_INNER_PATH > _PATH_MAX:
        raise StoreError(
            f"cannot use '{str(root)[:40]}...' for results: its path has {length} bytes, and files inside need "
            f"{_MAX_INNER_PATH} of the allowed {_PATH_MAX}; choose a shorter path"
        )


def require_disk_space(root: Path) -> None:
    """Check that the disk has space and inodes for a case. Raises StoreError if not, or if that is unknown."""
    with convert_write_errors(f"results to '{root}'"):
        status = os.statvfs(root)
    free_bytes = status.f_bavail * status.f_frsize
    if free_bytes < MIN_FREE_BYTES:
        raise StoreError(
            f"only {free_bytes / 2**20:.0f} MiB free in '{root}', but a campaign needs "
            f"{MIN_FREE_BYTES / 2**20:.0f} MiB; free space or choose another folder with --results"
        )
    # Some file systems create inodes on demand and report 0.
    if status.f_files and status.f_favail < MIN_FREE_INODES:
        raise StoreError(
            f"only {status.f_favail} free inodes in '{root}', but a case needs {MIN_FREE_INODES}; delete files or "
            f"choose another folder with --results"
        )


class ResultsFolder:
    """An open results folder; a replacement at the same path is detected.

    The folders are kept open: their inode numbers are then not reused, and an automounter does not unmount them.
    """

    def __init__(self, root: Path) -> None:
        """Open the folder and its attempts folder, made if missing. Raises StoreError if that fails."""
        self.root = root
        self._held: dict[Path, int] = {}
        with convert_write_errors(f"results to '{root}'"):
            try:
                attempts_folder(root).mkdir(exist_ok=True)
                for folder in (root, attempts_folder(root)):
                    self._held[folder] = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                raise ResultsFolderMissing(_folder_gone_message(root)) from None

    def require_same_folder(self) -> None:
        """Check that the folder is still there.

        Raises ResultsFolderMissing if it was moved, deleted, unmounted or replaced.
        """
        for folder, descriptor in self._held.items():
            try:
                found, held = folder.stat(), os.fstat(descriptor)
            except (FileNotFoundError, NotADirectoryError):
                raise ResultsFolderMissing(_folder_gone_message(folder)) from None
            except OSError as error:
                raise StoreError(f"cannot read '{folder}': {error.strerror or error}") from None
            if (found.st_dev, found.st_ino) != (held.st_dev, held.st_ino):
                raise ResultsFolderMissing(_folder_gone_message(folder))

    def __del__(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)


def _folder_gone_message(folder: Path) -> str:
    return f"'{folder}' was moved, deleted or unmounted during the run"
