"""A user's own mix of work: which networks and modes take which share of the time on the baseline."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlbench.errors import BadInput, UnknownName
from dlbench.suites.case import MODES, PRECISIONS
from dlbench.toml_file import read_toml

_KEYS = ("model", "mode", "precision", "share")


@dataclass(frozen=True)
class Work:
    """One kind of work; None stands for every mode or precision."""

    model: str
    share: float  # of the time on the baseline; any unit, as shares are scaled to a sum of 1
    mode: str | None = None
    precision: str | None = None

    def covers(self, case: Mapping[Hashable, Any]) -> bool:
        """Whether a case is of this kind."""
        return all(
            wanted is None or wanted == case[name]
            for name, wanted in (("model", self.model), ("mode", self.mode), ("precision", self.precision))
        )

    def __str__(self) -> str:
        return ", ".join(part for part in (self.model, self.mode, self.precision) if part)


def read_mix(path: Path) -> tuple[Work, ...]:
    """The tables [[work]] of a TOML file, each with model and share, and with mode and precision where they matter.

    Raises:
        BadInput: the file cannot be read or is no TOML, a value has the wrong type or is no positive share.
        UnknownName: a key, mode or precision does not exist.
    """
    _, values = read_toml(path, "a mix of work")
    rows = values.pop("work", None)
    if values or not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"{path} needs tables [[work]] and nothing else, each with model and share")
    return tuple(_work(row, f"{path}, work {number}") for number, row in enumerate(rows, 1))


def _work(row: dict[str, Any], where: str) -> Work:
    for key in row:
        if key not in _KEYS:
            raise UnknownName("key", key, _KEYS, where)
    if not isinstance(row.get("model"), str) or "share" not in row:
        raise BadInput(f"{where} needs a model (a text) and a share (a number)")
    for key, known in (("mode", MODES), ("precision", PRECISIONS)):
        if key in row and row[key] not in known:
            raise UnknownName(key, str(row[key]), known, where)
    share = row["share"]
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < math.inf or share > 1e9:
        raise BadInput(f"{where}: the share must be a number above 0")
    return Work(row["model"], float(share), row.get("mode"), row.get("precision"))
