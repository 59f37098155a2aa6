"""`python -m dlbench.launch.spawn N -- ARGV` starts ARGV N times as ranks of one machine and ends them together.

Each gets RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT. If one fails, its rank and exit
status are printed on stderr; the others are ended after a short delay. Signals are forwarded to all.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from types import FrameType

from dlbench.errors import BadInput
from dlbench.exit_codes import BAD_INPUT
from dlbench.launch.processes import describe_exit, die_with_parent
from dlbench.ports import parse_ports

#: Delay before the other ranks are ended after one failed [s]; usually they fail at once (lost connection).
GRACE_S = 3.0
#: Time between SIGTERM and SIGKILL [s].
TERM_S = 3.0
_FORWARDED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def main(arguments: list[str]) -> int:
    """Run the ranks; return the exit status of the first failed rank, 128 + signal if it was killed."""
    if len(arguments) < 3 or not arguments[0].isdecimal() or arguments[1] != "--":
        print("usage: python -m dlbench.launch.spawn NUM_RANKS -- COMMAND...", file=sys.stderr)
        return BAD_INPUT
    size = int(arguments[0])
    try:
        port = free_port(os.environ)
    except BadInput as error:
        print(f"spawn: {error}", file=sys.stderr)
        return BAD_INPUT
    around = os.environ | {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_PORT": str(port)}
    around["MASTER_ADDR"] = os.environ.get("DLBENCH_MASTER_ADDR", "127.0.0.1")
    ranks = [around | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    processes = [subprocess.Popen(arguments[2:], env=own, preexec_fn=die_with_parent) for own in ranks]

    def forward_signal(number: int, frame: FrameType | None) -> None:
        for process in processes:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    for number in _FORWARDED_SIGNALS:
        signal.signal(number, forward_signal)
    return _wait_for_ranks(processes)


def free_port(environ: Mapping[str, str]) -> int:
    """The first free port of DLBENCH_MASTER_PORTS ("29500,29510-29520"), or any. Raises BadInput if none is free."""
    for port in parse_ports(environ.get("DLBENCH_MASTER_PORTS", "")) or [0]:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise BadInput(f"DLBENCH_MASTER_PORTS={environ.get('DLBENCH_MASTER_PORTS')} has no free port; add more ports")


def _wait_for_ranks(processes: list[subprocess.Popen[bytes]]) -> int:
    """Wait for the ranks, without polling while none has failed."""
    failed = 0
    while failed == 0 and any(process.returncode is None for process in processes):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        failed = _report_first_failure(processes)
    if failed == 0:
        return 0
    for pause_s, number in ((GRACE_S, signal.SIGTERM), (TERM_S, signal.SIGKILL)):
        deadline = time.monotonic() + pause_s
        while time.monotonic() < deadline and any(process.poll() is None for process in processes):
            time.sleep(0.05)
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)
    for process in processes:
        process.wait()
    return failed


def _report_first_failure(processes: list[subprocess.Popen[bytes]]) -> int:
    """Register ended ranks; print a failed one on stderr and return its exit status."""
    for rank, process in enumerate(processes):
        code = process.poll() if process.returncode is None else None
        if code:
            print(f"spawn: {describe_exit(code, f'rank {rank} (pid {process.pid})')}", file=sys.stderr, flush=True)
            return code if code > 0 else 128 - code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
