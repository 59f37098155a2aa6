"""One line of a comparison: what two groups of processes of one case say, or why they say nothing."""

import math
from dataclasses import dataclass, replace
from statistics import fmean

import pandas as pd

from dlbench import units
from dlbench.process_statistics import MIN_PROCESSES
from dlbench.report.analysis.case_warnings import summarize_warnings
from dlbench.report.analysis.comparison_matching import (
    IDENTITY_COLUMNS,
    AttemptGroup,
    ComparisonRules,
    combine_settings_of_groups,
    is_cell_filled,
)
from dlbench.report.analysis.comparison_statistics import Comparison, compare_process_groups, correct_p_values_by_holm
from dlbench.report.analysis.derived_metrics import NO_KEY_TEXT
from dlbench.results.records import DONE_STATUSES
from dlbench.table import Cell

#: Verdicts of lines with a comparison come from `comparison_statistics`; these stand where there is none.
NOT_COMPARED = ("refused", "failed", "missing")

#: Verdicts of `comparison_statistics`, in the order in which the summary counts them.
VERDICTS = ("slower", "faster", "same", "not decided")

_ENERGY_WORDS = {"faster": "less", "slower": "more"}


@dataclass(frozen=True)
class ComparisonLine:
    """One case: what was found about it, or why nothing can be."""

    setting: dict[str, Cell]
    verdict: str
    comparison: Comparison | None = None
    base: float | None = None  # geometric mean over processes of their medians, in the metric's unit
    target: float | None = None
    note: str = ""  # beside what the comparison's `caveat_of_verdict` says
    lost: bool = False  # measured in BASE, and failed in TARGET: see `_fails_only_in_target`
    in_base: bool = True  # BASE measured it; what it did not cannot regress


def build_comparison_line(base: AttemptGroup, target: AttemptGroup, rules: ComparisonRules) -> ComparisonLine:
    """The line of one case that both sides have; its verdict waits for `correct_for_multiple_comparisons`."""
    setting = combine_settings_of_groups(base, target)
    sides = (("BASE", base), ("TARGET", target))
    for side, group in sides:
        reason = _explain_mixed_attempts(group, side, rules)
        if reason:
            return ComparisonLine(setting, "refused", note=reason)
    failed = [_describe_failure(group, side, rules) for side, group in sides if group.good.empty]
    if failed:
        return ComparisonLine(setting, "failed", note="; ".join(failed), lost=_fails_only_in_target(base, target))
    reason = explain_meter_mismatch(base.good, target.good, ("BASE", "TARGET"), rules)
    if reason:
        return ComparisonLine(setting, "refused", note=reason)
    keys = [side.good["network_key"].fillna("").iloc[0] or NO_KEY_TEXT for side in (base, target)]
    notes = (
        [] if keys[0] == keys[1] else [f"the definition of the network differs: {keys[0]} in BASE, {keys[1]} in TARGET"]
    )
    figures, more = compare_processes(base.good, target.good, ("BASE", "TARGET"), rules)
    notes += more
    for side, group in sides:
        notes += process_warning_notes(group.good, side, rules)
        if not group.bad.empty:
            num_bad = units.count_text(len(group.bad), "attempt")
            notes.append(f"{side}: {num_bad} not used ({_describe_failure(group, side, rules).partition(': ')[2]})")
    return ComparisonLine(setting, "", *figures, "; ".join(notes), _fails_only_in_target(base, target))


def _fails_only_in_target(base: AttemptGroup, target: AttemptGroup) -> bool:
    """Whether a case that BASE measured fails in TARGET: always, or sometimes where it never did in BASE."""
    if base.good.empty or _failed_attempts(target).empty:
        return False
    return target.good.empty or _failed_attempts(base).empty


def _failed_attempts(group: AttemptGroup) -> pd.DataFrame:
    """The attempts that failed by themselves; one that was preempted, or lacks the metric alone, did not."""
    return group.bad[~group.bad["status"].isin((*DONE_STATUSES, "preempted"))]


def explain_meter_mismatch(a: pd.DataFrame, b: pd.DataFrame, names: tuple[str, str], rules: ComparisonRules) -> str:
    """Why the energies of two sides are not of one thing: meters of several kinds or scopes; "" where they are."""
    for column in ("energy_source", "energy_scope") if rules.metric == "energy_per_image" else ():
        meters = [sorted(set(side[column].fillna("unknown").astype(str))) for side in (a, b)]
        if meters[0] != meters[1] or len(meters[0]) > 1:
            return f"{column} differs: {' and '.join(meters[0])} in {names[0]}, {' and '.join(meters[1])} in {names[1]}"
    return ""


#: In what settings of one CPU differ.
_CPU_SETTINGS = (
    ("system_torch_threads", "threads"),
    ("system_cpu_cores", "cores"),
    ("system_cpu_threads", "logical cores"),
    ("system_memory_bytes", "bytes of memory"),
)


