"""The table of the brief with a row for each system: speed, energy, cost and warnings, the fastest first."""

import math
from collections.abc import Iterable
from statistics import fmean

from dlbench import units
from dlbench.report.analysis.case_warnings import summarize_case_warnings
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import network_title, sort_networks
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.side_by_side import add_case_numbers, summarize_processes
from dlbench.report.analysis.verdicts import PrecisionModeGroup, SystemComparison, SystemRatio
from dlbench.suites.case import MODES, PRECISIONS
from dlbench.table import Cell, Column, NumberWithText, Table

#: The range of single cases is shown where the largest is more than this many times the least.
_WIDE_RANGE = 1.1
#: The most columns of speed that fit a page.
_MOST_SPEEDS = 6
_TITLES = {"energy": "Energy per image", "cost": "Cost per image", "memory": "Peak memory"}
_BASELINE = NumberWithText(1.0, "1 (baseline)")


def ratios_per_system_table(content: Content, brief: SystemComparison) -> Table:
    """One row per system: its ratios to the baseline over the cases that all share, and what to know beside them."""
    numbers = _case_indexes_of_groups(brief.groups)
    parts = _cases_per_speed_column(brief)
    several = len(parts) > len(MODES)  # narrow columns: the interval below its ratio
    ratios = {what: {s: brief.ratio(what, brief.base, s, numbers) for s in brief.names} for what in _TITLES}
    # Where all ask for the same memory, there is nothing to choose by.
    memory_differs = any(ratio and not 0.99 < ratio.value < 1.01 for ratio in ratios["memory"].values())
    metrics = [what for what in _TITLES if what in brief.logs and (what != "memory" or memory_differs)]
    columns = [
        Column("system", "System"),
        *(Column(key, f"{key if key.startswith(PRECISIONS) else key.capitalize()} [×]", "right") for key in parts),
        *(Column(what, f"{_TITLES[what]} [×]", "right") for what in metrics),
        Column("cases", "Cases shared", "right"),
        Column("warnings", "Warnings", "left"),
    ]
    rows: list[list[Cell]] = []
    for system, name in brief.names.items():
        speeds = [brief.ratio("time", brief.base, system, of_part) for of_part in parts.values()]
        row: list[Cell] = [name, *(_ratio_cell(r and r.swap_sides(), system == brief.base, several) for r in speeds)]
        row += [_ratio_cell(ratios[what][system], system == brief.base, several) for what in metrics]
        measured = add_case_numbers(content.cases_of_system(system))["number"].nunique()
        failed = num_failed_cases(content, system)
        said = [f"{failed} failed" if failed else "", system_warnings(content, system)]
        row += [NumberWithText(len(numbers), f"{len(numbers)} of {measured}"), "; ".join(filter(None, said)) or "none"]
        rows.append(row)
    rows.sort(key=lambda row: tuple(float(cell) if isinstance(cell, float) else 0.0 for cell in row[1:3]), reverse=True)
    of_pairs = " from pairs of processes" if brief.paired else ""
    notes = [
        f"Ratios to {brief.names[brief.base]}: geometric means over the cases that all systems share, with 95 % "
        f"intervals{of_pairs}. If the ratios of single cases differ much, their range is printed after the mean. "
        f"Higher is better for speed, lower for everything else. Sorted by {next(iter(parts))}.",
        _baseline_note(content, brief),
    ]
    if any("unstable" in str(row[-1]) for row in rows):
        words = (
            "Unstable: the interval (±) of a case is wider than its suite asks for. The mean of many cases has a "
            "narrower interval."
        )
        notes.append(words)
    return Table(columns, rows, notes=notes)


def system_warnings(content: Content, system: str) -> str:
    """How many of the cases of a system have which warning; "" without any."""
    processes = add_case_numbers(content.cases_of_system(system))
    return summarize_case_warnings(processes, summarize_processes(processes, ["step_time"]))


def num_failed_cases(content: Content, system: str) -> int:
    """How many cases of a system failed."""
    return int((content.failed["system_id"] == system).sum()) if "system_id" in content.failed else 0


def _case_indexes_of_groups(groups: Iterable[PrecisionModeGroup]) -> list[int]:
    return [number for group in groups for number in group.numbers]


