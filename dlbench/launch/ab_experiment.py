"""`dlbench ab`: two settings measured in turns, pair by pair, in random order; the plan of it, and how it is marked.

    dlbench ab quick --b env.OMP_NUM_THREADS=1        # A: as things are, B: with the variable set in its processes
    dlbench ab quick --a memory_format=channels_first --b memory_format=channels_last

Every process is an attempt in the results like any other. Its suite is `<suite>-ab-<digest>-a` or `-b`, where the
digest stands for both settings and the seed, so that only halves of one experiment are ever paired; its axis `repeat`
is the number of the pair; its label says the side, the seed and the setting in words.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dlbench.errors import BadInput
from dlbench.launch.progress import Progress
from dlbench.results.records import Record
from dlbench.suites.case import Case
from dlbench.suites.suite import Suite

SIDES = ("a", "b")
_ENVIRONMENT = "env."
#: A comma ends a value only where another key follows: ``env.CUDA_VISIBLE_DEVICES=0,1,precision=tf32``.
_NEXT_KEY = re.compile(r",(?=\s*[A-Za-z_][\w.]*=)")
_VARIABLE = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Setting:
    """What one side changes: axes and protocol keys of the suite, and environment variables of its processes."""

    overrides: tuple[str, ...] = ()  # as `load_suite` takes them
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The setting as it was written, in one order; "as is" where it changes nothing."""
        return ",".join(
            sorted([*self.overrides, *(f"{_ENVIRONMENT}{k}={v}" for k, v in self.environment.items())])
        ) or ("as is")

    @property
    def names(self) -> set[str]:
        """The axes and protocol keys that it sets."""
        return {override.partition("=")[0] for override in self.overrides}


def parse_setting(texts: Sequence[str], option: str) -> Setting:
    """A setting from ``KEY=VALUE,...`` texts; a key is an axis, ``protocol.NAME`` or ``env.NAME``.

    Raises:
        BadInput: a part is not KEY=VALUE, an axis has more than one value, or the key cannot be set.
    """
    overrides: dict[str, str] = {}
    environment: dict[str, str] = {}
    for part in (part for text in texts for part in _NEXT_KEY.split(text) if part.strip()):
        key, equals, value = part.strip().partition("=")
        if not equals:
            raise BadInput(f"cannot use {option} {part}: write axis=value, protocol.key=value or env.NAME=value")
        if key == "repeat":
            raise BadInput(f"cannot use {option} {part}: repeat is the number of the pair; see --pairs")
        if key.startswith(_ENVIRONMENT):
            name = key.removeprefix(_ENVIRONMENT)
            if not _VARIABLE.fullmatch(name) or "\0" in value:
                raise BadInput(f"cannot use {option} {part}: '{name}' is no name of an environment variable")
            environment[name] = value
        elif "," in value:
            raise BadInput(f"cannot use {option} {part}: a side has one value of each axis; -P sets several")
        else:
            overrides[key] = f"{key}={value}"
    return Setting(tuple(overrides.values()), environment)


@dataclass(frozen=True)
class ScheduledRun:
    """One process to run."""

    side: str  # "a" | "b"
    match: int  # index into the experiment's matches
    pair: int
    case: Case


@dataclass(frozen=True)
class Experiment:
    """Which cases are compared under which settings."""

    suite: str
    suite_version: int
    a: Setting
    b: Setting
    seed: int
    matches: tuple[tuple[Case, Case], ...]

    @property
    def sides(self) -> tuple[str, str]:
        """The suites' names under which A and B are kept."""
        text = json.dumps([self.a.text, self.b.text, self.seed])
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{self.suite}-ab-{digest}-a", f"{self.suite}-ab-{digest}-b"

    def setting(self, side: str) -> Setting:
        """What the side changes."""
        return self.a if side == "a" else self.b

    def label(self, side: str) -> str:
        """What the records of a side say of themselves: ``b (seed 0): env.OMP_NUM_THREADS=1``."""
        return f"{side} (seed {self.seed}): {self.setting(side).text}"

    def order(self, pairs: int) -> list[tuple[ScheduledRun, ScheduledRun]]:
        """The halves of all pairs in the order in which they run; within a pair by the toss of a coin.

        In each round all cases have one pair, in random order. The order of a round depends on the seed and its number
        alone: an experiment can be taken up again, and more pairs can be added to it.
        """
        found = []
        for number in range(pairs):
            # Not for secrets: from the seed alone, on any machine.
            chance = random.Random(f"{self.seed}/{number}")
            for index in chance.sample(range(len(self.matches)), len(self.matches)):
                halves = [
                    ScheduledRun(side, index, number, replace(case, repeat=number))
                    for side, case in zip(SIDES, self.matches[index], strict=True)
                ]
                chance.shuffle(halves)
                found.append((halves[0], halves[1]))
        return found


class ExperimentProgress(Progress):
    """Lines of finished cases that begin with their side."""

    def case_line(self, record: Record) -> str:
        """As of any campaign, behind "A" or "B"."""
        return f"{(record.label or '?')[0].upper()} {super().case_line(record)}"


def plan(suite_a: Suite, suite_b: Suite, a: Setting, b: Setting, seed: int, device: str) -> Experiment:
    """The experiment over the cases of a suite as changed by A and by B.

    Raises:
        BadInput: the two do not have the same cases, apart from what is set.
    """
    changed = a.names | b.names | {"repeat"}
    cases = [{}, {}]  # type: list[dict[str, list[Case]]]
    for found, suite in zip(cases, (suite_a, suite_b), strict=True):
        for case in suite.cases(device):
            first = replace(case, repeat=0)
            of_key = found.setdefault(_key(first, changed), [])
            if first not in of_key:
                of_key.append(first)
    for side, of_side, others in (("A", cases[0], cases[1]), ("B", cases[1], cases[0])):
        for key, several in of_side.items():
            if len(several) > 1:
                names = ", ".join(sorted(changed - {"repeat"}))
                raise BadInput(
                    f"{side} has {len(several)} cases of {several[0].model} that differ in {names} alone; "
                    "set it on both sides, with --a and --b"
                )
            if key not in others:
                raise BadInput(f"{side} has a case of {several[0].model} that the other side lacks: see [[exclude]]")
    matches = tuple((of_a[0], cases[1][key][0]) for key, of_a in cases[0].items())
    return Experiment(suite_a.name, suite_a.version, a, b, seed, matches)


def _key(case: Case, changed: set[str]) -> str:
    """What two matching cases have in common."""
    values: dict[str, Any] = case.to_dict()
    values["protocol"] = {k: v for k, v in values["protocol"].items() if f"protocol.{k}" not in changed}
    return json.dumps({k: v for k, v in values.items() if k not in changed}, sort_keys=True)
