"""What networks are asked to do. A task is a handful of plain functions; a network names its task.

A network of a user's own says `task = "language_model"`, or brings functions of its own (`own.py`).
"""

from __future__ import annotations

from dlbench.tasks.classification import CLASSIFICATION
from dlbench.tasks.reconstruction import RECONSTRUCTION
from dlbench.tasks.task import Batch, Task, map_batch, tensors_of
from dlbench.tasks.tokens import LANGUAGE_MODEL, TRANSLATION

__all__ = ["TASKS", "Batch", "Task", "map_batch", "tensors_of"]

TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, RECONSTRUCTION, LANGUAGE_MODEL, TRANSLATION)}
