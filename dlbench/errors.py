"""The exceptions of dlbench.

    DlbenchError                 printed as one line; exit status 2
    ├── BadInput                 a suite, model, option or file is wrong: nothing was run
    │   └── UnknownName          ... with a suggestion of the nearest name
    ├── StoreError               a results folder or part cannot be read or written
    ├── InvalidMeasurement       a meaningless measurement (zero steps, NaN loss, window too short)
    ├── SchedulerError           Slurm refused a request or did not answer (dlbench.launch.scheduler)
    └── DeviceUnavailable        the requested device is not present

Any other exception is a bug in dlbench and keeps its traceback.
"""

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class DlbenchError(Exception):
    """Base of all errors meant for the user. The message contains the request, the value found, and the remedy."""


class BadInput(DlbenchError):
    """Input from the user that cannot be used."""


class UnknownName(BadInput):
    """A name that is not among the known names.

    Args:
        kind: kind of thing, such as "model" or "axis".
        name: the name as the user wrote it.
        known: all accepted names.
        where: the file or option that contains it, or "".
        hint: a closing sentence, such as "`dlbench models` lists all."
    """

    def __init__(self, kind: str, name: object, known: Iterable[str], where: str = "", hint: str = "") -> None:
        choices = sorted(known)
        # Swapped letters come before a missing letter: `modle` means `model`, not `mode`.
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


@contextlib.contextmanager
def convert_write_errors(target: object, advice: str = "", kind: type[DlbenchError] = StoreError) -> Iterator[None]:
    """Context in which an OSError means that `target` cannot be written: it becomes a `kind`, with the advice."""
    try:
        yield
    except OSError as error:
        raise kind(f"cannot write {target}: {error.strerror or error}{advice}") from error


class InvalidMeasurement(DlbenchError):
    """A meaningless measurement, such as a window of zero steps."""


class DeviceUnavailable(DlbenchError):
    """A device that a case requires and that is not present."""
