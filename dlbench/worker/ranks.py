"""Where this process stands among those that measure one case together.

One process for now: rank 0 of 1. Everything that a group of processes must agree on goes through `Place.agree`, so that
a distributed place needs to replace nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Rank of this process, its device on this node, and the number of processes."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    def agree(self, value: T) -> T:
        """The `value` of rank 0, on every rank. Called at the same step by all of them."""
        return value
