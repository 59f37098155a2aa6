"""Two stores, or the two sides of `dlbench ab`, case by case: the ratio, its interval, and what may be said of it.

The unit is the process (see `comparison_statistics`): each attempt with samples is one. Only like is compared with
like (see `comparison_matching`); what does not agree is refused with the reason. The device may differ where each side
has one kind alone: then the hardware is what is compared.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from dlbench.errors import BadInput
from dlbench.report.analysis.comparison_lines import (
    ComparisonLine,
    build_comparison_line,
    compare_processes,
    correct_for_multiple_comparisons,
    explain_meter_mismatch,
    process_warning_notes,
)
from dlbench.report.analysis.comparison_matching import (
    IDENTITY_COLUMNS,
    AttemptGroup,
    ComparisonRules,
    MatchKey,
    combine_settings_of_groups,
    combine_settings_of_sides,
    find_back_to_back_pair,
    find_nearest_match_key,
    group_attempts,
    is_usable_attempt,
    select_attempts_of_sides,
    system_differences,
)
from dlbench.results.records import DONE_STATUSES
from dlbench.suites.case import Case


@dataclass(frozen=True)
class ComparisonResult:
    """The lines of all cases, and what differs between the systems of the two sides."""

    lines: list[ComparisonLine]
    rules: ComparisonRules
    differences: list[tuple[str, str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def num_compared(self) -> int:
        """How many cases have a ratio."""
        return sum(line.comparison is not None for line in self.lines)

    @property
    def num_with_interval(self) -> int:
        """How many cases have an interval."""
        return sum(line.comparison is not None and line.comparison.low is not None for line in self.lines)


def compare_cases(a: pd.DataFrame, b: pd.DataFrame, rules: ComparisonRules) -> ComparisonResult:
    """TARGET (b) against BASE (a), case by case, from independent processes: rows of `usable_attempts_of_side`.

    Raises BadInput if both hold the same attempts, or no case of one is in the other.
    """
    shared = set(a["attempt_id"]) & set(b["attempt_id"])
    if shared:
        raise BadInput(
            f"BASE and TARGET share {len(shared)} attempts; choose different ones with --base-where and --target-where"
        )
    remarks = []
    names = [name for name in IDENTITY_COLUMNS if name not in rules.ignore]
    devices = [set(side["device"]) for side in (a, b)]
    if "device" in names and devices[0] != devices[1] and all(len(d) == 1 for d in devices):
        names.remove("device")
        remarks.append(f"This compares hardware: {devices[0].pop()} in BASE, {devices[1].pop()} in TARGET.")
    if rules.ignore:
        remarks.append(f"Ignored differences (--ignore): {', '.join(sorted(rules.ignore))}.")
    lines = list(
        _build_comparison_lines(group_attempts(a, names, rules), group_attempts(b, names, rules), names, rules)
    )
    if all(line.verdict in ("refused", "missing") for line in lines):
        raise BadInput(f"no case of BASE can be compared with a case of TARGET: {_why_nothing_compared(lines)}")
    used = [side[side["_good"]] for side in (a, b)]
    return ComparisonResult(
        correct_for_multiple_comparisons(lines, rules.metric), rules, system_differences(*used), remarks
    )


def compare_ab_sides(
    cases: pd.DataFrame,
    sides: tuple[str, str],
    matches: Sequence[tuple[Case, Case]],
    pairs: int,
    rules: ComparisonRules,
) -> ComparisonResult:
    """The two sides of `dlbench ab`, pair by pair.

    Args:
        cases: the attempts that count, of one system, with their metrics and `samples` (`select_attempts_of_sides`).
        sides: the suites' names of A and B.
        matches: the two cases of each comparison; their axis `repeat` is the number of the pair.
        pairs: how many of them.
    """
    lines = []
    for case_a, case_b in matches:
        found = [find_back_to_back_pair(cases, sides, case_a, case_b, number) for number in range(pairs)]
        whole = [pair for pair in found if pair is not None and all(is_usable_attempt(half, rules) for half in pair)]
        a, b = [half for half, _ in whole], [half for _, half in whole]
        frames = pd.DataFrame(a, columns=cases.columns), pd.DataFrame(b, columns=cases.columns)
        setting = combine_settings_of_sides(case_a.to_dict(), case_b.to_dict())
        if not whole:
            note = f"in none of the {pairs} A/B pairs were both processes measured"
            lines.append(ComparisonLine(setting, "failed", note=note))
            continue
        reason = explain_meter_mismatch(*frames, ("A", "B"), rules)
        if reason:
            lines.append(ComparisonLine(setting, "refused", note=reason))
            continue
        figures, notes = compare_processes(*frames, ("A", "B"), rules, paired=True)
        notes += [*process_warning_notes(frames[0], "A", rules), *process_warning_notes(frames[1], "B", rules)]
        if len(whole) < pairs:
            notes.append(
                f"{pairs - len(whole)} of {pairs} pairs left out: one side failed, or other processes ran "
                "between the two sides"
            )
        lines.append(ComparisonLine(setting, "", *figures, "; ".join(notes)))
    return ComparisonResult(correct_for_multiple_comparisons(lines, rules.metric), rules)


def find_measured_pairs(
    rows: pd.DataFrame, sides: tuple[str, str], matches: Sequence[tuple[Case, Case]], pairs: int
) -> set[tuple[int, int]]:
    """Which pairs need not be measured again, as (index into `matches`, number): both halves done, one after the other.

    The arguments are those of `compare_ab_sides`, but for the store's rows.
    """
    cases = select_attempts_of_sides(rows, sides)
    return {
        (index, number)
        for index, (a, b) in enumerate(matches)
        for number in range(pairs)
        if (found := find_back_to_back_pair(cases, sides, a, b, number)) is not None
        and all(half["status"] in DONE_STATUSES for half in found)
    }


#: A verdict that TARGET takes more, of time and of energy.
_WORSE_VERDICTS = ("slower", "more")


def find_regressions(found: ComparisonResult, percent: float) -> list[ComparisonLine]:
    """The lines that fail a gate: slower (corrected) and by more than `percent` in the best estimate, or lost.

    The verdict says that a slowdown is real, the estimate how large it most likely is. The interval's lower end would
    pass the larger a slowdown the worse it was measured. A case measured in BASE that fails in TARGET is a regression,
    and so is one that fails there in some repeats and never did in BASE.
    """
    return [line for line in found.lines if line.lost or _is_regression(line, percent)]


def _is_regression(line: ComparisonLine, percent: float) -> bool:
    return line.comparison is not None and line.verdict in _WORSE_VERDICTS and line.comparison.ratio > 1 + percent / 100


def why_regression_undecided(line: ComparisonLine, percent: float) -> str | None:
    """Why a gate cannot tell whether a case regressed by `percent`; None where it can, or BASE did not measure it."""
    if line.lost or not line.in_base:
        return None
    if line.comparison is None:
        return line.note
    if line.comparison.has_no_spread:
        return "because all processes have the same value"
    if line.comparison.high is None or line.comparison.basis == "assumed":
        return "because there are too few processes"
    if (
        line.verdict in ("not decided", *_WORSE_VERDICTS)
        and not _is_regression(line, percent)
        and line.comparison.high > 1 + percent / 100
    ):
        return f"because the interval includes an increase of more than {percent:g} %"
    return None


def _build_comparison_lines(
    base: dict[MatchKey, AttemptGroup], target: dict[MatchKey, AttemptGroup], names: list[str], rules: ComparisonRules
) -> Iterator[ComparisonLine]:  # fmt: skip
    spare = [key for key in target if key not in base]
    for key, group in base.items():
        if key in target:
            line = build_comparison_line(group, target[key], rules)
        else:
            line = _line_of_case_without_target(group, target, spare, names)
        yield replace(line, in_base=not group.good.empty)
    for key in spare:
        yield ComparisonLine(combine_settings_of_groups(target[key]), "missing", note="only in TARGET", in_base=False)


def _line_of_case_without_target(
    group: AttemptGroup, target: dict[MatchKey, AttemptGroup], spare: list[MatchKey], names: list[str]
) -> ComparisonLine:
    """The line of a case that TARGET does not have; the nearest that it has instead is no longer spare."""
    near = find_nearest_match_key(group.key, spare, names)
    if near is None:
        return ComparisonLine(combine_settings_of_groups(group), "missing", note="only in BASE")
    spare.remove(near)
    reasons = [_describe_difference(n, x, y) for n, x, y in zip(names, group.key, near, strict=True) if x != y]
    return ComparisonLine(combine_settings_of_groups(group, target[near]), "refused", note="; ".join(reasons))


def _describe_difference(name: str, base: Any, target: Any) -> str:
    if name != "protocol":
        return f"{name} is {base} in BASE and {target} in TARGET"
    first, second = json.loads(base), json.loads(target)
    keys = [k for k in first | second if first.get(k) != second.get(k)]
    return "; ".join(f"protocol.{k} is {first.get(k)} in BASE and {second.get(k)} in TARGET" for k in keys)


def _why_nothing_compared(lines: list[ComparisonLine]) -> str:
    refused = [line for line in lines if line.verdict == "refused"]
    if not refused:
        return "no network was measured in the same mode in both BASE and TARGET"
    reason = Counter(line.note for line in refused).most_common(1)[0][0]
    names = [
        name for name in IDENTITY_COLUMNS if f"{name} is" in reason or (name == "protocol" and "protocol." in reason)
    ]
    if not names or "choose with" in reason:
        return reason
    return f"{reason}; `--ignore {','.join(names)}` compares them nevertheless"
