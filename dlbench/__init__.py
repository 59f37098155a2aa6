"""dlbench: benchmarking and profiling of deep-learning networks on supercomputers.

    dlbench.load("results")       all results as a pandas DataFrame, with raw samples
    dlbench.metrics("results")    every metric of every case with its interval
    dlbench.plots                 figures of the report, as functions that return matplotlib Figures

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
    from dlbench.report import notebook as plots
    from dlbench.report.analysis.frames import metrics
    from dlbench.results.store import load

__all__ = ["__version__", "load", "metrics", "plots"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from dlbench.results.store import load

        return load
    if name == "metrics":
        from dlbench.report.analysis.frames import metrics

        return metrics
    if name == "plots":
        from dlbench.report import notebook

        return notebook
    raise AttributeError(f"module 'dlbench' has no attribute '{name}'")
