"""Two stores, or the two sides of `dlbench ab`, case by case: the ratio, its interval, and what may be said of it.

The unit is the process (see `compare_stats`): each attempt with samples is one. Only like is compared with like (see
`matching`); what does not agree is refused with the reason. The device may differ where each side has one kind alone:
then the hardware is what is compared.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from dlbench.errors import BadInput
from dlbench.report.analysis.comparison_lines import (
    Line,
    corrected,
    flags,
    line_of,
    middle,
    note_of_work,
    processes_of,
    unlike_meters,
    work_of,
)
from dlbench.report.analysis.comparison_statistics import compare_pairs
from dlbench.report.analysis.matching import (
    DEFAULT_RULES,
    IDENTITY,
    Group,
    Key,
    Rules,
    groups_of,
    is_usable,
    nearest,
    pair_of,
    paired_rows,
    setting_between,
    setting_of,
    side_of,
    system_differences,
)
from dlbench.results.records import DONE_STATUSES
from dlbench.suites.case import Case


@dataclass(frozen=True)
class ComparisonResult:
    """The lines of all cases, and what differs between the systems of the two sides."""

    lines: list[Line]
    rules: Rules
    differences: list[tuple[str, str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def num_compared(self) -> int:
        """How many cases have a ratio."""
        return sum(line.comparison is not None for line in self.lines)

    @property
    def num_tested(self) -> int:
        """How many cases have an interval."""
        return sum(line.comparison is not None and line.comparison.low is not None for line in self.lines)


def compare_stores(
    base: pd.DataFrame,
    target: pd.DataFrame,
    rules: Rules = DEFAULT_RULES,
    base_where: Sequence[str] = (),
    target_where: Sequence[str] = (),
    every_attempt: bool = False,
) -> ComparisonResult:
    """TARGET against BASE, case by case, from independent processes.

    Args:
        base, target: rows as `dlbench.load` gives them.
        rules: what is compared, and what may differ.
        base_where, target_where: selections such as "precision=fp32", by column of the rows.
        every_attempt: take superseded attempts (`dlbench run --fresh`) as processes too, not the latest alone.

    Raises:
        BadInput: a side is empty, both hold the same attempts, or no case of one is in the other.
    """
    a = side_of(base, base_where, every_attempt, "BASE", rules)
    b = side_of(target, target_where, every_attempt, "TARGET", rules)
    return compare_cases(a, b, rules)


def compare_cases(a: pd.DataFrame, b: pd.DataFrame, rules: Rules) -> ComparisonResult:
    """The same of two sides as `side_of` gives them."""
    shared = set(a["attempt_id"]) & set(b["attempt_id"])
    if shared:
        raise BadInput(
            f"BASE and TARGET share {len(shared)} attempts; choose different ones with --base-where and --target-where"
        )
    remarks = []
    names = [name for name in IDENTITY if name not in rules.ignore]
    devices = [set(side["device"]) for side in (a, b)]
    if "device" in names and devices[0] != devices[1] and all(len(d) == 1 for d in devices):
        names.remove("device")
        remarks.append(f"This compares hardware: {devices[0].pop()} in BASE, {devices[1].pop()} in TARGET.")
    if rules.ignore:
        remarks.append(f"Ignored differences (--ignore): {', '.join(sorted(rules.ignore))}.")
    lines = list(_lines(groups_of(a, names, rules), groups_of(b, names, rules), names, rules))
    if all(line.verdict in ("refused", "missing") for line in lines):
        raise BadInput(f"no case of BASE can be compared with a case of TARGET: {_why_none(lines)}")
    used = [side[side["_good"]] for side in (a, b)]
    return ComparisonResult(corrected(lines, rules.metric), rules, system_differences(*used), remarks)


def compare_sides(
    rows: pd.DataFrame, sides: tuple[str, str], matches: Sequence[tuple[Case, Case]], pairs: int, rules: Rules
) -> ComparisonResult:
    """The two sides of `dlbench ab`, pair by pair.

    Args:
        rows: the store's rows, of one system.
        sides: the suites' names of A and B.
        matches: the two cases of each comparison; their axis `repeat` is the number of the pair.
        pairs: how many of them.
    """
    cases = paired_rows(rows, sides)
    lines = []
    for case_a, case_b in matches:
        found = [pair_of(cases, sides, case_a, case_b, number) for number in range(pairs)]
        whole = [pair for pair in found if pair is not None and all(is_usable(half, rules) for half in pair)]
        a, b = [half for half, _ in whole], [half for _, half in whole]
        frames = pd.DataFrame(a, columns=cases.columns), pd.DataFrame(b, columns=cases.columns)
        setting = setting_of(case_a.to_dict(), case_b.to_dict())
        if not whole:
            lines.append(Line(setting, "failed", note=f"both sides were measured in none of the {pairs} pairs"))
            continue
        reason = unlike_meters(*frames, ("A", "B"), rules)
        if reason:
            lines.append(Line(setting, "refused", note=reason))
            continue
        work = work_of(*frames, rules)
        result = compare_pairs(
            processes_of(frames[0], rules, False, work[0]), processes_of(frames[1], rules, False, work[1]),
            rules.confidence, rules.margin, rules.between_processes, rules.metric != "step_time",
        )  # fmt: skip
        notes = [*note_of_work(work, ("A", "B")), *flags(frames[0], "A", rules), *flags(frames[1], "B", rules)]
        if len(whole) < pairs:
            notes.append(
                f"{pairs - len(whole)} of {pairs} pairs left out: one side failed, or other processes ran "
                "between the two sides"
            )
        middles = middle(frames[0], rules, work[0]), middle(frames[1], rules, work[1])
        lines.append(Line(setting, "", result, *middles, "; ".join(notes)))
    return ComparisonResult(corrected(lines, rules.metric), rules)


def whole_pairs(rows: pd.DataFrame, sides: tuple[str, str], matches: Sequence[tuple[Case, Case]], pairs: int) -> set[
    tuple[int, int]
]:  # fmt: skip
    """Which pairs need not be measured again, as (index into `matches`, number): both halves done, one after the other.

    The arguments are those of `compare_sides`.
    """
    cases = paired_rows(rows, sides)
    return {
        (index, number)
        for index, (a, b) in enumerate(matches)
        for number in range(pairs)
        if (found := pair_of(cases, sides, a, b, number)) is not None
        and all(half["status"] in DONE_STATUSES for half in found)
    }


#: A verdict that TARGET takes more, of time and of energy.
_WORSE = ("slower", "more")


def regressions(found: ComparisonResult, percent: float) -> list[Line]:
    """The lines that fail a gate: slower (corrected) and by more than `percent` in the best estimate, or lost.

    The verdict says that a slowdown is real, the estimate how large it most likely is. The interval's lower end would
    pass the larger a slowdown the worse it was measured. A case measured in BASE that fails in TARGET is a regression,
    and so is one that fails there in some repeats and never did in BASE.
    """
    return [line for line in found.lines if line.lost or _fails(line, percent)]


def _fails(line: Line, percent: float) -> bool:
    return line.comparison is not None and line.verdict in _WORSE and line.comparison.ratio > 1 + percent / 100


def why_undecided(line: Line, percent: float) -> str | None:
    """Why a gate cannot tell whether a case regressed by `percent`; None where it can, or BASE did not measure it."""
    if line.lost or not line.in_base:
        return None
    if line.comparison is None:
        return line.note
    if line.comparison.without_spread:
        return "without any spread between processes"
    if line.comparison.high is None or line.comparison.basis == "assumed":
        return "with too few processes"
    if (
        line.verdict in ("not decided", *_WORSE)
        and not _fails(line, percent)
        and line.comparison.high > 1 + percent / 100
    ):
        return f"with an interval that reaches beyond {percent:g} %"
    return None


def _lines(
    base: dict[Key, Group], target: dict[Key, Group], names: list[str], rules: Rules
) -> Iterator[Line]:  # fmt: skip
    spare = [key for key in target if key not in base]
    for key, group in base.items():
        line = line_of(group, target[key], rules) if key in target else _alone(group, target, spare, names)
        yield replace(line, in_base=not group.good.empty)
    for key in spare:
        yield Line(setting_between(target[key]), "missing", note="only in TARGET", in_base=False)


def _alone(group: Group, target: dict[Key, Group], spare: list[Key], names: list[str]) -> Line:
    """The line of a case that TARGET does not have; the nearest that it has instead is no longer spare."""
    near = nearest(group.key, spare, names)
    if near is None:
        return Line(setting_between(group), "missing", note="only in BASE")
    spare.remove(near)
    reasons = [_disagreement(n, x, y) for n, x, y in zip(names, group.key, near, strict=True) if x != y]
    return Line(setting_between(group, target[near]), "refused", note="; ".join(reasons))


def _disagreement(name: str, base: Any, target: Any) -> str:
    if name != "protocol":
        return f"{name} is {base} in BASE and {target} in TARGET"
    first, second = json.loads(base), json.loads(target)
    keys = [k for k in first | second if first.get(k) != second.get(k)]
    return "; ".join(f"protocol.{k} is {first.get(k)} in BASE and {second.get(k)} in TARGET" for k in keys)


def _why_none(lines: list[Line]) -> str:
    refused = [line for line in lines if line.verdict == "refused"]
    if not refused:
        return "they have no network and mode in common"
    reason = Counter(line.note for line in refused).most_common(1)[0][0]
    names = [name for name in IDENTITY if f"{name} is" in reason or (name == "protocol" and "protocol." in reason)]
    if not names or "choose with" in reason:
        return reason
    return f"{reason}; `--ignore {','.join(names)}` compares them nevertheless"
