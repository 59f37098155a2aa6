"""A user's own mix of work: which networks and modes take which share of the time on the baseline."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlbench.errors import BadInput, UnknownName
from dlbench.suites.case import MODES, PRECISIONS
from dlbench.toml_file import raise_invalid, read_toml, require_type

_WORK_KEYS = ("model", "mode", "precision", "share")


@dataclass(frozen=True)
class WorkShare:
    """One kind of work; None stands for every mode or precision."""

    model: str
    share: float  # of the time on the baseline; any unit, as shares are scaled to a sum of 1
    mode: str | None = None
    precision: str | None = None

    def matches_case(self, case: Mapping[Hashable, Any]) -> bool:
        """Whether a case is of this kind."""
        return all(
            wanted is None or wanted == case[name]
            for name, wanted in (("model", self.model), ("mode", self.mode), ("precision", self.precision))
        )

    def __str__(self) -> str:
        return ", ".join(part for part in (self.model, self.mode, self.precision) if part)


def read_workload_mix(path: Path) -> tuple[WorkShare, ...]:
    """The tables [[work]] of a TOML file, each with model and share, and with mode and precision where they matter.

    Raises BadInput if the file or a value cannot be used, UnknownName if a key, mode or precision does not exist.
    """
    file = read_toml(path, "a mix of work")
    file.require_known(file.values, ("work",))
    rows = file.get("work", list, [], "tables [[work]]")
    if not rows:
        raise BadInput(f"{path} has no [[work]]; write one with model and share for each kind of work")
    return tuple(_parse_work_share(row, f"{path}, work {number}") for number, row in enumerate(rows, 1))


def _parse_work_share(row: Any, where: str) -> WorkShare:
    row = require_type(row, dict, "it", where)
    for key in row:
        if key not in _WORK_KEYS:
            raise UnknownName("key", key, _WORK_KEYS, where)
    for key in ("model", "share"):
        if key not in row:
            raise BadInput(f"{where}: {key} is missing")
    for key, known in (("mode", MODES), ("precision", PRECISIONS)):
        if key in row and row[key] not in known:
            raise UnknownName(key, str(row[key]), known, where)
    share = require_type(row["share"], float, "share", where)
    if not 0 < share <= 1e9:
        raise_invalid(share, "share", "above 0", where)
    return WorkShare(require_type(row["model"], str, "model", where), share, row.get("mode"), row.get("precision"))
