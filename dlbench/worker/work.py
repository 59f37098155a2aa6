"""Counted work of a case, for its record."""

from __future__ import annotations

from typing import Any

from dlbench.spec.case import Case


def count_work(case: Case) -> dict[str, Any]:
    """MAC and FLOP per image of the case's network."""
    return {}
