"""Power limit and clock of an NVIDIA device: what it accepts, how they are set, and how they are put back.

They are set through NVML where that is permitted, else by the commands of the site, in the environment variables of
`COMMAND_VARIABLES`. A value outside the range that the device accepts is refused before anything is set.
"""

import os
import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pynvml

from dlbench.worker.meters.nvml import NvmlDevice

#: Commands of a site: `{uuid}`, `{watts}` and `{mhz}` are replaced.
COMMAND_VARIABLES = {"power": "DLBENCH_SET_POWER_LIMIT", "lock": "DLBENCH_LOCK_CLOCK", "unlock": "DLBENCH_UNLOCK_CLOCK"}
COMMAND_TIMEOUT_S = 30.0
#: How far the enforced limit may be from the one that was set [W].
LIMIT_TOLERANCE_W = 1.0


class LimitRefused(Exception):
    """A limit that cannot be set, with the reason. Handled internally."""


@dataclass(frozen=True)
class DeviceLimits:
    """Power limit [W] and highest clock [MHz] of a device; 0 where none is asked for."""

    power_w: int = 0
    clock_mhz: int = 0


class LimitControl:
    """Sets the limits of one device; every method raises LimitRefused if the device or its driver refuses."""

    def __init__(self, device: NvmlDevice, uuid: str, environ: Mapping[str, str] = os.environ) -> None:
        self._device = device
        self._uuid = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
        self._commands = {
            name: environ[variable] for name, variable in COMMAND_VARIABLES.items() if environ.get(variable)
        }

    def require_allowed_limits(self, limits: DeviceLimits) -> None:
        """Compare the limits with the range that the device accepts."""
        for name, value, found, unit in (
            ("power_cap_w", limits.power_w, self._device.power_limit_range_w(), "W"),
            ("clock_mhz", limits.clock_mhz, self._device.sm_clock_range_mhz(), "MHz"),
        ):
            if value and found and not found[0] <= value <= found[1]:
                low, high = found
                raise LimitRefused(f"{name} is {value}; this device accepts {low:.0f} to {high:.0f} {unit}")

    def power_limit_w(self) -> float:
        """Read the limit that was set last [W]."""
        try:
            return self._device.power_limit_w()
        except pynvml.NVMLError as error:
            raise LimitRefused(f"the power limit cannot be read: {error}") from error

    def set_limits(self, limits: DeviceLimits) -> None:
        """Set what is asked for, and read the power limit back."""
        if limits.power_w:
            self.set_power_limit(limits.power_w)
            enforced_w = self._device.read_state().power_limit_w
            if enforced_w is not None and abs(enforced_w - limits.power_w) > LIMIT_TOLERANCE_W:
                raise LimitRefused(f"power_cap_w is {limits.power_w}, but the device enforces {enforced_w:.0f} W")
        if limits.clock_mhz:
            self._set_or_run_site_command(
                "lock", "the clock", lambda: self._device.lock_sm_clock(limits.clock_mhz), mhz=limits.clock_mhz
            )

    def set_power_limit(self, watts: float) -> None:
        self._set_or_run_site_command(
            "power", "the power limit", lambda: self._device.set_power_limit(watts), watts=f"{watts:g}"
        )

    def unlock_clock(self) -> None:
        self._set_or_run_site_command("unlock", "the clock", self._device.unlock_sm_clock)

    def _set_or_run_site_command(self, name: str, what: str, by_nvml: Callable[[], None], **values: object) -> None:
        if name in self._commands:
            _run_site_command(self._commands[name], self._uuid, values)
            return
        try:
            by_nvml()
        except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError) as error:
            raise LimitRefused(
                f"cannot set {what}: {error}; run as root, or set the environment variable {COMMAND_VARIABLES[name]} "
                f"to a command that can do this"
            ) from error


def _run_site_command(template: str, uuid: str, values: Mapping[str, object]) -> None:
    """Run the command of the site, without a shell."""
    try:
        command = [part.format(uuid=uuid, **values) for part in shlex.split(template)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except (OSError, ValueError, LookupError, subprocess.TimeoutExpired) as error:
        raise LimitRefused(f"the command '{template}' failed: {error}") from error
    if ended.returncode:
        said = (ended.stderr or ended.stdout).strip().splitlines()
        raise LimitRefused(
            f"'{shlex.join(command)}' ended with exit status {ended.returncode}: {said[-1] if said else 'no message'}"
        )
