"""Worker processes: start them so that they end with this process, stop them with all children, read their errors."""

import ctypes
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from dlbench.errors import convert_write_errors
from dlbench.messages import say_detail

#: Time for a worker to write its result after a stop request [s].
GRACE_S = 10.0
#: Time for a killed worker to disappear [s].
KILL_S = 60.0
#: Environment variable with the attempt folder in all child processes of a worker, to find those left over.
ATTEMPT_FOLDER_VARIABLE = "DLBENCH_ATTEMPT_FOLDER"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded here: a child between fork and exec must not wait for the loader's lock


class StoppedBySignal(BaseException):
    """A signal stopped the supervisor: Ctrl-C, the batch system before the time limit, or shutdown."""

    def __init__(self, signal_number: int) -> None:
        self.signal_name = signal.Signals(signal_number).name
        super().__init__(self.signal_name)


def start_worker(
    argv: list[str], folder: Path, environment: Mapping[str, str], pipe: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start a worker with its output in `folder` and `environment` added to ours.

    Args:
        pipe: descriptors that it inherits; with any, its stdin is a pipe from this process, otherwise empty.

    Raises:
        StoreError: `folder` cannot be written.
    """
    say_detail(f"starting {shlex.join(argv)}; its output goes into {folder}/")
    with convert_write_errors(folder):
        out, err = (folder / "stdout.txt").open("wb"), (folder / "stderr.txt").open("wb")
    with out, err:
        # A separate session, so that a time limit also ends the worker's children. The worker dies with this process:
        # otherwise it would disturb the next measurement.
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=pipe,
            start_new_session=True,
            preexec_fn=die_with_parent,  # safe while no other thread runs here
            env=worker_environment({"PYTHONUNBUFFERED": "1", ATTEMPT_FOLDER_VARIABLE: str(folder)} | dict(environment)),
        )


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Build the environment of a worker: that of this process plus `environment`.

    Python does not import modules from the current folder: a user's `random.py` would replace that of the standard
    library. `dlbench.models.external` imports user networks from there. A dlbench in the current folder stays
    importable.
    """
    values = os.environ | {"PYTHONSAFEPATH": "1"} | dict(environment)
    root = str(Path(__file__).resolve().parents[2])
    if Path.cwd().resolve() == Path(root):
        paths = values.get("PYTHONPATH", "").split(os.pathsep)
        if root not in paths:
            values["PYTHONPATH"] = os.pathsep.join(filter(None, (*paths, root)))
    return values


def die_with_parent() -> None:
    """Ask the kernel, in a child before exec, to kill it when its parent thread ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def stop_worker(process: subprocess.Popen[bytes]) -> None:
    """End all processes of the worker's session: first by SIGTERM, then by SIGKILL.

    A process that hangs in a driver cannot be killed; the campaign goes on, and its exit status stays None.
    """
    if process.poll() is None:
        _signal_process_group(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    _signal_process_group(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(KILL_S)


def _signal_process_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def describe_exit(exit_code: int, who: str = "worker") -> str:
    """Describe an exit status or signal."""
    if exit_code >= 0:
        return f"{who} ended with exit status {exit_code}"
    names = {s.value: s.name for s in signal.Signals}
    return f"{who} was killed by signal {-exit_code} ({names.get(-exit_code, 'unknown')})"


def last_phase(stderr: Path) -> str:
    """Return the last phase that a worker reported on stderr, or ""."""
    lines = map(str.strip, reversed(tail_lines(stderr)))
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("phase:")), "")


def last_stderr_message(stderr: Path, skip: tuple[str, ...] = ("phase:",)) -> str:
    """Return the last line of a worker's stderr that has none of the `skip` prefixes, or ""."""
    lines = map(str.strip, reversed(tail_lines(stderr)))
    return next((line[:300] for line in lines if line and not line.startswith(skip)), "")


def last_error_line(folder: Path, skip: tuple[str, ...] = ("phase:",)) -> str:
    """Describe the last message of a worker in its attempt folder, or where to look."""
    words = last_stderr_message(folder / "stderr.txt", skip)
    return f"last line of stderr: {words}" if words else f"stderr is empty; see {folder}"


def tail_lines(path: Path, size: int = 16_384) -> list[str]:
    """Return the last lines of a file; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM, SIGHUP and SIGUSR1 into `StoppedBySignal`, so that the case in flight is still recorded."""

    def raise_on_signal(number: int, frame: FrameType | None) -> None:
        # A second signal must not interrupt writing the record.
        for other in handled:
            signal.signal(other, signal.SIG_IGN)
        raise StoppedBySignal(number)

    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before: dict[int, Any] = {number: signal.signal(number, raise_on_signal) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
