"""Status files of each rank in the attempt folder, to find the rank that failed first.

ranks/3.pid.json    host and process of rank 3, written first
ranks/3.err         its stderr (rank 0 uses that of the launcher)
ranks/3.end.json    status and error at its end; missing if the rank was killed or hangs
"""

import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from dlbench.atomic_file import write_atomically
from dlbench.exit_codes import NOT_DONE
from dlbench.worker.progress import current_phase

#: Errors of a healthy rank after another rank has died.
LOST_PEER = re.compile(
    r"closed by peer|connection reset|broken pipe|remote process exited|socket timeout|ncclRemoteError|"
    r"ncclSystemError|timed out waiting|Connect timeout|Connection refused|application timeout|not connected|"
    r"failed to recv|Watchdog caught|connection was (likely )?closed",
    re.IGNORECASE,
)
_PR_SET_PDEATHSIG = 1


class RankStatus:
    """Writer of the status files of one rank."""

    def __init__(self, attempt: Path, rank: int) -> None:
        self.rank = rank
        self.folder = attempt / "ranks"
        self._said = False
        self.folder.mkdir(exist_ok=True)
        self._write_status_file("pid", {"host": socket.gethostname(), "pid": os.getpid()})
        if rank > 0:
            # Launchers mix the output of ranks; each rank needs its own stderr.
            file = os.open(self.folder / f"{rank}.err", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(file, 2)
            os.close(file)

    def write_final_status(self, status: str, error: str | None) -> None:
        """Write how this rank ended; only the first call counts."""
        if self._said:
            return
        self._said = True
        lost = status == "crashed" and bool(LOST_PEER.search(error or ""))
        values = {"status": status, "error": error, "phase": current_phase(), "lost_peer": lost, "at_s": time.time()}
        with contextlib.suppress(OSError):
            self._write_status_file("end", values | {"host": socket.gethostname()})

    def _write_status_file(self, kind: str, values: Mapping[str, object]) -> None:
        write_atomically(self.folder / f"{self.rank}.{kind}.json", json.dumps(values))

    def watch_signals(self) -> None:
        """On SIGTERM and SIGUSR1 write the position of this rank and exit, even while it waits in a collective.

        A Python handler would run only after the collective returns, possibly never; the interpreter writes the signal
        number to a pipe at once, and a thread reads it.
        """
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda number, frame: None)
        main = threading.main_thread().ident

        def wait_for_signal() -> None:
            number = os.read(reading, 1)[0]
            context = _current_source_line(main)
            self.write_final_status(
                "preempted", f"stopped by {signal.Signals(number).name} in phase {current_phase()}, at {context}"
            )
            os._exit(NOT_DONE)

        threading.Thread(target=wait_for_signal, daemon=True, name="signals").start()


def _current_source_line(thread: int | None) -> str:
    """Return the current Python line of the main thread, such as "workload.py:58 in _train"."""
    frame = sys._current_frames().get(thread or 0)
    if frame is None:
        return "?"
    last = traceback.extract_stack(frame)[-1]
    return f"{Path(last.filename).name}:{last.lineno} in {last.name}"


def end_with_parent() -> None:
    """End this process when its parent ends: torchrun and mpirun start ranks outside our session."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended in between
        os._exit(NOT_DONE)


def exit_without_teardown(code: int, abort: bool = False) -> NoReturn:
    """Exit this process after its results are written.

    Code of the network cannot delay it or change the exit status: no endless thread, exit handler or library teardown.
    Only MPI is finalized, or, with `abort`, ended on all ranks: teardown may wait for dead ones.
    """
    with contextlib.suppress(Exception):  # the network's code may have replaced or closed them
        sys.stdout.flush()
        sys.stderr.flush()
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).fflush(None)
    if "mpi4py.MPI" in sys.modules:
        from mpi4py import MPI

        if MPI.Is_initialized() and not MPI.Is_finalized():
            MPI.COMM_WORLD.Abort(code) if abort else MPI.Finalize()
    os._exit(code)
