"""Several systems side by side: the tables of networks by systems, which is better, and what is left out."""

from collections.abc import Mapping

import pandas as pd

from dlbench import units
from dlbench.report.analysis import ranking, side_by_side
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import network_title
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.ranking import CaseWinner
from dlbench.report.chapters import tables_systems
from dlbench.report.document import Block, Section

TITLE = "Systems side by side"
_FILTER_COLUMNS = ("model", "mode", "precision", "batch_size")


def systems_section(content: Content) -> Section:
    """Every case that systems share, a column per system; nothing for a single system."""
    if len(measured_systems(content)) < 2:
        return Section("systems", TITLE)
    shared = side_by_side.find_shared_cases(content)
    blocks: list[Block] = []
    if len(shared.cases):
        # The verdicts of an A/B experiment are those of its pairs, which the brief has.
        blocks += [*([] if content.sides else _best_system_blocks(content, shared)), *_metric_tables(content, shared)]
    rest = side_by_side.unshared_cases_table(content)
    if rest.rows:
        words = "Cases are compared if they differ only in system and repeat. The cases below have no such counterpart."
        blocks.append(Block(heading="Cases not compared", words=words, table=rest, filters=("system", "mode")))
    return Section("systems", TITLE, blocks, _shared_cases_sentence(content, shared))


def measured_systems(content: Content) -> dict[str, str]:
    """The systems with at least one measured case, by `system_id`, in the order of the report."""
    there = set(content.shown["system_id"])
    return {system: name for system, name in content.system_names.items() if system in there}


def thread_counts_by_system(content: Content) -> dict[str, list[int]]:
    """By `system_id` the numbers of PyTorch threads with which its measured cases ran.

    Ranks share the threads of a node: they count only where no case ran in a single process.
    """
    ranks = content.rows[["attempt_id", "system_torch_threads"]].dropna().drop_duplicates("attempt_id")
    cases = content.shown[["attempt_id", "system_id", "nodes", "devices_per_node"]].merge(ranks, on="attempt_id")
    found = {}
    for system, own in cases.groupby("system_id"):
        single = own[(own["nodes"] * own["devices_per_node"]).eq(1)]
        counted = single if len(single) else own
        found[str(system)] = sorted(int(count) for count in counted["system_torch_threads"].unique())
    return found


def threads_text(counts: list[int]) -> str:
    """Such as "1 thread" or "1, 2 or 4 threads"."""
    *first, last = map(str, counts)
    return f"{', '.join(first)} or {last} threads" if first else units.count_text(int(last), "thread")


def _threads_sentences(content: Content) -> list[str]:
    """Where the PyTorch threads of a process differ between systems, and between the cases of one."""
    names, counts = measured_systems(content), thread_counts_by_system(content)
    known = {names[system]: threads_text(counts[system]) for system in names if system in counts}
    if len(set(known.values())) < 2:
        # All systems ran with the same: what differs, if anything, are the cases.
        return [f"PyTorch ran with {words}, depending on the case." for words in set(known.values()) if " or " in words]
    listed = ", ".join(f"{words} on {name}" for name, words in known.items())
    return [f"The systems differ in PyTorch threads: {listed}."]


def _best_system_blocks(content: Content, shared: side_by_side.SharedCases) -> list[Block]:
    """The best system per network and metric, in words and as a table, with what keeps it from being certain."""
    names = measured_systems(content)
    # The representative case of each network and mode.
    cases = side_by_side.select_representative_cases(shared.cases)
    processes = shared.processes[shared.processes["number"].isin(cases["number"])]
    found = {metric: ranking.find_case_winners(processes, metric) for metric in ranking.ranking_metrics(processes)}
    sentences = [_wins_sentence(metric, standings, names) for metric, standings in found.items() if standings]
    missing = [METRICS[metric].title.lower() for metric, standings in found.items() if not standings]
    if missing:
        sentences.append(f"Not compared, because fewer than two systems have a value: {', '.join(missing)}.")
    every = [standing for standings in found.values() for standing in standings]
    return [
        Block(words=" ".join(sentences)),
        Block(heading="The best system, per network", table=tables_systems.winners_table(found, cases, names)),
        *(Block(words=words) for words in _best_system_caveats(content, every, cases)),
    ]


