"""Checks of folders: existing, writable, free space, shared by all nodes, and the clock of their server."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from dlbench.launch.doctor.machine import MIB, CheckContext, Finding

#: Free space required in the results folder, and in the temporary folder (PyTorch's compilers) [bytes].
MIN_RESULTS_BYTES = 64 * MIB
MIN_TEMPORARY_BYTES = 1024 * MIB
#: Shared memory required by NCCL and PyTorch's data loaders; Docker's 64 MB are too small [bytes].
MIN_SHARED_MEMORY_BYTES = 512 * MIB
#: Time until a new file on a network file system is visible on another node [s].
TOKEN_TIMEOUT_S = 15.0
#: Largest clock offset; claims are judged by file times, and a larger offset makes a running owner look dead [s].
MAX_CLOCK_OFFSET_S = 60.0


def check_folders(context: CheckContext) -> Iterator[Finding]:
    """Check results folder, temporary folder and shared memory: existing, writable, free space, clock."""
    if context.results is not None:
        yield from _check_results_folder(context, context.results)
    temporary = Path(context.environment.get("TMPDIR") or "/tmp")
    temporary = context.root / str(temporary).lstrip("/")
    yield from _check_folder("temporary", temporary, MIN_TEMPORARY_BYTES, "set TMPDIR", "warn")
    shared = context.root / "dev/shm"
    if shared.is_dir():
        usage = os.statvfs(shared)
        size = usage.f_blocks * usage.f_frsize
        if size < MIN_SHARED_MEMORY_BYTES:
            text = f"/dev/shm has only {size // MIB} MiB: NCCL and data loaders will fail"
            yield Finding("shared memory", "warn", text, "docker run --ipc=host, or --shm-size=8g")
        else:
            yield Finding("shared memory", "ok", f"{size // MIB} MiB")


def _check_results_folder(context: CheckContext, folder: Path) -> Iterator[Finding]:
    """Check the results folder without creating it: a created folder would hide that it was missing."""
    other = "choose another folder with --results"
    if folder.is_dir():
        yield from _check_folder("results", folder, MIN_RESULTS_BYTES, other)
    elif context.in_job:
        mend = "all nodes of a job must share the results folder; check the mounts of this node"
        yield Finding("results", "fail", f"results folder {folder} does not exist", mend)
        return
    else:
        there = next(path for path in folder.parents if path.exists())
        if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
            yield Finding("results", "ok", f"{folder} does not exist yet and can be created in {there}")
        else:
            yield Finding("results", "fail", f"cannot write to {there}, where {folder} would be created", other)
        return
    if context.token is not None and not _wait_for_file(context.token):
        text = f"{folder} is not the same folder as on the job's first node: the file {context.token} is missing here"
        yield Finding("results", "fail", text, "put the results folder on a disk that all nodes share")


def _wait_for_file(file: Path) -> bool:
    until = time.monotonic() + TOKEN_TIMEOUT_S
    while not file.exists():
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def _check_folder(check: str, folder: Path, least_bytes: int, mend: str, level: str = "fail") -> Iterator[Finding]:
    probe = folder / f".doctor-{socket.gethostname()}-{os.getpid()}"
    try:
        probe.write_bytes(b"x" * 4096)
        offset_s = probe.stat().st_mtime - time.time()
        probe.unlink()
        usage = os.statvfs(folder)
    except OSError as error:
        yield Finding(check, level, f"cannot write to {folder}: {error.strerror or error}", mend)
        return
    free = usage.f_bavail * usage.f_frsize
    if free < least_bytes:
        text = f"only {free // MIB} MiB free in {folder}; {least_bytes // MIB} MiB are needed"
        yield Finding(check, level, text, mend)
    else:
        yield Finding(check, "ok", f"{folder}: {free // MIB} MiB free")
    if abs(offset_s) > MAX_CLOCK_OFFSET_S:
        text = f"the clock of {folder}'s server differs by {offset_s:+.0f} s from this node"
        mend = "ask the administrators to synchronize the clocks (chrony, NTP)"
        effect = "jobs cannot see which other jobs are running, and would measure their cases again"
        yield Finding("clock", "fail", f"{text}: {effect}", mend)


def check_mounts(context: CheckContext) -> Iterator[Finding]:
    """Check the mounts of the profile, here or on every node of the allocation."""
    if context.site is None:
        return
    paths = [mount.source for mount in context.site.container.mounts]
    paths += [str(context.results)] if context.results else []
    nodes = context.environment.get("SLURM_JOB_NUM_NODES", "")
    if not paths:
        return
    if nodes.isdigit() and context.which("srun"):
        yield from _check_mounts_on_nodes(context, paths, int(nodes))
    elif missing := [path for path in paths if not context.exists(path)]:
        mend = "if these paths exist on the compute nodes, run dlbench doctor there, inside an allocation"
        yield Finding("mounts", "warn", f"missing on this node: {', '.join(missing)}", mend)
    else:
        yield Finding("mounts", "ok", ", ".join(paths))


def _check_mounts_on_nodes(context: CheckContext, paths: list[str], nodes: int) -> Iterator[Finding]:
    look = (
        'for path in "$@"; do [ -e "$path" ] || echo "$SLURMD_NODENAME lacks $path"; done; echo "$SLURMD_NODENAME seen"'
    )
    step = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    answer = context.run([*step, "sh", "-c", look, "sh", *paths], 120.0)
    lines = answer.out.splitlines()
    lacking = sorted(line for line in lines if " lacks " in line)
    seen = sum(line.endswith(" seen") for line in lines)
    if lacking:
        mend = "ask the administrators about these nodes, or exclude them (--exclude)"
        yield Finding("mounts", "fail", "; ".join(lacking), mend)
    if seen < nodes:
        text = f"only {seen} of {nodes} nodes answered: {' '.join(answer.err.split())}"
        yield Finding("mounts", "fail", text, "exclude the nodes that do not answer (--exclude)")
    elif not lacking:
        yield Finding("mounts", "ok", f"{', '.join(paths)} on all {nodes} nodes")
