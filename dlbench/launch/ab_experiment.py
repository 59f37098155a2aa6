"""Plan of an interleaved A/B experiment (`dlbench ab`): pairs of runs in random order.

    dlbench ab quick --b env.OMP_NUM_THREADS=1        # A: no change; B: with this environment variable
    dlbench ab quick --a memory_format=channels_first --b memory_format=channels_last

Each process is an ordinary attempt in the results. Its suite is `<suite>-ab-<digest>-a` or `-b`, where the digest is a
hash of both settings and the seed: only runs of the same experiment are paired. The axis `repeat` is the number of the
pair; the label contains side, seed and setting.
"""

import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from dlbench.errors import BadInput
from dlbench.launch.progress import Progress
from dlbench.results.records import Record
from dlbench.suites import ab_sides
from dlbench.suites.case import Case
from dlbench.suites.suite import Suite

_VARIABLE_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True)
class Setting:
    """Settings of one side: axes and protocol keys of the suite, and environment variables of its processes."""

    overrides: tuple[str, ...] = ()  # as `load_suite` takes them
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def setting_text(self) -> str:
        """The setting as text, in a fixed order; "as is" if it changes nothing."""
        items = [*self.overrides, *(f"{ab_sides.ENVIRONMENT_PREFIX}{k}={v}" for k, v in self.environment.items())]
        return ",".join(sorted(items)) or ab_sides.UNCHANGED

    @property
    def changed_keys(self) -> set[str]:
        """Names of the axes and protocol keys that it sets."""
        return {override.partition("=")[0] for override in self.overrides}


def parse_setting(texts: Sequence[str], option: str) -> Setting:
    """Parse a setting from ``KEY=VALUE,...`` texts; a key is an axis, ``protocol.NAME`` or ``env.NAME``.

    Raises:
        BadInput: a part is not KEY=VALUE, an axis has more than one value, or the key cannot be set.
    """
    overrides: dict[str, str] = {}
    environment: dict[str, str] = {}
    for part in (part for text in texts for part in ab_sides.split_setting_items(text)):
        key, equals, value = part.partition("=")
        if not equals:
            raise BadInput(f"cannot use {option} {part}: write axis=value, protocol.key=value or env.NAME=value")
        if key == "repeat":
            raise BadInput(
                f"cannot use {option} {part}: the axis repeat numbers the pairs; use --pairs to set the number of pairs"
            )
        if key.startswith(ab_sides.ENVIRONMENT_PREFIX):
            name = key.removeprefix(ab_sides.ENVIRONMENT_PREFIX)
            if not _VARIABLE_NAME.fullmatch(name) or "\0" in value:
                raise BadInput(f"cannot use {option} {part}: '{name}' is not a valid name of an environment variable")
            environment[name] = value
        elif "," in value:
            raise BadInput(
                f"cannot use {option} {part}: A and B each have one value per axis; set several for both by -P"
            )
        else:
            overrides[key] = f"{key}={value}"
    return Setting(tuple(overrides.values()), environment)


@dataclass(frozen=True)
class ScheduledRun:
    """One scheduled process: side, pair and case."""

    side: str  # "a" | "b"
    match: int  # index into the experiment's matches
    pair: int
    case: Case


@dataclass(frozen=True)
class Experiment:
    """Cases to compare and the two settings."""

    suite: str
    suite_version: int
    a: Setting
    b: Setting
    seed: int
    matches: tuple[tuple[Case, Case], ...]

    @property
    def suite_names(self) -> tuple[str, str]:
        """Suite names of the records of A and B."""
        digest = hashlib.sha256(json.dumps([self.a.setting_text, self.b.setting_text, self.seed]).encode()).hexdigest()[
            :8
        ]
        return ab_sides.side_suite_name(self.suite, digest, "a"), ab_sides.side_suite_name(self.suite, digest, "b")

    def setting_of_side(self, side: str) -> Setting:
        """Setting of the side, "a" or "b"."""
        return self.a if side == "a" else self.b

    def label_of_side(self, side: str) -> str:
        """Label in the records of a side: ``b (seed 0): env.OMP_NUM_THREADS=1``."""
        return ab_sides.side_label(side, self.seed, self.setting_of_side(side).setting_text)

    def run_order(self, pairs: int) -> list[tuple[ScheduledRun, ScheduledRun]]:
        """Return the runs of all pairs in their order; within each pair the order is random.

        Each round contains one pair of every case, in random order. The order depends only on the seed and the round:
        an experiment can be resumed and extended by more pairs.
        """
        found = []
        for number in range(pairs):
            # Reproducible from the seed on any machine; not used for secrets.
            chance = random.Random(f"{self.seed}/{number}")
            for index in chance.sample(range(len(self.matches)), len(self.matches)):
                halves = [
                    ScheduledRun(side, index, number, replace(case, repeat=number))
                    for side, case in zip(ab_sides.SIDES, self.matches[index], strict=True)
                ]
                chance.shuffle(halves)
                found.append((halves[0], halves[1]))
        return found


class ExperimentProgress(Progress):
    """Progress with the side (A or B) in front of each line."""

    def _finished_line_parts(self, record: Record) -> list[str]:
        first, *more = super()._finished_line_parts(record)
        return [f"{(record.label or '?')[0].upper()} {first}", *more]


def plan_experiment(suite_a: Suite, suite_b: Suite, a: Setting, b: Setting, seed: int, device: str) -> Experiment:
    """Plan the experiment: match the cases of the suite under A with those under B.

    Raises:
        BadInput: the two sides have different cases, apart from the settings.
    """
    changed = a.changed_keys | b.changed_keys | {"repeat"}
    cases = [{}, {}]  # type: list[dict[str, list[Case]]]
    for found, suite in zip(cases, (suite_a, suite_b), strict=True):
        for case in suite.cases(device):
            first = replace(case, repeat=0)
            of_key = found.setdefault(ab_sides.side_matching_key(first, changed), [])
            if first not in of_key:
                of_key.append(first)
    for side, of_side, others in (("A", cases[0], cases[1]), ("B", cases[1], cases[0])):
        for key, several in of_side.items():
            if len(several) > 1:
                names = ", ".join(sorted(changed - {"repeat"}))
                raise BadInput(
                    f"{side} has {len(several)} cases of {several[0].model} that differ only in {names}; "
                    f"set {names} on both sides, with --a and --b"
                )
            if key not in others:
                raise BadInput(
                    f"{side} has a case of {several[0].model} that the other side does not have; check "
                    f"[[exclude]] in the suite"
                )
    matches = tuple((of_a[0], cases[1][key][0]) for key, of_a in cases[0].items())
    return Experiment(suite_a.name, suite_a.version, a, b, seed, matches)
