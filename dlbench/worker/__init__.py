"""The measurement: a separate process per case, or per rank of a case."""

# Must come before any module of this package imports torch.
from dlbench import affinity  # noqa: F401
