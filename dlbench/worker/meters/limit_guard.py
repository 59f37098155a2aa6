"""`python -m dlbench.worker.meters.limit_guard UUID POWER_W CLOCK_MHZ`: holds limits while its parent lives.

The process sets the limits, prints "ready" (or "refused REASON"), and puts back what it found as soon as its stdin ends
or its parent is dead, killed by SIGKILL too. It writes what it found to a file before it sets anything. If it is killed
itself, with the whole job, the next one on this node finds the file and puts the device back first. Imports no torch.
"""

import contextlib
import fcntl
import json
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlbench.worker.meters.device_limits import DeviceLimits, LimitControl, LimitRefused
from dlbench.worker.meters.nvml import MeterUnavailable, NvmlDevice

#: How long to wait for another process that holds limits of the same device [s].
LOCK_TIMEOUT_S = 20.0
POLL_S = 0.5


def limits_state_file(uuid: str) -> Path:
    """Return the file that says what to put back: memory of this node, which a reboot empties as it resets limits."""
    shared = Path("/dev/shm")
    root = shared if shared.is_dir() and os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
    return root / f"dlbench-limits-{os.getuid()}-{uuid.removeprefix('GPU-')}.json"


@contextlib.contextmanager
def _lock_file(path: Path) -> Iterator[int]:
    """Hold the file; LimitRefused if another process holds it for too long."""
    give_up_s = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last owner may have removed it between the two calls.
            if path.exists() and os.fstat(file).st_ino == path.stat().st_ino:
                break
        except BlockingIOError:
            if time.monotonic() > give_up_s:
                os.close(file)
                raise LimitRefused("another process has set limits of this device and is still running") from None
        os.close(file)
        time.sleep(0.1)
    try:
        yield file
    finally:
        os.close(file)


def _read_saved_limits(file: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(file, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _restore_limits(control: LimitControl, found: dict[str, Any]) -> str | None:
    """Put back what was found; return what could not be put back, with how to do it by hand."""
    failed = []
    try:
        if found.get("power_w"):
            control.set_power_limit(float(found["power_w"]))
    except LimitRefused as error:
        failed.append(f"{error} (to restore it by hand: nvidia-smi -pl {found['power_w']:g})")
    try:
        if found.get("clock_locked"):
            control.unlock_clock()
    except LimitRefused as error:
        failed.append(f"{error} (to restore it by hand: nvidia-smi -rgc)")
    return "; ".join(failed) or None


def hold_until_parent_ends(uuid: str, limits: DeviceLimits) -> int:
    """Set the limits, wait for the end of the parent, and put back what was found; return the exit status."""
    parent = os.getppid()
    path = limits_state_file(uuid)
    with _lock_file(path) as file:
        control = LimitControl(NvmlDevice(uuid), uuid)
        left = _restore_limits(control, _read_saved_limits(file))
        if left:
            raise LimitRefused(
                f"an earlier run changed the power or clock limits of this device, and they cannot be restored: {left}"
            )
        os.ftruncate(file, 0)
        control.require_allowed_limits(limits)
        found = {"power_w": control.power_limit_w() if limits.power_w else None, "clock_locked": bool(limits.clock_mhz)}
        os.pwrite(file, json.dumps(found).encode(), 0)
        os.fsync(file)
        try:
            control.set_limits(limits)
            print("ready", flush=True)
            _wait_for_stdin_end(parent)
        finally:
            failed = _restore_limits(control, found)
            if failed is None:
                path.unlink(missing_ok=True)
        if failed is not None:
            print(f"left {failed}", flush=True)
            return 1
    return 0


def _wait_for_stdin_end(parent: int) -> None:
    """Wait until stdin ends; children of a killed parent may keep it open, so that its life is looked at too."""
    while os.getppid() == parent:
        if select.select([sys.stdin], [], [], POLL_S)[0] and not os.read(sys.stdin.fileno(), 4096):
            return


def main(arguments: list[str]) -> int:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    uuid, power_w, clock_mhz = arguments
    try:
        with contextlib.suppress(BrokenPipeError):
            return hold_until_parent_ends(uuid, DeviceLimits(int(power_w), int(clock_mhz)))
    except (LimitRefused, MeterUnavailable, OSError) as error:
        print(f"refused {error}", flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
