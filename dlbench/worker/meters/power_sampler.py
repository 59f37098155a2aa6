"""`python -m dlbench.worker.meters.power_sampler BACKEND DEVICE PERIOD_S`: samples the power of one device.

It is a separate process: a thread of the measuring process would take the interpreter lock from the timed loop. This
process imports no torch, keeps its samples in memory, prints "ready" once the first was taken, and on the end of stdin
(a stop, or the death of its parent) prints them all as one line of JSON. Times are perf_counter: one clock for all
processes of a node.
"""

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Callable

#: time [s], power [W], then each or None: module power [W], SM clock [MHz], temperature [°C], throttle bits.
SampleRow = tuple[float, float, float | None, float | None, float | None, int | None]


def make_nvml_power_reader(uuid: str) -> Callable[[], SampleRow]:
    """Return a reader of the NVIDIA device with this `uuid`."""
    from dlbench.worker.meters.nvml import NvmlDevice

    device = NvmlDevice(uuid)
    # Devices other than superchips refuse it or return 0.
    has_module = bool(device.module_power_w())

    def read() -> SampleRow:
        power_w = device.power_w()
        at_s = time.perf_counter()
        module_w = device.module_power_w() if has_module else None
        return at_s, power_w, module_w, device.sm_clock_mhz(), device.temperature_c(), device.throttle_bits()

    return read


def make_amdsmi_power_reader(pci_address: str) -> Callable[[], SampleRow]:
    """Return a reader of the AMD device at `pci_address`, such as "0000:c1:00.0"."""
    from dlbench.worker.meters.amd import AmdDevice

    device = AmdDevice(pci_address)

    def read() -> SampleRow:
        power_w = device.power_w()
        if power_w is None:
            raise LookupError(
                "amdsmi reports no power of this device; on a module of two dies, only the first die reports power"
            )
        return time.perf_counter(), power_w, None, device.sm_clock_mhz(), device.temperature_c(), None

    return read


READERS: dict[str, Callable[[str], Callable[[], SampleRow]]] = {
    "nvml": make_nvml_power_reader,
    "amdsmi": make_amdsmi_power_reader,
}


def sample_until_stdin_ends(read: Callable[[], SampleRow], period_s: float) -> tuple[list[SampleRow], str | None]:
    """Sample every `period_s` on a fixed grid; return the rows, and the error that ended sampling."""
    rows: list[SampleRow] = []
    due_s = time.perf_counter()
    while True:
        try:
            rows.append(read())
        except Exception as error:  # drivers raise various errors if a device disappears: keep the rows so far
            return rows, f"{type(error).__name__}: {error}"
        if len(rows) == 1:
            print("ready", flush=True)
        now_s = time.perf_counter()
        due_s += period_s * max(1, -(-(now_s - due_s) // period_s))
        if select.select([sys.stdin], [], [], max(0.0, due_s - now_s))[0]:
            with contextlib.suppress(Exception):
                rows.append(read())  # after the stop, so that rows cover the end of the window
            return rows, None


def main(arguments: list[str]) -> int:
    backend, device, period_s = arguments
    try:
        rows, error = sample_until_stdin_ends(READERS[backend](device), float(period_s))
    except Exception as reason:
        rows, error = [], f"{type(reason).__name__}: {reason}"
    try:
        if not rows:
            print("failed", flush=True)
        print(json.dumps({"rows": rows, "error": error}), flush=True)
    except BrokenPipeError:
        # The measuring process has ended; its own error is reported.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0 if error is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