def _metric_tables(content: Content, shared: side_by_side.SharedCases) -> list[Block]:
    names = measured_systems(content)
    metrics = ranking.ranking_metrics(shared.processes)
    blocks = []
    for metric in metrics:
        known = shared.cases[shared.cases[metric].notna()]
        if known["system_id"].nunique() == 0:
            blocks.append(Block(words=f"{METRICS[metric].title}: no shared case has a value."))
            continue
        table = tables_systems.metric_by_system_table(shared.cases, names, metric, shared.failed)
        heading, folded = METRICS[metric].title, metric != "throughput"
        blocks.append(Block(heading=heading, table=table, folded=folded, filters=_FILTER_COLUMNS))
        if metric == "throughput" and not content.sides:
            blocks.append(_speedups_block(content, shared, names))
    summaries = side_by_side.summarize_processes(side_by_side.add_case_numbers(content.shown))
    best = tables_systems.best_settings_table(summaries, names)
    return [*blocks, Block(heading="Each system at its fastest setting", table=best, folded=True)]


def _speedups_block(content: Content, shared: side_by_side.SharedCases, names: Mapping[str, str]) -> Block:
    base = content.baseline_id(names)
    table = tables_systems.speedups_table(shared.cases, shared.processes, names, base, shared.failed)
    heading = f"Speedup over {names[base]}"
    if not table.rows:
        return Block(heading=heading, words=f"{names[base]} shares no case with another system.")
    return Block(heading=heading, table=table, filters=_FILTER_COLUMNS)


def _shared_cases_sentence(content: Content, shared: side_by_side.SharedCases) -> str:
    names = measured_systems(content)
    numbers = shared.cases["number"].nunique() if len(shared.cases) else 0
    words = [f"{len(names)} systems: {', '.join(names.values())}."]
    if not numbers:
        words.append("The systems have no case in common.")
    elif content.sides:
        words.append(f"{units.count_text(numbers, 'case')} measured alternately with each of the two settings.")
    else:
        words.append(
            f"{units.count_text(numbers, 'case')} measured on two or more of these systems, with the same network, "
            f"pass, precision, batch and all other settings, the same version of the suite and the same protocol."
        )
        alone = [name for system, name in names.items() if not (shared.cases["system_id"] == system).any()]
        words += [f"{name} shares no case with another system." for name in alone]
    words += [f"{name} has no measured case." for name in content.system_names.values() if name not in names.values()]
    return " ".join([*words, *_threads_sentences(content)])


def _wins_sentence(metric: str, standings: list[CaseWinner], names: Mapping[str, str]) -> str:
    """How often each system is best in the table below.

    Such as ``Throughput: A is better in 10, not decided in 2 of 12 cases.``
    """
    by_system = {system: [s.outcome for s in standings if s.best == system] for system in names}
    parts = []
    for system, outcomes in by_system.items():
        if sure := outcomes.count(ranking.BETTER):
            parts.append(f"{names[system]} is better in {sure}")
    for outcome, words in ((ranking.SAME, "no difference beyond 1 %"), (ranking.NOT_DECIDED, "not decided")):
        if number := sum(s.outcome == outcome for s in standings):
            parts.append(f"{words} in {number}")
    return f"{METRICS[metric].title}: {', '.join(parts)} of {units.count_text(len(standings), 'case')}."


def _best_system_caveats(content: Content, standings: list[CaseWinner], cases: pd.DataFrame) -> list[str]:
    words = []
    tested = sum(s.low is not None for s in standings)
    if tested:
        words.append(
            "The intervals are 95 % intervals of the ratio of the best system to the next, from three or more "
            "processes on each side. A system is called better only if all such verdicts of its column together have "
            "95 % confidence (Holm's correction). Memory is compared without an interval. If the interval of a "
            "difference lies within ±1 %, it counts as no difference."
        )
    if any(s.outcome == ranking.NOT_DECIDED and s.low is None for s in standings):
        words.append(tables_systems.UNKNOWN_SPREAD)
    energies = cases[cases["energy_per_image"].notna()]
    meters = energies.groupby("system_id")[["energy_source", "energy_scope"]].first().drop_duplicates()
    if len(meters) > 1:
        listed = ", ".join(f"{m['energy_source']} ({m['energy_scope']})" for m in meters.to_dict("records"))
        words.append(f"Energies come from different meters: {listed}. Only meters of the same scope are compared.")
    unstable = cases[cases["status"] != "ok"]
    if len(unstable):
        works = dict.fromkeys(f"{network_title(c['model'])} {c['mode']}" for c in unstable.to_dict("records"))
        words.append(f"Unstable results on at least one system: {', '.join(works)}.")
    return words
