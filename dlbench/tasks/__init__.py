"""Tasks of networks: batches, loss and unit of a sample. Each network names its task.

A user's network declares it, such as `task = "language_model"`, and may define its own functions (`own.py`).
"""

from dlbench.tasks.classification import CLASSIFICATION
from dlbench.tasks.reconstruction import RECONSTRUCTION
from dlbench.tasks.task import Batch, Task, map_batch_tensors, unique_batch_tensors
from dlbench.tasks.tokens import LANGUAGE_MODEL, TRANSLATION

__all__ = ["TASKS", "Batch", "Task", "map_batch_tensors", "unique_batch_tensors"]

TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, RECONSTRUCTION, LANGUAGE_MODEL, TRANSLATION)}
