"""dlbench: benchmarking and profiling of deep-learning networks on supercomputers.

`dlbench.load("results")` gives all results as a pandas DataFrame. Importing the package loads neither torch nor pandas
nor pyarrow; what needs them is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlbench.version import __version__

if TYPE_CHECKING:
    from dlbench.results.store import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from dlbench.results.store import load

        return load
    raise AttributeError(f"module 'dlbench' has no attribute '{name}'")
