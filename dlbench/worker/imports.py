"""Imports of a worker, timed. They run without garbage collection, which takes a sixth of the import of PyTorch."""

import gc
import importlib
import time

_total_s = 0.0


def import_modules(*names: str) -> None:
    """Import these modules. Raises ImportError, or what a module raises."""
    global _total_s
    began_s = time.perf_counter()
    gc.disable()
    try:
        for name in names:
            importlib.import_module(name)
    finally:
        gc.enable()
        _total_s += time.perf_counter() - began_s


def total_import_s() -> float:
    """Return the time that all calls of `import_modules` took in this process [s]."""
    return _total_s
