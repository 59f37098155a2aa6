"""The A/B experiments (`dlbench ab`) among the results of a report, compared as the command compares them."""

import json
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from dlbench.report.analysis.comparison import ComparisonResult, compare_ab_sides
from dlbench.report.analysis.comparison_matching import ComparisonRules, is_cell_filled
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.derived_metrics import latest_attempts
from dlbench.suites.ab_sides import SIDES, Side, parse_side, side_matching_key
from dlbench.suites.case import AXES, MODES, PRECISIONS, Case, make_protocol

#: What `make_network_names_unique` adds to the name of a network.
_NETWORK_KEY = re.compile(r" \[[^\]]*\]$")


@dataclass(frozen=True)
class AbComparison:
    """Side B against side A of one experiment, on the systems that they ran on."""

    sides: tuple[Side, Side]
    systems: tuple[str, str]  # by `system_id`
    result: ComparisonResult


@lru_cache(maxsize=1)
def compare_experiments(content: Content) -> tuple[AbComparison, ...]:
    """Every experiment whose both sides were measured, once for each system that it ran on; at 95 %, as by default."""
    attempts = content.attempts[content.attempts["suite"].astype(str).str.contains("-ab-", regex=False)]
    if attempts.empty:
        return ()
    found = {key: parse_side(*key) for key in set(zip(attempts["suite"], attempts["label"], strict=True))}
    sides = {(side.experiment, side.letter): (key, side) for key, side in found.items() if side}
    experiments = sorted({experiment for experiment, _ in sides})
    # Names that stand for several networks have got their keys since the cases got their ids.
    plain = [_NETWORK_KEY.sub("", str(model)) for model in attempts["model"]]
    cases = latest_attempts(attempts.assign(model=plain))
    # Those that are shown have their steps; of the others the median stands for them.
    shown = dict(zip(content.shown["attempt_id"], content.shown["samples"], strict=True))
    times = cases.set_index("attempt_id")["step_time"].items()
    steps = [shown.get(attempt, np.array([median])) for attempt, median in times]
    cases = cases.assign(samples=pd.Series(steps, cases.index, dtype=object))
    return tuple(
        one
        for experiment in experiments
        if all((experiment, letter) in sides for letter in SIDES)
        for one in _compare_sides_per_system(cases, *(sides[experiment, letter] for letter in SIDES))
    )


def _compare_sides_per_system(
    cases: pd.DataFrame, a: tuple[tuple[str, str], Side], b: tuple[tuple[str, str], Side]
) -> Iterator[AbComparison]:
    """The comparisons of one experiment: each system with itself, or A's with B's where a setting makes another."""
    of_a, of_b = (cases[(cases["suite"] == key[0]) & (cases["label"] == key[1])] for key, _ in (a, b))
    for system in of_a["system_id"].unique():
        others = [system] if system in set(of_b["system_id"]) else of_b["system_id"].unique()
        for other in others:
            own = [of_a[of_a["system_id"] == system], of_b[of_b["system_id"] == other]]
            for version in sorted(set(own[0]["suite_version"]) & set(own[1]["suite_version"])):
                halves = [side[side["suite_version"] == version] for side in own]
                if matches := _pair_cases_of_sides(halves, a[1].changed_keys | b[1].changed_keys):
                    both = pd.concat(halves)
                    pairs = int(both["repeat"].max()) + 1
                    result = compare_ab_sides(both, (a[0][0], b[0][0]), matches, pairs, ComparisonRules())
                    yield AbComparison((a[1], b[1]), (str(system), str(other)), result)


def _pair_cases_of_sides(halves: list[pd.DataFrame], changed: set[str]) -> list[tuple[Case, Case]]:
    """The cases of both sides that differ in their settings alone, training before inference."""
    of_a, of_b = ({side_matching_key(case, changed): case for case in _distinct_cases(side)} for side in halves)
    return [(case, of_b[key]) for key, case in of_a.items() if key in of_b]


def _distinct_cases(attempts: pd.DataFrame) -> list[Case]:
    names = [axis for axis in AXES if axis != "repeat"]
    rows = attempts[[*names, "protocol"]].drop_duplicates().to_dict("records")
    cases = [_build_case_from_row(row, names) for row in rows]
    order = {name: i for i, name in enumerate((*MODES, *PRECISIONS))}
    return sorted(cases, key=lambda case: (order[case.mode], order[case.precision], case.batch_size, case.id))


def _build_case_from_row(row: Mapping[Hashable, Any], axes: list[str]) -> Case:
    """The case of an attempt; what its record does not know had its default."""
    # A column of whole numbers in which some are missing holds floats.
    known: dict[str, Any] = {
        axis: int(row[axis]) if isinstance(row[axis], float) else row[axis]
        for axis in axes
        if is_cell_filled(row[axis])
    }
    return Case(**known, protocol=make_protocol(json.loads(row["protocol"] or "{}")))
