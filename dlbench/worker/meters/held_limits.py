"""Limits of a device for the length of a case: starts the guard that sets them and puts back what was there."""

import os
import select
import subprocess
import sys

from dlbench.errors import InvalidMeasurement
from dlbench.suites.case import Case
from dlbench.worker.meters.device_limits import DeviceLimits
from dlbench.worker.meters.limit_guard import limits_state_file

READY_TIMEOUT_S = 90.0
RESTORE_TIMEOUT_S = 60.0
#: The guard must outlive the worker: what ends the worker's processes looks for this variable.
_ATTEMPT_FOLDER_VARIABLE = "DLBENCH_ATTEMPT_FOLDER"


class PowerAndClockLimits:
    """Limits that hold until `restore`, or until this process ends in any way."""

    def __init__(self, uuid: str, limits: DeviceLimits) -> None:
        arguments = [uuid, str(limits.power_w), str(limits.clock_mhz)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dlbench.worker.meters.limit_guard", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != _ATTEMPT_FOLDER_VARIABLE},
            start_new_session=True,  # a signal to the worker's group must not reach it
        )
        self.refusal = self._read_why_limits_refused()

    def _read_why_limits_refused(self) -> str | None:
        """Return why the limits are not set; None if they are."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], READY_TIMEOUT_S)[0]:
            return f"the process that sets power limits and clocks did not answer within {READY_TIMEOUT_S:.0f} s"
        said = self._process.stdout.readline().strip()
        if said == "ready":
            return None
        return said.partition(" ")[2] or "the process that sets power limits and clocks has ended"

    def restore(self) -> str | None:
        """Put back what was there; return what could not be put back."""
        try:
            said, _ = self._process.communicate(timeout=RESTORE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"the process that restores the limits did not answer within {RESTORE_TIMEOUT_S:.0f} s"
        lines = said.strip().splitlines()
        return lines[-1].partition(" ")[2] if lines and not lines[-1].startswith("ready") else None


def hold_limits(case: Case, uuid: str | None) -> PowerAndClockLimits | None:
    """Set the limits of the case; put back first what a killed run left. None if neither is needed.

    Raises:
        InvalidMeasurement: the device or its driver refuses a limit of the case; the device is as it was.
    """
    limits = DeviceLimits(case.power_cap_w, case.clock_mhz)
    if limits == DeviceLimits() and (uuid is None or not limits_state_file(uuid).exists()):
        return None
    if uuid is None:
        raise InvalidMeasurement("power_cap_w and clock_mhz can be set only on NVIDIA GPUs with a known UUID")
    held = PowerAndClockLimits(uuid, limits)
    if held.refusal is not None and limits != DeviceLimits():
        left = held.restore()
        raise InvalidMeasurement(held.refusal if left in (None, held.refusal) else f"{held.refusal}; {left}")
    return held


def restore_limits(held: PowerAndClockLimits | None) -> tuple[str, ...]:
    """Put the device back; return a warning, as "code: sentence", if that failed."""
    if held is None:
        return ()
    left = held.refusal or held.restore()
    if not left:
        return ()
    warning = f"limits_left: power limit or clock of the device was not restored: {left}."
    print(warning, file=sys.stderr, flush=True)  # a case that fails has no warnings in its record
    return (warning,)
