"""Answer of every job except `measure`: result.json, or error.json with the reason of the failure."""

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from dlbench.atomic_file import write_atomically
from dlbench.errors import BadInput, DeviceUnavailable, DlbenchError
from dlbench.exit_codes import NOT_DONE, OK
from dlbench.worker.progress import current_phase


def write_job_answer(folder: Path, work: Callable[[], str]) -> int:
    """Run `work`, write its text to result.json, and return the exit status."""
    try:
        result = work()
    except Exception as error:
        status, text = _classify_error(error)
        if not isinstance(error, DlbenchError):
            traceback.print_exc()
        print(f"{status} in phase {current_phase()}: {text}", file=sys.stderr, flush=True)
        write_atomically(folder / "error.json", json.dumps({"status": status, "text": text}))
        return NOT_DONE
    write_atomically(folder / "result.json", result)
    return OK


def _classify_error(error: Exception) -> tuple[str, str]:
    """Return "bad_input" or "no_device" with the message, else the result of `failures.classify_failure`."""
    if isinstance(error, DeviceUnavailable):
        return "no_device", str(error)
    if isinstance(error, BadInput):
        return "bad_input", str(error)
    from dlbench.worker.failures import classify_failure

    return classify_failure(error)
