"""One worker process, or one case's ranks, from start to end: ends with us, at a time limit, and with all its children.

`wait_for_worker` watches every worker, those that `supervise` measures cases with too; `run_in_worker` does any other
request.
"""

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlbench.errors import BadInput, DeviceUnavailable, InvalidMeasurement, convert_write_errors
from dlbench.json_text import load_json
from dlbench.launch import failure_diagnosis, processes
from dlbench.suites import worker_request as requests

#: After its result is there, a worker may take so long to end [s].
RESULT_GRACE_S = 30.0


class WorkerFailed(InvalidMeasurement):
    """The worker ended without a result: it ran out of memory or time, or crashed."""


def wait_for_worker(
    process: subprocess.Popen[bytes], folder: Path, timeout_s: float, on_tick: Callable[[float], None]
) -> bool:
    """Wait for a worker or launcher; return whether it still runs at its time limit.

    It may also still run because one of its ranks failed, or because it does not exit after its work.

    Args:
        on_tick: called about once a second with elapsed seconds.
    """
    # A thread blocks in waitpid and this one in the join: nothing polls while the worker measures.
    waiter = threading.Thread(target=process.wait, daemon=True)
    waiter.start()
    began, result_at_s = time.monotonic(), None
    while waiter.is_alive():
        waiter.join(timeout=1.0)
        elapsed_s = time.monotonic() - began
        on_tick(elapsed_s)
        if not waiter.is_alive():
            break
        if elapsed_s > timeout_s:
            return True
        if failure_diagnosis.has_rank_failed(folder):
            break  # its launcher should have ended it by now
        if result_at_s is None and (folder / "result.json").exists():
            result_at_s = elapsed_s
        if result_at_s is not None and elapsed_s - result_at_s > RESULT_GRACE_S:
            break
    return False


def run_in_worker(
    request: dict[str, Any],
    folder: Path,
    timeout_s: float,
    on_tick: Callable[[float, str], None] = lambda elapsed_s, phase: None,
    argv: list[str] | None = None,
    world_size: int = 1,
) -> str:
    """Have a worker do the request in `folder`, and give the text of its result.json.

    Args:
        request: see `dlbench.suites.worker_request`.
        folder: created; contains request.json, stdout.txt, stderr.txt and the worker's files.
        on_tick: called about once a second with elapsed seconds and the worker's phase.
        argv: starts the worker or its ranks; by default one `python -m dlbench.worker` of this machine.
        world_size: how many ranks that makes.

    Raises:
        BadInput, DeviceUnavailable: the worker reported this error.
        WorkerFailed: it began and brought nothing back.
        StoreError: the folder cannot be written.
        StoppedBySignal: a signal interrupted the job.
    """
    folder = folder.absolute()  # its processes are known by this name
    with convert_write_errors(folder, "; choose another folder with --results"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("result.json", "error.json"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "ranks", ignore_errors=True)
        requests.write_request(folder, request)
    stderr = folder / "stderr.txt"
    with processes.stop_on_signals():
        process = processes.start_worker(argv or [sys.executable, "-m", "dlbench.worker", str(folder)], folder, {})
        try:
            timed_out = wait_for_worker(process, folder, timeout_s, lambda s: on_tick(s, processes.last_phase(stderr)))
        finally:
            processes.stop_worker(process)
            failure_diagnosis.kill_leftover_processes(folder)
    if (folder / "result.json").exists():  # written by rename: complete, even if the process failed later
        return (folder / "result.json").read_text(encoding="utf-8")
    raise _failure_reason(folder, process.returncode, world_size, timeout_s if timed_out else None)


def _failure_reason(folder: Path, exit_code: int, world_size: int, limit_s: float | None) -> Exception:
    """Return why there is no result; `limit_s` is the time limit, if the worker reached it."""
    try:
        values = load_json((folder / "error.json").read_text(encoding="utf-8"))
        status, text = str(values["status"]), str(values["text"])
    except (OSError, ValueError, KeyError, TypeError):
        found = failure_diagnosis.diagnose_failed_case(folder, world_size, oom_kill=False)
        phase = f"in phase '{processes.last_phase(folder / 'stderr.txt')}'"
        if found:
            return WorkerFailed(found[1])
        if limit_s is not None:
            return WorkerFailed(f"the worker process did not end within {limit_s:.0f} s, {phase}; see {folder}")
        return WorkerFailed(f"{processes.describe_exit(exit_code)} {phase}; {processes.last_error_line(folder)}")
    if status == "bad_input":
        return BadInput(text)
    return DeviceUnavailable(text) if status == "no_device" else WorkerFailed(f"{status}: {text}; see {folder}")
