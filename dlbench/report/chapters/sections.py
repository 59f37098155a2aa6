"""The chapters of a report, each a function from `Content` to a `Section`, listed in `SECTIONS`."""

import dataclasses
from collections.abc import Callable
from functools import lru_cache

import pandas as pd

from dlbench import units
from dlbench.facts import audit
from dlbench.facts.layer_totals import LayerTotals
from dlbench.report.analysis import confidence_levels, side_by_side
from dlbench.report.analysis.change_points import MIN_POINTS
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.history import history_from_content
from dlbench.report.chapters import convergence, history_tables, method, opening_sentences, systems_blocks, tables
from dlbench.report.chapters.anchors import published_throughputs_table
from dlbench.report.chapters.bounds_section import HOW_TO_DRAW_OTHERS, bounds_section
from dlbench.report.chapters.compute_section import compute_section
from dlbench.report.chapters.findings import findings_table
from dlbench.report.chapters.pipeline_section import pipeline_section
from dlbench.report.chapters.plain_loop import plain_loop_section
from dlbench.report.chapters.power_section import power_section
from dlbench.report.chapters.projection_section import projection_section
from dlbench.report.chapters.provenance import provenance_section
from dlbench.report.chapters.scaling import scaling_section
from dlbench.report.chapters.summary import summary_section
from dlbench.report.chapters.systems_section import measured_systems, systems_section
from dlbench.report.chapters.tuning_section import tuning_section
from dlbench.report.document import Block, Plot, Section
from dlbench.report.figures import plots_batch, plots_history, plots_rates, plots_samples, plots_time
from dlbench.results import training_store
from dlbench.suites.catalog import CATALOG

NOTHING_MEASURED = "No case was measured successfully."
#: Figures are drawn for so many systems; the tables hold all.
MAX_SYSTEMS = 4
#: A longer table of failures is folded away.
_MAX_LEADING = 12


def comparison_section(content: Content) -> Section:
    """All measured cases with all that is known of them, to sort and to filter; repeats are one row."""
    if content.shown.empty:
        return Section("comparison", "Comparison", [Block(words=NOTHING_MEASURED)])
    cases = tables.merge_repeats_per_case(content.shown)
    table = tables.move_common_axes_to_note(tables.case_metrics_table(cases, content.system_names))
    shown, num_cases = len(content.shown), len(content.shown) + content.left_out
    runs = f" from {units.count_text(shown, 'run')}" if len(cases) < shown else ""
    networks = units.count_text(cases["model"].nunique(), "network")
    finding = f"{units.count_text(len(cases), 'case')}{runs} of {networks}."
    if content.left_out:
        finding = f"{shown} of {num_cases} measured cases are in this report and comparison.csv; metrics.csv has all."
    words = (
        f"Throughput is the sum over all devices. ± is the half-width of a confidence interval, at a level of "
        f"{confidence_levels.describe_levels(content.shown)}. One run: interval of its median step time. Two runs: "
        f"from the lowest to the highest end of their two intervals. Three or more runs: interval of their mean. "
        f"The chapter Method defines every metric."
    )
    filters = ("system", "model", "mode", "precision", "batch_size", "memory_format", "status")
    blocks = [Block(words=words), Block(table=table, filters=filters)]
    over = tables.combined_processes_table(content.shown, content.system_names)
    if over is not None:
        heading = "Mean over processes, and expected range of a repeated measurement"
        blocks = [Block(heading=heading, words=tables.interval_note(content.shown), table=over), *blocks]
    return Section("comparison", "Comparison", blocks, finding)


def throughput_section(content: Content) -> Section:
    """Throughput, over the batch and by precision where there are several."""
    several_batches = content.shown.groupby("model")["batch_size"].nunique().gt(1).any()
    several_precisions = content.shown["precision"].nunique() > 1
    over_systems = systems_blocks.metric_over_systems_blocks(content, "throughput", "throughput")
    blocks = over_systems or _plot_per_system(content, plots_rates.throughput_plot)
    blocks += batch_size_blocks(content) if several_batches else []
    blocks += _plot_per_system(content, plots_rates.precisions_plot) if several_precisions else []
    return Section("throughput", "Throughput", blocks, opening_sentences.throughput_opening(content))


