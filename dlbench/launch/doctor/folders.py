"""Folders: there, writable, with space, on every node, and on a server whose clock is right."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from dlbench.launch.doctor.machine import MIB, Finding, Place

#: A campaign needs so much in its results folder, and PyTorch's compilers so much in the temporary one [bytes].
MIN_RESULTS_BYTES = 64 * MIB
MIN_TEMPORARY_BYTES = 1024 * MIB
#: NCCL and the loaders of PyTorch fail with Docker's 64 MB [bytes].
MIN_SHARED_MEMORY_BYTES = 512 * MIB
#: So long may a network file system need until a new file is seen on another node [s].
TOKEN_PATIENCE_S = 15.0
#: Claims are judged by the time of their files; a clock further off would make a living owner look dead [s].
MAX_CLOCK_OFFSET_S = 60.0


def check_folders(place: Place) -> Iterator[Finding]:
    """Results folder, temporary folder, shared memory: there, writable, with space, and on the same clock."""
    if place.results is not None:
        yield from _results(place, place.results)
    temporary = Path(place.environment.get("TMPDIR") or "/tmp")
    yield from _folder("temporary", place.root / str(temporary).lstrip("/"), MIN_TEMPORARY_BYTES, "set TMPDIR", "warn")
    shared = place.root / "dev/shm"
    if shared.is_dir():
        usage = os.statvfs(shared)
        size = usage.f_blocks * usage.f_frsize
        if size < MIN_SHARED_MEMORY_BYTES:
            yield Finding("shared memory", "warn", f"/dev/shm has only {size // MIB} MiB: NCCL and loaders will fail",
                          "docker run --ipc=host, or --shm-size=8g")  # fmt: skip
        else:
            yield Finding("shared memory", "ok", f"{size // MIB} MiB")


def _results(place: Place, folder: Path) -> Iterator[Finding]:
    """The folder is never made here: one that is missing would be found missing no more."""
    other = "choose another with --results"
    if folder.is_dir():
        yield from _folder("results", folder, MIN_RESULTS_BYTES, other)
    elif place.in_job:
        yield Finding("results", "fail", f"the results folder {folder} is not there",
                      "every node of a job must see it: a mount may be missing on this node")  # fmt: skip
        return
    else:
        there = next(path for path in folder.parents if path.exists())
        if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
            yield Finding("results", "ok", f"{folder} is not there yet, and can be made in {there}")
        else:
            yield Finding("results", "fail", f"cannot write in {there}, where {folder} would have to be made", other)
        return
    if place.token is not None and not _appears(place.token):
        yield Finding("results", "fail", f"{folder} is another folder here than on the job's first node: {place.token} "
                      "is not in it", "the results folder must be on a disk that all nodes share")  # fmt: skip


def _appears(file: Path) -> bool:
    until = time.monotonic() + TOKEN_PATIENCE_S
    while not file.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def _folder(check: str, folder: Path, least_bytes: int, mend: str, level: str = "fail") -> Iterator[Finding]:
    probe = folder / f".doctor-{socket.gethostname()}-{os.getpid()}"
    try:
        probe.write_bytes(b"x" * 4096)
        offset_s = probe.stat().st_mtime - time.time()
        probe.unlink()
        usage = os.statvfs(folder)
    except OSError as error:
        yield Finding(check, level, f"cannot write in {folder}: {error.strerror or error}", mend)
        return
    free = usage.f_bavail * usage.f_frsize
    if free < least_bytes:
        yield Finding(check, level, f"only {free // MIB} MiB free in {folder}, of {least_bytes // MIB} needed", mend)
    else:
        yield Finding(check, "ok", f"{folder}: {free // MIB} MiB free")
    if abs(offset_s) > MAX_CLOCK_OFFSET_S:
        yield Finding(
            "clock",
            "fail",
            f"the clock of {folder}'s server is {offset_s:+.0f} s off this node's: jobs would take each other's cases",
            "ask the site to set the time (chrony, NTP)",
        )


def check_mounts(place: Place) -> Iterator[Finding]:
    """The profile's mounts: here, or on every node of the allocation."""
    if place.site is None:
        return
    paths = [mount.source for mount in place.site.container.mounts]
    paths += [str(place.results)] if place.results else []
    nodes = place.environment.get("SLURM_JOB_NUM_NODES", "")
    if not paths:
        return
    if nodes.isdigit() and place.which("srun"):
        yield from _mounts_on_nodes(place, paths, int(nodes))
        return
    missing = [path for path in paths if not place.exists(path)]
    if missing:
        where = "here; they may be on the compute nodes only: run dlbench doctor inside of an allocation"
        yield Finding("mounts", "warn", f"{', '.join(missing)} not there", where)
    else:
        yield Finding("mounts", "ok", ", ".join(paths))


def _mounts_on_nodes(place: Place, paths: list[str], nodes: int) -> Iterator[Finding]:
    look = (
        'for path in "$@"; do [ -e "$path" ] || echo "$SLURMD_NODENAME lacks $path"; done; echo "$SLURMD_NODENAME seen"'
    )
    step = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    answer = place.run([*step, "sh", "-c", look, "sh", *paths], 120.0)
    lines = answer.out.splitlines() if answer else []
    lacking = sorted(line for line in lines if " lacks " in line)
    seen = sum(line.endswith(" seen") for line in lines)
    if lacking:
        yield Finding("mounts", "fail", "; ".join(lacking), "ask the site about that node, or leave it out (--exclude)")
    if seen < nodes:
        said = " ".join(answer.err.split()) if answer else "no answer"
        yield Finding("mounts", "fail", f"only {seen} of {nodes} nodes answer: {said}", "leave the silent nodes out")
    elif not lacking:
        yield Finding("mounts", "ok", f"{', '.join(paths)} on all {nodes} nodes")