def _explain_mixed_attempts(group: AttemptGroup, side: str, rules: ComparisonRules) -> str:
    """Why the attempts of a group are no processes of one case: an ignored axis varies, or the system does."""
    option = f"--{side.lower()}-where"
    every = pd.concat([group.good[list(IDENTITY_COLUMNS)], group.bad[list(IDENTITY_COLUMNS)]])
    for name in IDENTITY_COLUMNS:
        values = every[name].unique()
        if len(values) > 1:
            shown = " and ".join(map(str, values)) if name != "protocol" else f"{len(values)} kinds"
            return f"{side} mixes several values of {name}: {shown}; choose with {option} {name}={values[0]}"
    keys = group.good["system_key"].dropna().unique()
    if len(keys) > 1:
        return f"{side} has this case on {len(keys)} systems; choose with {option} system_key={keys[0]}"
    networks = group.good["network_key"].fillna("").unique()
    if len(networks) > 1:
        newest = [key for key in networks if key][-1]
        return (
            f"{side} has this case with {len(networks)} different definitions of the network; choose with {option} "
            f"network_key={newest}"
        )
    # Records of earlier versions have one key for all settings of a CPU.
    on_cpu = group.good[group.good["device"] == "cpu"]
    settings = _CPU_SETTINGS if on_cpu["system_id"].nunique() > 1 else _CPU_SETTINGS[:1]
    for column, noun in settings:
        counts = sorted(int(count) for count in on_cpu[column].dropna().unique())
        if len(counts) > 1:
            shown = " and ".join(map(str, counts))
            return f"{side} has this case with {shown} {noun}; choose with {option} {column}={counts[0]}"
    return ""


def _describe_failure(group: AttemptGroup, side: str, rules: ComparisonRules) -> str:
    failures = _failed_attempts(group)
    last = (group.bad if failures.empty else failures).iloc[-1]
    if last["status"] not in DONE_STATUSES:
        error = last["error"].splitlines()[0] if is_cell_filled(last["error"]) else "no reason stored"
        return f"{side}: {last['status']}: {error}"
    if rules.metric == "energy_per_image" and last["steps"] > 0:
        why = last["energy_note"] if is_cell_filled(last["energy_note"]) else "no meter"
        return f"{side}: no energy was measured ({why})"
    return f"{side}: status {last['status']}, but its step times cannot be used (missing, NaN, zero or negative)"


def process_warning_notes(good: pd.DataFrame, side: str, rules: ComparisonRules) -> list[str]:
    """What makes these processes worth a second look."""
    said = summarize_warnings(good, with_energy=rules.metric == "energy_per_image")
    return [f"{side}: {said}"] if said else []


def compare_processes(
    a: pd.DataFrame, b: pd.DataFrame, names: tuple[str, str], rules: ComparisonRules, paired: bool = False
) -> tuple[tuple[Comparison, float, float], list[str]]:
    """B against A, and of each side the geometric mean over processes of their medians, in the metric's unit.

    Where steps are of different work all values are per sample, as a note then says.
    """
    single_values = rules.metric != "step_time"
    work = [math.prod(int(s[axis].iloc[0]) for axis in ("batch_size", "nodes", "devices_per_node")) for s in (a, b)]
    notes = []
    if single_values or work[0] == work[1]:
        work = [1, 1]
    else:
        notes = [
            f"times are per sample, because a step has {work[0]} samples in {names[0]} and {work[1]} in {names[1]}"
        ]
    # The steps of a process are needed for its own interval alone.
    with_steps = not single_values and min(len(a), len(b)) < MIN_PROCESSES
    first, second = (
        [(steps / w).tolist() for steps in side["samples"]]
        if with_steps
        else [[float(value) / w] for value in side[rules.metric]]
        for side, w in zip((a, b), work, strict=True)
    )
    found = compare_process_groups(
        first, second, rules.confidence, rules.margin, rules.between_processes, single_values, paired
    )
    means = [math.exp(fmean(map(math.log, s[rules.metric]))) / w for s, w in zip((a, b), work, strict=True)]
    return (found, means[0], means[1]), notes


def correct_for_multiple_comparisons(lines: list[ComparisonLine], metric: str) -> list[ComparisonLine]:
    """The lines with verdicts; those of a difference hold for all of them together."""
    # Where the spread between processes is only assumed nothing is tested, and the other tests pay nothing for it.
    results = [line.comparison for line in lines if line.comparison]
    tested = [replace(c, p_value=None, low=None, high=None) if c.basis == "assumed" else c for c in results]
    compared = iter(correct_p_values_by_holm(tested))
    finished = []
    for line in lines:
        if line.comparison:
            result = next(compared)
            line = replace(
                line, verdict=verdict_names_for_metric(metric)[VERDICTS.index(result.verdict)], comparison=result
            )
        finished.append(line)
    return finished


def verdict_names_for_metric(metric: str) -> list[str]:
    """`VERDICTS` as this metric says them: energy is not slower, but more."""
    return [_ENERGY_WORDS.get(word, word) if metric == "energy_per_image" else word for word in VERDICTS]
