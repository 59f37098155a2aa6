"""The brief of several systems: which is best for what, by how much and how sure; a row each; cautions."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from dlbench import units
from dlbench.process_statistics import DRIFT_ALLOWANCE, MIN_PROCESSES
from dlbench.report.analysis import verdicts
from dlbench.report.analysis.ab_experiments import AbComparison, compare_experiments
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import network_title, sort_networks
from dlbench.report.analysis.side_by_side import add_case_numbers
from dlbench.report.analysis.verdicts import LeadingSystem, SystemComparison, SystemRatio, compare_systems
from dlbench.report.analysis.workload_mix import WorkShare
from dlbench.report.chapters.brief_systems import num_failed_cases, ratios_per_system_table, system_warnings
from dlbench.report.chapters.comparison_tables import arrange_for_terminal, comparison_table, summary_line
from dlbench.report.document import Block
from dlbench.report.figures import plots_ratio
from dlbench.table import Cell, Column, Table

MAX_CAUTIONS = 5
#: By what systems are compared: how a sentence names the best, the columns of the table.
_BEST_PHRASES = {"energy": "needs the least energy per image", "cost": "costs the least per image"}
_CRITERION_TITLES = {"time": "Fastest", "energy": "Least energy", "cost": "Lowest cost"}
#: What a page has no room for beside the interval of an A/B experiment.
_LEFT_OUT = ("adjusted_p_value", "chance_target_larger")


def brief_blocks(content: Content) -> list[Block]:
    """The sentence, the systems, the verdicts, one figure and at most five cautions."""
    brief = compare_systems(content)
    if brief is None:
        words = "No case was measured on two systems, so no comparison is possible."
        return [Block(words=words), *ab_experiment_blocks(content)]
    if not brief.groups:
        names = ", ".join(brief.names.values())
        words = f"No case was measured on all of {names}. The chapter Systems side by side shows the cases that "
        words += "some of them share."
        return [Block(words=words), *ab_experiment_blocks(content)]
    missing: list[WorkShare] = []
    mixed = []
    if content.mix:
        weights, missing = verdicts.weigh_cases_by_mix(content.mix, _select_cases_of_groups(brief))
        mixed = [Block(words=_workload_mix_sentence(brief, weights))] if weights else []
    cautions = _caution_sentences(content, brief, missing)
    sentence = best_systems_sentence(brief)
    criteria = _join_with_and(["speed", *(what for what in ("energy", "cost") if what in brief.logs)])
    table = Block(heading=f"Systems by {criteria}", table=ratios_per_system_table(content, brief))
    if content.sides:
        # The verdicts of its pairs, case by case, as `dlbench ab` prints them.
        sentence, tables = f"{ab_experiment_sentence(content)}\n{sentence}", [*ab_experiment_blocks(content), table]
    else:
        leaders = Block(heading="Best system per precision and mode", table=_best_systems_table(brief))
        tables = [table, leaders, *ab_experiment_blocks(content)]
    return [
        Block(words=sentence, emphasis=True),
        *mixed,
        *tables,
        Block(plot=plots_ratio.ratio_plot(brief)),
        Block(heading="Caveats of this comparison", points=tuple(cautions)),
    ]


def ab_experiment_blocks(content: Content) -> list[Block]:
    """A table of verdicts for each experiment: a row per case."""
    return [_ab_experiment_block(one, content) for one in compare_experiments(content)]


def ab_experiment_sentence(content: Content) -> str:
    """How many cases of the experiment have which verdict; "" where its sides were not measured both."""
    return " ".join(
        f"{one.sides[1].title} against {one.sides[0].title}: {summary_line(one.result)}."
        for one in compare_experiments(content)
    )


def _ab_experiment_block(one: AbComparison, content: Content) -> Block:
    (a, b), names = one.sides, content.system_names
    table = arrange_for_terminal(comparison_table(one.result, ("A", "B")))
    kept = [i for i, column in enumerate(table.columns) if column.key not in _LEFT_OUT]
    rows = [[row[i] for i in kept] for row in table.rows]
    notes = [note for note in table.notes if not note.startswith("Effect:")]
    where = "" if content.sides else f"; {' and '.join(dict.fromkeys(names.get(s, 'unknown') for s in one.systems))}"
    return Block(
        heading=f"Verdict per case: {b.title} against {a.title}",
        words=f"{table.title}{where}.",
        table=Table([table.columns[i] for i in kept], rows, notes=notes),
    )


def best_systems_sentence(brief: SystemComparison) -> str:
    """Which system is best for what, by how much, and how sure; a line per question."""
    leaders = brief.leading_systems("time")
    sentences = _ab_speed_sentences(brief, leaders) if brief.paired else _fastest_sentences(brief, leaders)
    for what, words in _BEST_PHRASES.items():
        if what in brief.logs and (best := brief.leading_systems(what)):
            sentences.append(_best_by_metric_sentence(brief, best, words))
    sentences += [
        f"{brief.names[one.best]} against {brief.names[one.second]} in {one.group.name}: "
        f"{one.ratio.comparison.verdict_text}." + _second_system_faster_sentence(brief, one)
        for one in leaders
        if not one.ratio.is_decided and not brief.paired
    ]
    # The confidence stands where the first ± does.
    return "\n".join(sentences).replace(" %)", " % at 95 %)", 1)


def _ab_speed_sentences(brief: SystemComparison, leaders: Sequence[LeadingSystem]) -> list[str]:
    """A sentence for each precision and mode of an A/B experiment: how many times as fast B is as A."""
    found = []
    for one in leaders:
        speed = one.ratio if one.best == brief.base else one.ratio.swap_sides()
        (other,) = brief.other_systems()
        mean = f" (mean of {speed.num_cases} cases)" if speed.num_cases > 1 else ""
        verdict = "" if one.ratio.is_decided else f": {one.ratio.comparison.verdict_text}"
        found.append(
            f"In {one.group.name} {brief.names[other]} is {speed.text} times as fast as {brief.names[brief.base]}"
            f"{mean}{verdict}."
        )
    return [sentence.replace("]", " at 95 %]", number == 0) for number, sentence in enumerate(found)]


def _fastest_sentences(brief: SystemComparison, leaders: Sequence[LeadingSystem]) -> list[str]:
    """A sentence for each system that is fastest in some work."""
    parts = []
    for best in dict.fromkeys(one.best for one in leaders):
        won = [one for one in leaders if one.best == best and one.ratio.is_decided]
        if won and len(won) == len(leaders) > 1:
            shown = [one.ratio.swap_sides().value for one in won]
            times = f"{_format_ratio_range(shown)} × {_second_best_name(brief, won)}"
            words = f"{brief.names[best]} is fastest in every precision and mode ({times})."
            return [words + "".join(_second_system_faster_sentence(brief, one) for one in won)]
        if won:
            gains = {one.group.name: _speedup_text(one.ratio, brief.names[one.second]) for one in won}
            works = _join_with_and(f"{name} ({gain})" for name, gain in gains.items())
            parts.append(
                f"{brief.names[best]} is fastest in {works}."
                + "".join(_second_system_faster_sentence(brief, one) for one in won)
            )
    return parts


def _second_best_name(brief: SystemComparison, won: Sequence[LeadingSystem]) -> str:
    return brief.names[won[0].second] if len({one.second for one in won}) == 1 else "the next"


def _best_by_metric_sentence(brief: SystemComparison, leaders: Sequence[LeadingSystem], words: str) -> str:
    """Who is best by energy or cost: one system, or each with its precisions and modes."""
    decided = [one for one in leaders if one.ratio.is_decided]
    parts = []
    for best in dict.fromkeys(one.best for one in decided):
        won = [one for one in decided if one.best == best]
        everywhere = len(won) == len(leaders)
        where = "in every precision and mode" if everywhere else f"in {_join_with_and(one.group.name for one in won)}"
        saved = _format_ratio_range([100 * (1 - one.ratio.value) for one in won], 2)
        parts.append(f"{brief.names[best]} {words} {where} ({saved} % less than {_second_best_name(brief, won)})")
    open_ = [one.group.name for one in leaders if not one.ratio.is_decided]
    parts += [f"for {_join_with_and(open_)} it is not decided which system {words}"] if open_ else []
    return f"{'; '.join(parts)}."


def _best_systems_table(brief: SystemComparison) -> Table:
    """One row per precision and mode: the best system by each criterion, by how much and how sure."""
    criteria = {what: title for what, title in _CRITERION_TITLES.items() if what in brief.logs}
    leaders = {what: {one.group: one for one in brief.leading_systems(what)} for what in criteria}
    columns = [Column("work", "Work"), Column("cases", "Cases", "right")]
    columns += [*(Column(what, title) for what, title in criteria.items()), Column("but", "Opposite result")]
    rows: list[list[Cell]] = []
    for group in brief.groups:
        best = [_leading_system_cell(brief, leaders[what].get(group)) for what in criteria]
        fastest = leaders["time"].get(group)
        rows.append([group.name, len(group.numbers), *best, _networks_won_by_second(brief, fastest) if fastest else ""])
    notes = [
        f"Geometric mean over the cases that all systems share, with its 95 % interval. The mean is valid for these "
        f"cases, not for other networks. The interval follows from the variation between processes, multiplied by "
        f"{DRIFT_ALLOWANCE:g} to allow for slow changes of the machines. All verdicts of a column together have 95 % "
        f"confidence. A difference of up to 1 % counts as no difference. Processes still needed: "
        f"the number for each case, on each of the two systems."
    ]
    if "energy" in criteria:
        scopes = " and ".join(sorted(brief.cases["energy_scope"].dropna().unique()))
        notes.append(f"Energy is that of the {scopes}, with idle power, but without power supplies and cooling.")
    if "cost" in criteria:
        notes.append("Cost: device time and energy, at the prices listed in the chapter Cost to train.")
    return Table(columns, rows, notes=notes).without_empty_columns(["but"])


def _leading_system_cell(brief: SystemComparison, one: LeadingSystem | None) -> str:
    if one is None:
        return units.MISSING
    best, second = brief.names[one.best], brief.names[one.second]
    if one.ratio.is_decided and one.what == "time":
        return f"{best}\n{one.ratio.swap_sides().text} × {second}"
    if one.ratio.is_decided:
        return f"{best}\n{one.ratio.text} × that of {second}"
    return f"{best}, {second}\n{one.ratio.comparison.verdict_text}"


def _networks_won_by_second(brief: SystemComparison, one: LeadingSystem) -> str:
    """The networks in which the second system is faster for certain."""
    found = []
    of_group = brief.cases[brief.cases["number"].isin(one.group.numbers)]
    for model in sort_networks(of_group["model"]):
        numbers = of_group.loc[of_group["model"] == model, "number"].unique()
        ratio = brief.ratio("time", one.second, one.best, (int(n) for n in numbers))
        if ratio and ratio.value > 1 and ratio.is_decided:
            found.append(
                f"{network_title(model)}: {brief.names[one.second]} {units.ratio_text(ratio.value)} × "
                f"{brief.names[one.best]}"
            )
    return "; ".join(found)


def _workload_mix_sentence(brief: SystemComparison, weights: Mapping[int, float]) -> str:
    base = brief.names[brief.base]
    parts = []
    for system in brief.other_systems():
        ratio = verdicts.workload_mix_ratio(brief.logs["time"], brief.base, system, weights, brief.paired)
        if ratio is None:
            continue
        sure = "" if ratio.is_decided else f", {ratio.comparison.verdict_text}"
        parts.append(f"{brief.names[system]} is {ratio.swap_sides().text} times as fast{sure}")
    work = units.count_text(len(weights), "case")
    return f"Your mix of work ({work}, shares of the time on {base}): {'; '.join(parts)}."


def _select_cases_of_groups(brief: SystemComparison) -> pd.DataFrame:
    numbers = [number for group in brief.groups for number in group.numbers]
    return brief.cases[brief.cases["number"].isin(numbers)]


def _caution_sentences(content: Content, brief: SystemComparison, missing: Sequence[WorkShare]) -> list[str]:
    """What may change a decision, the gravest first; at most `MAX_CAUTIONS`."""
    found = []
    if missing:
        found.append(f"The work mix has {_join_with_and(map(str, missing))}, which was not measured on all systems.")
    few = brief.cases["processes"].lt(MIN_PROCESSES)
    if few.any():
        results = units.count_text(len(few), "result")
        found.append(
            f"{few.sum()} of {results} (one per case and system) come from fewer than {MIN_PROCESSES} processes; run "
            f"`dlbench run SUITE -P processes=3` to add processes."
        )
    for system, name in content.system_names.items():
        if failed := num_failed_cases(content, system):
            found.append(f"{name} failed in {units.count_text(failed, 'case')}; no ratio includes them.")
    for system, name in brief.names.items():
        if warned := system_warnings(content, system):
            found.append(f"{name}: {warned}.")
    shared, total = (
        len(set(_select_cases_of_groups(brief)["number"])),
        add_case_numbers(content.shown)["number"].nunique(),
    )
    if shared < total:
        found.append(f"{total - shared} of {total} cases are not shared by all systems; no ratio includes them.")
    found += _system_difference_cautions(content, brief)
    if not content.sides and content.rows.groupby("system_id")["system_hostname"].nunique().max() == 1:
        found.append("Each system was measured on one machine; identical machines may differ by a few percent.")
    if len(found) > MAX_CAUTIONS:
        more = (
            f"{len(found) - MAX_CAUTIONS + 1} more cautions: see the chapters Systems side by side, and Failures and "
            f"warnings."
        )
        found = [*found[: MAX_CAUTIONS - 1], more]
    return found or ["No warnings and no failed cases. Every case was measured on all systems."]


def _second_system_faster_sentence(brief: SystemComparison, one: LeadingSystem) -> str:
    """A further sentence where the second system is faster with some networks; else ""."""
    said = _networks_won_by_second(brief, one)
    return f" With some networks in {one.group.name}, the system ranked second is faster: {said}." if said else ""


def _system_difference_cautions(content: Content, brief: SystemComparison) -> list[str]:
    """Meters and software in which the systems differ."""
    found = []
    metered = brief.cases[brief.cases["energy_per_image"].notna()]
    if metered["energy_scope"].nunique() > 1:
        found.append("Energy meters measure different parts of a machine; only meters of one kind are compared.")
    torch = content.rows.groupby("system_id")["system_torch_version"]
    versions = torch.agg(lambda v: ", ".join(sorted(set(v.dropna()))))
    here = {brief.names[str(s)]: str(v) for s, v in versions.items() if s in brief.names}
    if len(set(here.values())) > 1:
        listed = ", ".join(f"{name} {version}" for name, version in here.items())
        found.append(f"PyTorch differs: {listed}. Software may cause part of the differences.")
    return found


def _speedup_text(ratio: SystemRatio, rival: str) -> str:
    """How many times as fast, and how sure: "1.39 × Alder, ±1.2 %"."""
    better = ratio.swap_sides()
    sure = ""
    if better.interval:
        low, high = (end / better.value for end in better.interval)
        sure = f", {units.plus_minus_text((high - low) / 2, (low, high))}"
    return f"{units.ratio_text(better.value)} × {rival}{sure}"


def _format_ratio_range(values: Sequence[float], significant: int = 3) -> str:
    low, high = units.ratio_text(min(values), significant), units.ratio_text(max(values), significant)
    return low if low == high else f"{low} to {high}"


def _join_with_and(words: Iterable[str]) -> str:
    listed = list(words)
    return " and ".join(filter(None, (", ".join(listed[:-1]), listed[-1]))) if listed else ""
