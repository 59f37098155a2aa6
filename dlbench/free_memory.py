"""Free main memory for a process: of the machine, limited by its control group."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from dlbench.errors import DeviceUnavailable

MEMINFO = Path("/proc/meminfo")
OWN_CGROUP = Path("/proc/self/cgroup")
CGROUP = Path("/sys/fs/cgroup")
#: Files with limit, use, and reclaimable file cache: of cgroup version 2, and of version 1.
_CGROUP_FILES = (
    (CGROUP, "memory.max", "memory.current", "inactive_file"),
    (CGROUP / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_bytes() -> int:
    """Return the memory that a new process may use: the kernel's estimate, limited by its control groups.

    Raises DeviceUnavailable if the kernel reports no value.
    """
    free_kib = read_kernel_file_number(MEMINFO, "MemAvailable:")
    if free_kib is None:
        raise DeviceUnavailable(f"{MEMINFO} has no MemAvailable; set a limit with --memory")
    return min([1024 * free_kib, *(room for _, room in _cgroup_limits_and_remaining())])


def cgroup_limits() -> list[int]:
    """Return the limits of the control groups of this process [bytes]; empty if unlimited."""
    return [limit for limit, _ in _cgroup_limits_and_remaining()]


def allocatable_bytes() -> int:
    """Return `available_bytes`, limited by this process's data limit (RLIMIT_DATA)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return available_bytes()
    return min(available_bytes(), max(0, limit - used_data_segment_bytes()))


def used_data_segment_bytes() -> int:
    """Return the bytes that count against RLIMIT_DATA of this process; 0 if unknown."""
    return 1024 * (read_kernel_file_number(Path("/proc/self/status"), "VmData:") or 0)


def read_kernel_file_number(file: Path, name: str) -> int | None:
    """Return the number behind `name`, on a line of its own in a file of the kernel; None if it is missing."""
    try:
        lines = (line.split() for line in file.read_text().splitlines())
        return next((int(words[1]) for words in lines if len(words) > 1 and words[0] == name), None)
    except (OSError, ValueError):
        return None


def _cgroup_limits_and_remaining() -> Iterator[tuple[int, int]]:
    """Return limit and remaining bytes of each limited control group of this process."""
    for root, limit_file, used_file, cache_name in _CGROUP_FILES:
        for group in own_and_parent_cgroups(root, "" if root == CGROUP else "memory"):
            try:
                limit = (group / limit_file).read_text().strip()
                used = int((group / used_file).read_text())
                cache = read_kernel_file_number(group / "memory.stat", cache_name) or 0
            except (OSError, ValueError):
                continue
            if limit.isdigit():
                yield int(limit), max(0, int(limit) - max(0, used - cache))


def own_and_parent_cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Return the control group of this process and all its parents; in a container its own group is the root.

    `root` is the mount point, `controller` one of version 1, such as "memory"; "" for version 2.
    """
    yield root
    try:
        lines = OWN_CGROUP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            parts = Path(os.path.normpath(path)).parts[1:]
            yield from (root.joinpath(*parts[: i + 1]) for i in range(len(parts)))
