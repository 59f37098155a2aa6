"""The errors dlbench raises on purpose.

    DlbenchError                 reaches the user as one line, exit status 2
    ├── BadInput                 a suite, model, option or file is wrong: nothing ran
    │   └── UnknownName          ... and a near name is offered
    ├── StoreError               a results folder or part cannot be read or written
    ├── InvalidMeasurement       a measurement that means nothing (zero steps, NaN loss, window too short)
    ├── SchedulerError           Slurm refused or could not be asked (dlbench.launch.scheduler)
    └── DeviceUnavailable        the device asked for is not there

Anything else that escapes is a defect in dlbench and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DlbenchError(Exception):
    """Base of all errors meant for the user; the message says what was asked, what was found, what to do."""


class BadInput(DlbenchError):
    """Something the user wrote cannot be used."""


class UnknownName(BadInput):
    """A name that is not in the list of known ones.

    Args:
        kind: what the name stands for, such as "model" or "axis".
        name: the name as the user wrote it.
        known: all names that would have been accepted.
        where: the file or option it was read from, or "".
        hint: a closing sentence, such as "`dlbench models` lists all."
    """

    def __init__(self, kind: str, name: object, known: Iterable[str], where: str = "", hint: str = "") -> None:
        choices = sorted(known)
        # Swapped letters count for more than a missing one: `modle` is `model`, not `mode`.
        near = [choice for choice in choices if sorted(choice) == sorted(str(name))]
        near += difflib.get_close_matches(str(name), choices, n=1, cutoff=0.6)
        place = f" in {where}" if where else ""
        if near:
            offer = f"did you mean '{near[0]}'?"
        elif len(choices) <= 12:
            offer = f"known: {', '.join(choices)}."
        else:
            offer = ""
        super().__init__(f"unknown {kind} '{name}'{place}; {offer} {hint}".replace(";  ", "; ").strip(" ;"))


class StoreError(DlbenchError):
    """A results folder or one of its parts cannot be read or written."""


class InvalidMeasurement(DlbenchError):
    """A measurement that means nothing, such as a window of zero steps."""


class DeviceUnavailable(DlbenchError):
    """The device that a case asks for is not present."""
