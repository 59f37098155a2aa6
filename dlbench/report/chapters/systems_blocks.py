"""Parts of the chapters that look at several systems, hosts or processes at once; empty where there is only one."""

import dataclasses

import pandas as pd

from dlbench.report.analysis import side_by_side, variability
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import network_title, setting_label
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.chapters.systems_section import measured_systems
from dlbench.report.document import Block
from dlbench.report.figures import plots_systems, plots_variability
from dlbench.table import Cell, Column, Table
from dlbench.units import list_text

_CASE_COLUMNS = ["model", "mode", "precision", "batch_size", "system_id"]


def add_attempt_ids(cases: pd.DataFrame, content: Content) -> pd.DataFrame:
    """Aggregated cases with the attempts behind each as `records`."""
    behind: dict[tuple[object, ...], list[str]] = {}
    for *key, attempt in content.shown[[*_CASE_COLUMNS, "attempt_id"]].itertuples(index=False, name=None):
        behind.setdefault(tuple(key), []).append(attempt)
    keys = cases[_CASE_COLUMNS].itertuples(index=False, name=None) if len(cases) else ()
    found = [tuple(behind.get(key, ())) for key in keys]
    return cases.assign(records=pd.Series(found, cases.index, dtype=object))


def metric_over_systems_blocks(content: Content, metric: str, name: str) -> list[Block]:
    """One figure of a metric over all systems, where they share any case."""
    if len(measured_systems(content)) < 2:
        return []
    shared = side_by_side.find_shared_cases(content)
    if shared.cases.empty:
        return []
    cases = add_attempt_ids(side_by_side.select_representative_cases(shared.cases), content)
    return [Block(plot=plots_systems.metric_over_systems_plot(cases, measured_systems(content), metric, name))]


def energy_trade_off_blocks(content: Content) -> list[Block]:
    """Energy against throughput with the Pareto front, and the points of the front; only where there are energies."""
    shown = content.shown
    if not shown["energy_per_image"].gt(0).any():
        return []
    cases = add_attempt_ids(side_by_side.summarize_processes(side_by_side.add_case_numbers(shown)), content)
    names = measured_systems(content)
    front = _pareto_table(cases, names)
    return [
        Block(heading="Energy against throughput", plot=plots_systems.energy_over_throughput_plot(cases, names)),
        Block(heading="Settings on the Pareto fronts", table=front, folded=True),
    ]


def process_spread_blocks(content: Content) -> list[Block]:
    """How processes of one case differ over repeats, hosts and devices; a sentence where no case ran twice."""
    cases = variability.find_repeated_processes(content)
    if cases.empty:
        if content.shown.empty:
            return []
        words = (
            "No case ran more than once on one kind of system, so differences between processes, hosts or devices are "
            "unknown. The figures below show the steps within each process. Run `dlbench run SUITE -P processes=3` to "
            "repeat the cases."
        )
        return [Block(words=words)]
    names = content.system_names
    found = variability.hardware_deviations(cases)
    blocks = [Block(heading="Variation between processes", words=variability.process_range_sentence(cases))]
    table = variability.process_spread_table(cases, names)
    blocks.append(Block(heading="Cases whose processes differ most", table=table, folded=True))
    hosts, devices = ([unit for unit in found if unit.kind == kind] for kind in ("host", "device"))
    if hosts:
        blocks += _hardware_deviation_blocks(hosts, cases, names, "host", variability.RULE_TEXT)
    # Hosts with one device each have been told apart already.
    if len(devices) > len(hosts):
        blocks += _hardware_deviation_blocks(devices, cases, names, "device", "" if hosts else variability.RULE_TEXT)
    return blocks


def _hardware_deviation_blocks(
    units: list[variability.HardwareDeviation], cases: pd.DataFrame, names: dict[str, str], kind: str, rule: str
) -> list[Block]:
    plot = plots_variability.hardware_deviations_plot(units, cases, names, kind)
    return [
        Block(heading=f"{kind.capitalize()}s", words=f"{_outliers_text(units, kind)} {rule}".strip()),
        Block(plot=dataclasses.replace(plot, records=tuple(cases["attempt_id"]))),
        Block(
            heading=f"All {kind}s ({len(units)})",
            table=variability.hardware_deviations_table(units, names),
            folded=True,
        ),
    ]


def _outliers_text(units: list[variability.HardwareDeviation], kind: str) -> str:
    """Which hosts or devices are slow or fast."""
    off = [unit for unit in units if unit.off]
    if off:
        listed = [f"{unit.name} ({100 * unit.deviation:+.1f} %)" for unit in off]
        return f"{kind.capitalize()}s whose step time differs from the others: {list_text(listed, 10)}."
    if all(unit.spread is None for unit in units):
        return f"Too few processes to decide whether a {kind} differs from the others."
    return f"No {kind} differs from the others by more than the usual spread."


def _pareto_table(cases: pd.DataFrame, names: dict[str, str]) -> Table:
    several = len(names) > 1
    columns = [Column("model", "Network"), Column("mode", "Mode"), *([Column("system", "System")] if several else [])]
    columns += [Column("setting", "Setting")]
    metrics = {name: METRICS[name] for name in ("throughput", "energy_per_image")}
    columns += [Column(name, metric.title, "right", metric.cell_text) for name, metric in metrics.items()]
    rows: list[list[Cell]] = []
    for (model, mode), front in plots_systems.pareto_fronts(cases):
        for case in front.to_dict("records"):
            row: list[Cell] = [network_title(model), mode]
            row += [names.get(case["system_id"], "unknown")] if several else []
            axes = ["precision", "batch_size", "devices_per_node", "nodes"]
            row += [setting_label(case, axes), float(case["throughput"]), float(case["energy_per_image"])]
            rows.append(row)
    return Table(columns, rows)
