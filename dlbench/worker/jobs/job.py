"""A worker that measures no case of a suite: reads FOLDER/request.json, leaves result.json or error.json beside it."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dlbench.errors import BadInput, DeviceUnavailable, DlbenchError
from dlbench.worker.progress import current_phase

EXIT_BAD_INPUT = 2
EXIT_NOT_DONE = 3


def serve(arguments: list[str], work: Callable[[dict[str, Any], Path], str]) -> int:
    """Do `work` on the request in the folder that `arguments` names; gives the exit status.

    Args:
        work: from the request and its folder to the text of result.json.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m dlbench.worker.(ceilings|profile|trial) FOLDER", file=sys.stderr)
        return EXIT_BAD_INPUT
    folder = Path(arguments[0])
    try:
        result = work(json.loads((folder / "request.json").read_text(encoding="utf-8")), folder)
    except Exception as error:
        status, text = _classified(error)
        if not isinstance(error, DlbenchError):
            traceback.print_exc()
        print(f"{status} in phase {current_phase()}: {text}", file=sys.stderr, flush=True)
        _write(folder / "error.json", json.dumps({"status": status, "text": text}))
        return EXIT_NOT_DONE
    _write(folder / "result.json", result)
    return 0


def _classified(error: Exception) -> tuple[str, str]:
    """ "bad_input", "no_device", or what `failures` says."""
    if isinstance(error, DeviceUnavailable):
        return "no_device", str(error)
    if isinstance(error, BadInput):
        return "bad_input", str(error)
    from dlbench.worker.failures import classify

    return classify(error)


def _write(path: Path, text: str) -> None:
    """The whole text or nothing, by rename."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