def batch_size_blocks(content: Content) -> list[Block]:
    """Throughput over the batch with its knees: of one system by precision, of several in one panel per network."""
    if len(measured_systems(content)) < 2:
        return _plot_per_system(content, plots_batch.batch_curves)
    cases = systems_blocks.add_attempt_ids(side_by_side.cases_by_batch_size(content), content)
    return [
        Block(plot=plots_batch.batch_curves_of_systems(cases, content.system_names)),
        Block(heading="Knees of the curves", table=plots_batch.knees_table(cases, content.system_names), folded=True),
    ]


def step_time_section(content: Content) -> Section:
    """Where the time of a step goes."""
    blocks = _plot_per_system(content, plots_time.step_breakdown)
    return Section("step-time", "Step time by phase", blocks, opening_sentences.step_time_opening(content))


def memory_section(content: Content) -> Section:
    """Memory by kind and its peaks."""
    blocks = _plot_per_system(content, plots_time.memory_plot)
    return Section("memory", "Memory", blocks, opening_sentences.memory_opening(content))


def energy_section(content: Content) -> Section:
    """Energy per image, what throughput costs of it, and the power behind it."""
    blocks = systems_blocks.metric_over_systems_blocks(content, "energy_per_image", "energy")
    blocks = blocks or _plot_per_system(content, plots_rates.energy_plot)
    blocks += systems_blocks.energy_trade_off_blocks(content)
    traced = content.shown["power_w"].map(lambda trace: trace is not None and len(trace) > 1).astype(bool)
    if plots_samples.has_varying_power(content.shown[traced]).any():
        blocks += _plot_per_system(content, plots_samples.power_trace_plot)
    elif traced.any():
        share = units.percent_text(plots_samples.STEADY_POWER)
        words = f"The power of each case varies by at most {share}, so it is not plotted. Averages are in the table."
        blocks.append(Block(words=words))
    table = tables.energy_table(content.shown, content.system_names)
    if table.rows:
        filters = ("system", "model", "mode", "precision")
        blocks.append(Block(heading="Energy of each case", table=table, filters=filters, folded=True))
    return Section("energy", "Energy", blocks, opening_sentences.energy_opening(content))


def flop_time_section(content: Content) -> Section:
    """Time against work and its bound."""
    if content.shown[["device_peak", "measured_peak"]].notna().any(axis=None):
        words = (
            "A step takes at least the time of its floating-point operations: time >= FLOP / peak. The distance "
            "between a point and its line is the performance that the network does not use on this device."
        )
    else:
        words = (
            "The execution time of a step grows with its work. No peak of this device is known, so there is no bound. "
            "The line shows the highest rate among these cases. Run `dlbench ceilings` to measure the device's peak."
        )
    blocks = [Block(words=words), *_plot_per_system(content, plots_time.flop_time_plot)]
    return Section("flop-time", "FLOP against time", blocks, opening_sentences.flop_time_opening(content))


def variability_section(content: Content) -> Section:
    """How step times scatter and run."""
    blocks = systems_blocks.process_spread_blocks(content)
    blocks += _plot_per_system(content, plots_samples.step_time_box_plot)
    blocks += _plot_per_system(content, plots_samples.step_times_plot)
    return Section("variability", "Variability", blocks, opening_sentences.variability_opening(content))


def history_section(content: Content) -> Section:
    """How cases changed over the days that the results hold; without blocks where none was measured on enough."""
    if content.attempts.empty or content.attempts["started_at"].dt.date.nunique() < MIN_POINTS:
        return Section("history", "History")
    found = history_from_content(content)
    if not any(line.has_enough_days for line in found.lines):
        return Section("history", "History")
    changes = history_tables.changes_table(found)
    words = "No line changed." if not changes.rows else ""
    blocks = [Block(words=words, plot=plots_history.history_plot(found.lines))]
    blocks += [Block(heading="Changes", table=changes)] if changes.rows else []
    blocks.append(Block(heading="Lines", table=history_tables.case_histories_table(found), folded=True))
    return Section("history", "History", blocks)


