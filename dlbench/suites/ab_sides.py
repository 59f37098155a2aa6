"""The two sides of an A/B experiment (`dlbench ab`), as its records name them, and which of their cases match.

The suite of a record is `<suite>-ab-<digest>-a` or `-b`; its label contains side, seed and setting:
``b (seed 0): env.OMP_NUM_THREADS=1``.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from dlbench.suites.case import Case

SIDES = ("a", "b")
ENVIRONMENT_PREFIX = "env."
PROTOCOL_PREFIX = "protocol."
#: The text of a setting that changes nothing.
UNCHANGED = "as is"
#: A comma ends a value only if another key follows: ``env.CUDA_VISIBLE_DEVICES=0,1,precision=tf32``.
_ITEM_SEPARATOR = re.compile(r",(?=\s*[A-Za-z_][\w.]*=)")
_SUITE = re.compile(r"(.+-ab-[0-9a-f]{8})-([ab])")
_LABEL = re.compile(r"([ab]) \(seed -?\d+\): (.+)")


@dataclass(frozen=True)
class Side:
    """One side of an experiment."""

    experiment: str  # the name of the suite, without the side
    letter: str  # "a" | "b"
    setting: str  # as text

    @property
    def name(self) -> str:
        """ "A" or "B"."""
        return self.letter.upper()

    @property
    def title(self) -> str:
        """Such as "B (env.OMP_NUM_THREADS=1)"."""
        return f"{self.name} ({', '.join(split_setting_items(self.setting))})"

    @property
    def changed_keys(self) -> set[str]:
        """The axes and protocol keys that the setting changes."""
        items = [] if self.setting == UNCHANGED else split_setting_items(self.setting)
        keys = {item.partition("=")[0] for item in items}
        return {key for key in keys if not key.startswith(ENVIRONMENT_PREFIX)}


def split_setting_items(text: str) -> list[str]:
    """The parts of a setting, each KEY=VALUE."""
    return [part.strip() for part in _ITEM_SEPARATOR.split(text) if part.strip()]


def side_suite_name(suite: str, digest: str, letter: str) -> str:
    """The suite in the records of a side."""
    return f"{suite}-ab-{digest}-{letter}"


def side_label(letter: str, seed: int, setting: str) -> str:
    """The label in the records of a side."""
    return f"{letter} (seed {seed}): {setting}"


def parse_side(suite: object, label: object) -> Side | None:
    """The side that a record belongs to; None if it is of no experiment."""
    found, labelled = _SUITE.fullmatch(str(suite)), _LABEL.fullmatch(str(label))
    if found is None or labelled is None or found[2] != labelled[1]:
        return None
    return Side(found[1], found[2], labelled[2])


def side_matching_key(case: Case, changed: Iterable[str]) -> str:
    """The text that two matching cases share: all but what the settings change."""
    values = case.to_dict()
    without = {*changed, "repeat"}
    values["protocol"] = {k: v for k, v in values["protocol"].items() if f"{PROTOCOL_PREFIX}{k}" not in without}
    return json.dumps({k: v for k, v in values.items() if k not in without}, sort_keys=True)