def _cases_per_speed_column(brief: SystemComparison) -> dict[str, list[int]]:
    """The cases of each column of speed: training and inference apart, unless both give the same ratios.

    Where a system is faster in one precision and slower in another, each has its column: a mean would hide it.
    """
    by_group = {f"{group.name} speed": list(group.numbers) for group in brief.groups}
    if len(by_group) <= _MOST_SPEEDS and any(
        _is_both_faster_and_slower(brief, system) for system in brief.other_systems()
    ):
        return by_group
    by_mode = {mode: _case_indexes_of_groups(g for g in brief.groups if g.mode == mode) for mode in MODES}
    parts = {f"{mode} speed": numbers for mode, numbers in by_mode.items() if numbers}
    texts = [
        [_format_ratio_value(brief.ratio("time", brief.base, s, part)) for s in brief.names] for part in parts.values()
    ]
    return parts if len(texts) > 1 and texts[0] != texts[1] else {"speed": _case_indexes_of_groups(brief.groups)}


def _is_both_faster_and_slower(brief: SystemComparison, system: str) -> bool:
    """Whether the system is certainly faster than the baseline in one precision and slower in another, in one mode."""
    found = set()
    for group in brief.groups:
        ratio = brief.ratio("time", brief.base, system, group.numbers)
        if ratio and ratio.is_decided:
            found.add((group.mode, ratio.value < 1))
    return any((mode, not faster) in found for mode, faster in found)


def _format_ratio_value(ratio: SystemRatio | None) -> str:
    return units.MISSING if ratio is None else units.ratio_text(ratio.value)


def _ratio_cell(ratio: SystemRatio | None, is_base: bool, is_narrow: bool) -> Cell:
    if ratio is None or is_base:
        return _BASELINE if is_base else None
    # A range that says no more than the interval is left out.
    wide = ratio.most > _WIDE_RANGE * ratio.least
    cases = f"{units.ratio_text(ratio.least)} to {units.ratio_text(ratio.most)}" if wide else ""
    if is_narrow:
        return NumberWithText(ratio.value, "\n".join(filter(None, (*ratio.text.split(" ", 1), cases))))
    return NumberWithText(ratio.value, f"{ratio.text}\ncases: {cases}" if cases else ratio.text)


def _baseline_note(content: Content, brief: SystemComparison) -> str:
    """What the baseline's network with the most work takes at its fastest, per precision and mode: no ratio alone."""
    base = brief.names[brief.base]
    mine = brief.cases[brief.cases["system_id"] == brief.base]
    shared = set.intersection(*(set(mine.loc[mine["number"].isin(g.numbers), "model"]) for g in brief.groups))
    if not shared:
        return f"The absolute values of {base} are in the chapter Systems side by side."
    model = "resnet50" if "resnet50" in shared else sort_networks(shared)[-1]
    of_model = mine[mine["model"] == model].sort_values("throughput", ascending=False, kind="stable")
    best = [of_model[of_model["number"].isin(group.numbers)].iloc[0] for group in brief.groups]
    parts = [
        f"{METRICS['throughput'].format(case['throughput'])} in {group.name}"
        for group, case in zip(brief.groups, best, strict=True)
    ]
    for what, title in _TITLES.items():
        logs = [own for case in best if (own := brief.logs.get(what, {}).get((case["number"], brief.base)))]
        if logs:
            values = [math.exp(fmean(own)) for own in logs]
            low, high = (_format_energy_memory_or_cost(content, what, end(values)) for end in (min, max))
            first, _, unit = low.rpartition(" ")
            shown = high if low == high else f"{first if high.endswith(f' {unit}') else low} to {high}"
            parts.append(f"{title.lower().replace('cost per image', 'cost per million images')} {shown}")
    return f"Absolute values of {base} with {network_title(model)} at its fastest batch size: {', '.join(parts)}."


def _format_energy_memory_or_cost(content: Content, what: str, value: float) -> str:
    if what == "energy":
        return METRICS["energy_per_image"].format(value)
    if what == "memory":
        return units.bytes_text(value)
    assert content.prices
    return f"{units.number_text(1e6 * value, 3)} {content.prices.currency}"