def trainings_section(content: Content) -> Section:
    """Networks that were trained to a target beside the measured cases."""
    return convergence.convergence_section(training_store.read_trainings(content.sources))


def published_throughput_section(content: Content) -> Section:
    """Published throughputs of the same networks on the same devices, with all in which they differ."""
    table, num_others = published_throughputs_table(_merge_processes_per_case(content.shown), measured_systems(content))
    elsewhere = f"{units.count_text(num_others, 'published result')} of these networks on other devices are left out."
    if not table.rows:
        words = "No published results of these networks on these devices are known."
        return Section("published", "Published results", finding=f"{words} {elsewhere}" if num_others else words)
    ratios = [row["ratio"] for row in table.records() if isinstance(row["ratio"], float)]
    low, high = (units.number_text(end(ratios), 3) for end in (min, max))
    finding = (
        f"{units.count_text(len(ratios), 'published result')} on the same device. Our throughput is {low} to {high} "
        f"times the published one."
    )
    words = (
        "Published and own results differ in framework, data, batch, precision and often in the variant of the "
        f"network. Each row lists the differences: published first, own second. {elsewhere if num_others else ''}"
    )
    blocks = [Block(words=words.strip()), Block(table=table)]
    return Section("published", "Published results", blocks, finding)


def cnn_table_section(content: Content) -> Section:
    """The published table of CNNs beside what is counted: the facts behind every FLOP of this report."""
    published = audit.read_published()
    # The catalogue has no sizes and numbers of filters.
    known = {metric: figures for metric, figures in published.items() if metric not in ("filter_sizes", "num_filters")}
    rows = audit.audit_rows(_catalogue_layer_totals(), known)
    filters = sum(map(len, published.values())) - len(rows)
    words = (
        f"The table compares published values ({audit.PUBLISHED_SOURCE}) with those that dlbench counts. Weights "
        f"exclude biases; one MAC is one multiplication by a weight. These {len(rows)} rows use dlbench's catalogue "
        f"of networks. `dlbench table` builds the networks and also checks {filters} numbers and sizes of filters."
    )
    differences = audit.differences_table(rows)
    blocks = [Block(words=words), Block(table=audit.published_and_counted_table(rows).without_title())]
    if differences.rows:
        blocks.append(Block(heading=differences.title, table=differences.without_title()))
    return Section("cnn-table", "Published CNN table", blocks)


def failures_section(content: Content) -> Section:
    """What failed, and what to know about what did not."""
    blocks = []
    if len(content.failed):
        words = "`dlbench run` retries the failed cases, except those out of memory."
        table = tables.failures_table(content.failed, content.files)
        blocks = [Block(heading="Failed cases", words=words, table=table, lead=len(content.failed) <= _MAX_LEADING)]
    elif content.attempts.empty:
        blocks = [Block(words="There are no results; run `dlbench run quick` first.", lead=True)]
    found = findings_table(content)
    if found.rows:
        blocks.append(Block(heading="Warnings", table=found, lead=True))
    elif len(content.shown):
        blocks.append(Block(words="No measured case has a warning.", lead=True))
    return Section("failures", "Failures and warnings", blocks, opening_sentences.failures_opening(content))


def method_section(content: Content) -> Section:
    """The rules, how far they are met, and the definition of every metric."""
    words = (
        "Raw samples are stored, one per step. Every number here is derived from them. Medians and their intervals are "
        "over consecutive steps of one process."
    )
    blocks = [
        Block(words=words),
        Block(heading="The twelve rules of measurement", table=method.measurement_rules_table(content)),
        Block(
            heading="The twelve rules of Hoefler and Belli (SC15)",
            table=method.hoefler_belli_rules_table(),
            folded=True,
        ),
        Block(heading="Definition of every metric", table=tables.metric_definitions_table(), folded=True),
    ]
    return Section("method", "Method", blocks)


