"""The measurement: a process of its own for each case, or for each of its ranks."""

# Before any module of this package imports torch.
from dlbench import affinity  # noqa: F401
