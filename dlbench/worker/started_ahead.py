"""A worker that was started ahead: it imports what its case needs, waits for its turn, then reads its folder from stdin.

Several such workers import at the same time, on different cores. The first one to measure waits until all of them are
done, so that no import disturbs a measurement. A waiting worker uses no CPU time.
"""

import contextlib
import importlib
import os
import time
from pathlib import Path

from dlbench.suites.catalog import find_model
from dlbench.worker.progress import enter_phase

_import_s = 0.0


def seconds_of_imports() -> float:
    """Time that this process spent on imports before it knew its folder [s]; 0 if it was not started ahead."""
    return _import_s


def wait_for_folder(read_end: int, write_end: int, model: str, needs_compiler: bool) -> Path | None:
    """Import what a case of this network needs; return the attempt folder, or None if there is none.

    Args:
        read_end, write_end: a pipe that all workers started together inherit. Each closes its write end after its
            imports; the read end then reaches its end of file when the last one has.
        needs_compiler: whether PyTorch will import its compiler: for the first step of an optimizer, or to count FLOP.
    """
    global _import_s
    enter_phase("import")
    began_s = time.perf_counter()
    for name in _modules_to_import(model, needs_compiler):
        with contextlib.suppress(Exception):  # the measurement imports it again, and reports the error
            importlib.import_module(name)
    _import_s = time.perf_counter() - began_s
    os.close(write_end)
    with open(0, "rb", closefd=False) as stdin:  # noqa: PTH123
        folder = os.fsdecode(stdin.read())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.read(read_end, 1)
    os.close(read_end)
    return Path(folder) if folder else None


def _modules_to_import(model: str, needs_compiler: bool) -> list[str]:
    names = ["dlbench.worker.failures", "dlbench.worker.measure"]
    if find_model(model) is None:
        names.append("dlbench.models.external")
    if model.startswith("timm:"):
        names.append("timm")
    if needs_compiler:
        names.append("torch._dynamo")
    return names