#: The chapters in their order. A new one is a function and an entry. Those without blocks are left out of the report.
SECTIONS: tuple[Callable[[Content], Section], ...] = (
    summary_section,
    systems_section,
    comparison_section,
    throughput_section,
    tuning_section,
    plain_loop_section,
    step_time_section,
    pipeline_section,
    memory_section,
    energy_section,
    power_section,
    flop_time_section,
    bounds_section,
    variability_section,
    history_section,
    scaling_section,
    trainings_section,
    projection_section,
    published_throughput_section,
    compute_section,
    cnn_table_section,
    failures_section,
    method_section,
    provenance_section,
)


def select_chapters(content: Content) -> tuple[Callable[[Content], Section], ...]:
    """The chapters that have something to say: of results without any case the trainings, and files passed over."""
    if content.attempts.empty:
        always = (summary_section, trainings_section)
        return (*always, failures_section) if content.skipped else always
    return SECTIONS


def _catalogue_layer_totals() -> dict[str, LayerTotals]:
    """The counts of the catalogue, which a test holds against the actual modules."""
    networks = [CATALOG[name] for name in audit.COUNTED_MODELS]
    shared = [f.name for f in dataclasses.fields(LayerTotals) if f.name not in ("filter_sizes", "num_filters")]
    own = {network.name: {name: getattr(network, name) for name in shared} for network in networks}
    return {name: LayerTotals(**facts, filter_sizes=(), num_filters=()) for name, facts in own.items()}


def _plot_per_system(content: Content, draw: Callable[[pd.DataFrame], Plot]) -> list[Block]:
    """One figure per system, named by it where there are several."""
    systems = list(measured_systems(content).items())
    if not systems:
        return [Block(words=NOTHING_MEASURED)]
    blocks = []
    for number, (system, name) in enumerate(systems[:MAX_SYSTEMS], 1):
        cases, merged = _shown_cases_of_system(content, system)
        if draw in _SAMPLE_PLOTS:
            cases = side_by_side.select_median_processes(cases)
        plot = draw(merged if draw in _CASE_PLOTS else cases)
        plot = dataclasses.replace(plot, records=plot.records or tuple(cases["attempt_id"]))
        if len(systems) > 1:
            plot = dataclasses.replace(plot, name=f"{plot.name}-{number}")
        blocks.append(Block(plot=plot, heading=name if len(systems) > 1 else ""))
    if len(systems) > MAX_SYSTEMS:
        left = ", ".join(name for _, name in systems[MAX_SYSTEMS:])
        words = f"Figures show at most {MAX_SYSTEMS} systems. Only the tables and metrics.csv contain: {left}."
        blocks.append(Block(words=f"{words} {HOW_TO_DRAW_OTHERS}"))
    return blocks


#: Figures that need no samples, and so show of several processes of a case their medians.
_CASE_PLOTS = (
    *(plots_rates.throughput_plot, plots_rates.energy_plot, plots_rates.precisions_plot, plots_batch.batch_curves),
    *(plots_time.step_breakdown, plots_time.memory_plot, plots_time.flop_time_plot),
)
#: Figures of samples, which no median has: they show the process in the middle.
_SAMPLE_PLOTS = (plots_samples.step_time_box_plot, plots_samples.step_times_plot, plots_samples.power_trace_plot)


@lru_cache(maxsize=MAX_SYSTEMS)
def _shown_cases_of_system(content: Content, system: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The shown cases of a system, process by process and as cases, with the attempts behind each as `records`."""
    cases = content.cases_of_system(system)
    cases = cases.assign(records=cases["attempt_id"].map(lambda attempt: (attempt,)))
    return cases, _merge_processes_per_case(cases)


def _merge_processes_per_case(cases: pd.DataFrame) -> pd.DataFrame:
    """One row per case, where repeats are several processes of it."""
    if cases["repeat"].nunique() < 2:
        return cases
    processes = side_by_side.add_case_numbers(cases)
    merged = side_by_side.summarize_processes(processes)
    return merged.assign(records=merged["number"].map(processes.groupby("number")["attempt_id"].agg(tuple)))
