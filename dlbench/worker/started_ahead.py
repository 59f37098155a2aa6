"""A worker started ahead: it imports what its case needs, waits for its turn, then reads its folder from stdin.

Several such workers import at the same time, on different cores. The first one to measure waits until all of them are
done, so that no import disturbs a measurement. A waiting worker uses no CPU time.
"""

import contextlib
import os
from pathlib import Path

from dlbench.suites.catalog import find_model
from dlbench.worker.imports import import_modules
from dlbench.worker.progress import enter_phase


def wait_for_folder(read_end: int, write_end: int, model: str, needs_compiler: bool) -> Path | None:
    """Import what a case of this network needs; return the attempt folder, or None if there is none.

    Args:
        read_end, write_end: a pipe that all workers started together inherit. Each closes its write end after its
            imports; the read end then reaches its end of file when the last one has.
        needs_compiler: whether PyTorch will import its compiler: for the first step of an optimizer, or to count FLOP.
    """
    enter_phase("import")
    with contextlib.suppress(Exception):  # the measurement imports it again, and reports the error
        import_modules(*_modules_to_import(model, needs_compiler))
    os.close(write_end)
    with open(0, "rb", closefd=False) as stdin:
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
