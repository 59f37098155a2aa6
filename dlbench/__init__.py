"""dlbench: benchmarking and profiling of deep-learning networks on supercomputers.

    dlbench.run("quick")          measure a suite, or a dlbench.Case
    dlbench.load("results")       all results as a pandas DataFrame, with raw samples
    dlbench.metrics("results")    every metric of every case with its interval
    dlbench.plots                 the figures of the report, as functions; a notebook shows what they give
    dlbench.layers("alexnet")     the layers of a network

Importing the package loads neither torch nor pandas nor pyarrow; modules that need them are imported at first use.
"""

# A login node's old Python also reads this file, see `__main__.py`: no `from __future__ import annotations`.
import sys

if getattr(sys, "argv", [""])[0] == "-m" and not getattr(sys.flags, "safe_path", False):
    # `python -m dlbench` puts the current folder before the standard library: a user's random.py would replace
    # Python's. A dlbench in the current folder stays importable.
    sys.path.append(sys.path.pop(0))

from typing import TYPE_CHECKING, Any

from dlbench.version import __version__

if TYPE_CHECKING:
    from dlbench.campaign.api import layers, run
    from dlbench.report import notebook as plots
    from dlbench.report.analysis.content import metrics
    from dlbench.results.store import load
    from dlbench.suites.case import Case

__all__ = ["Case", "__version__", "layers", "load", "metrics", "plots", "run"]

#: Where each name is defined.
_MODULE_OF_NAME = {
    "Case": "dlbench.suites.case",
    "layers": "dlbench.campaign.api",
    "load": "dlbench.results.store",
    "metrics": "dlbench.report.analysis.content",
    "run": "dlbench.campaign.api",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name == "plots":
        return importlib.import_module("dlbench.report.notebook")
    if name in _MODULE_OF_NAME:
        return getattr(importlib.import_module(_MODULE_OF_NAME[name]), name)
    raise AttributeError(f"module 'dlbench' has no attribute '{name}'")


def __dir__() -> "list[str]":
    return __all__
