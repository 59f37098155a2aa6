"""The tables of a report, for every format that `dlbench.table` knows."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Hashable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from dlbench import units
from dlbench.errors import DlbenchError
from dlbench.report.analysis import confidence_levels
from dlbench.report.analysis.case_selection import fastest_cases
from dlbench.report.analysis.case_warnings import (
    add_warnings_column,
    describe_status_and_warnings,
    warnings_per_process,
)
from dlbench.report.analysis.derived_metrics import has_uneven_steps
from dlbench.report.analysis.labels import MAIN_AXES, case_axis_title, network_title, sort_networks, varying_axes
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.side_by_side import add_case_numbers, sort_cases, summarize_processes
from dlbench.report.loading.systems import ab_side_by_system
from dlbench.suites.case import AXES, MODES, Case
from dlbench.suites.suite import GLOBAL_BATCH, Suite, load_suite
from dlbench.table import Cell, Column, Table, half_width_cell, half_width_text, number_or_none, seconds_text
from dlbench.table import default_cell_text as shown_cell

#: The metrics of the comparison table, in its order; a column in which nothing is known is left out, and named below.
COMPARED_METRICS = (
    *("throughput", "item_throughput", "step_time_half_width", "steps", "sustained_throughput", "step_time"),
    *("flop_per_image", "flop_rate", "mfu", "hfu"),
    *("distance_to_bound", "share_of_measured_peak", "distance_to_layer_bound"),
    *("memory_allocated", "memory_rss", "energy_per_image", "module_energy_per_image", "iqr"),
)
#: Above a column, where the metric's own title is too long.
_SHORT_TITLES = {
    "step_time_half_width": "±",
    "steps": "Steps",
    "sustained_throughput": "Sustained",
    "flop_per_image": "Work",
    "flop_rate": "Achieved",
    "mfu": "% of datasheet peak",
    "hfu": "% of peak with recomputation",
    "distance_to_bound": "Time over its bound",
    "share_of_measured_peak": "% of measured peak",
    "distance_to_layer_bound": "Time over layers' bound",
    "memory_allocated": "Peak memory",
    "memory_rss": "Host memory",
    "energy_per_image": "Energy",
    "module_energy_per_image": "Energy of module",
    "energy_per_gflop": "Energy per FLOP",
    "images_per_wh": "Per Wh",
    "average_power": "Power",
    "idle_power": "Idle",
    "energy_disagreement": "Difference of meters",
    "iqr": "IQR of steps",
}
#: Only superchips, activation checkpointing and sequences have these: not missing where they are not known.
_RARE_METRICS = ("module_energy_per_image", "hfu", "item_throughput")
#: Energies first, then the powers behind them, then what says how far to trust both.
_ENERGY_METRICS = (
    *("energy_per_image", "module_energy_per_image", "energy_per_gflop", "images_per_wh"),
    *("average_power", "idle_power", "energy_disagreement"),
)
_COMMON_AXES = ("precision", "batch_size")
#: What stands for the unit in the summary, where the title is the mode.
_SUMMARY_UNITS = {"mfu": "% of peak"}
_SI_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))


def merge_repeats_per_case(shown: pd.DataFrame) -> pd.DataFrame:
    """One row per case where cases were measured several times: medians, `processes`, and all attempts as `runs`.

    Settings that `dlbench ab` labels stay apart, though they may differ in no axis, unless each is a system.
    """
    labelled = shown["label"].fillna("").ne("").any() and not ab_side_by_system(shown)
    if labelled or shown["repeat"].nunique() < 2:
        return shown
    processes = add_case_numbers(shown)
    cases = add_warnings_column(summarize_processes(processes), processes)
    groups = processes.groupby(["number", "system_id"], sort=False)
    kept = groups[["attempt_id", "label", "confidence", "sample_unit"]].first()
    kept["runs"] = groups["attempt_id"].agg(" ".join)
    cases = cases.join(kept, on=["number", "system_id"])
    reach = (cases["throughput_high"] - cases["throughput_low"]) / 2 / cases["throughput"]
    return cases.assign(step_time_half_width=cases["step_time_half_width"].where(cases["processes"].eq(1), reach))


def case_metrics_table(shown: pd.DataFrame, system_names: dict[str, str]) -> Table:
    """Every run, or case of `merge_repeats_per_case`, with its metrics, each column in one unit."""
    shown = sort_attempts(shown)
    # Where steps are even, sustained throughput says nothing more.
    hidden = [] if has_uneven_steps(shown).any() else ["sustained_throughput"]
    hidden += [name for name in _RARE_METRICS if shown[name].isna().all()]
    several_units = shown["sample_unit"].nunique() > 1
    axes = ["model", *(["sample_unit"] if several_units else []), *MAIN_AXES[1:], *varying_axes(shown)]
    known = [name for name in COMPARED_METRICS if shown[name].notna().any() and name not in hidden]
    columns = case_name_columns(axes, system_names)
    # Settings that `ab` measures in turns may differ in no axis: their labels tell them apart.
    labelled = bool(shown["label"].fillna("").ne("").any())
    columns += [Column("label", "Setting", "left")] if labelled else []
    # A fourth digit only where the interval is narrow enough to mean something.
    sharp = shown["step_time_half_width"].median() < 0.005
    columns += [metric_column(n, shown[n], 4 if n == "throughput" and sharp else 3) for n in known]
    # Behind the throughput and its interval, so that nobody reads these without it.
    place = len(columns) - len([name for name in known if name not in ("throughput", "step_time_half_width")])
    several = "runs" in shown
    unusual = confidence_levels.has_level_other_than_95(shown)
    warned = list(shown["warning_words"]) if "warning_words" in shown else warnings_per_process(shown)
    columns[place:place] = [
        *([Column("confidence", "Confidence", "right", _format_confidence_level)] if unusual else []),
        Column("status", "Status"),
        *([Column("warnings", "Warnings", "left", _break_only_between_items)] if any(warned) else []),
    ]
    rows: list[list[Cell]] = []
    for case, words in zip(shown.to_dict("records"), warned, strict=True):
        judged: list[Cell] = [number_or_none(case["confidence"])] if unusual else []
        judged += [case["status"], *([words] if any(warned) else [])]
        cells = case_name_cells(case, axes, system_names)
        cells += [case["label"] if isinstance(case["label"], str) else ""] if labelled else []
        cells += [
            half_width_with_interval(case, name) if name == "step_time_half_width" else number_or_none(case[name])
            for name in known
        ]
        rows.append([*cells[:place], *judged, *cells[place:], case["runs" if several else "attempt_id"]])
    record = Column("attempt_id", "Record", "left", _short_attempt_id)
    columns.append(Column("runs", "Runs", "left", _count_runs) if several else record)
    missing = [METRICS[name].title.lower() for name in COMPARED_METRICS if name not in (*known, *hidden)]
    notes = [f"Not available for any of these cases: {', '.join(missing)}."] if missing else []
    if "share_of_measured_peak" in known:
        notes.append("% of measured peak: the peak is the higher of the rates of matrix products and convolutions.")
    return Table(columns, rows, notes=notes)


def case_name_columns(axes: Sequence[str], names: Mapping[str, str] | None = None) -> list[Column]:
    """The columns that name a case: its system, where `names` has several, and these axes."""
    system = [Column("system", "System")] if names and len(names) > 1 else []
    return [*system, *(Column(axis, case_axis_title(axis)) for axis in axes)]


def case_name_cells(
    case: Mapping[Hashable, Any], axes: Sequence[str], names: Mapping[str, str] | None = None
) -> list[Cell]:
    """The cells of a case under `case_name_columns`."""
    system = [names.get(case["system_id"], "unknown")] if names and len(names) > 1 else []
    return [*system, *(network_title(str(case[axis])) if axis == "model" else case[axis] for axis in axes)]


def half_width_with_interval(case: Mapping[Hashable, Any], name: str) -> Cell:
    """The half-width `name` of a case, with both ends of its throughput."""
    fraction = number_or_none(case[name])
    ends = (case[f"throughput{end}"] for end in ("", "_low", "_high"))
    return None if fraction is None else half_width_cell(fraction, *ends)


def _format_confidence_level(cell: Cell) -> str:
    return units.confidence_text(cell) if isinstance(cell, float) else units.MISSING


def _break_only_between_items(cell: Cell) -> str:
    """Items that break between each other and not within, so that rows of a page stay low."""
    return str(cell).replace(" ", "\u00a0").replace(",\u00a0", ", ")


def move_common_axes_to_note(table: Table) -> Table:
    """`table` without the axes that have one value in all rows, which go to a note: it fits a page then."""
    common = [i for i, column in enumerate(table.columns) if column.key in _COMMON_AXES]
    same = [i for i in common if len({row[i] for row in table.rows}) == 1]
    if not same:
        return table
    words = ", ".join(f"{table.columns[i].heading.lower()} {table.rows[0][i]}" for i in same)
    kept = [i for i in range(len(table.columns)) if i not in same]
    rows = [[row[i] for i in kept] for row in table.rows]
    return Table([table.columns[i] for i in kept], rows, table.title, [f"The same in all rows: {words}.", *table.notes])


def summary_table(shown: pd.DataFrame) -> Table:
    """One row per network: its fastest training and inference with their costs, from cases of `add_warnings_column`."""
    best = fastest_cases(shown[shown["throughput"].notna()], ["model", "mode"], limit=None).set_index(["model", "mode"])
    best["half_width"] = best["half_width"].fillna(best["step_time_half_width"].where(best["processes"].eq(1)))
    columns = [Column("model", "Network")]
    wanted = [
        (mode, name)
        for names in (("throughput", "half_width"), ("mfu",), ("energy_per_image",))
        for mode in MODES
        for name in names
        if mode in best.index.get_level_values("mode") and best.xs(mode, level="mode")[name].notna().any()
    ]
    for mode, name in wanted:
        if name == "half_width":
            columns.append(Column(f"{mode}_{name}", "±", "right", half_width_text))
            continue
        title = (
            f"{mode.capitalize()} [{_SUMMARY_UNITS.get(name, '{}').format(choose_column_unit(name, best[name])[1])}]"
        )
        columns.append(metric_column(name, best[name], 3, key=f"{mode}_{name}", title=title))
    rows: list[list[Cell]] = []
    for model in sort_networks(best.index.get_level_values("model")):
        cases = {mode: best.loc[[(model, mode)]].iloc[0] for mode in MODES if (model, mode) in best.index}
        values = [_summary_table_cell(cases[mode], name) if mode in cases else None for mode, name in wanted]
        warned = [f"{mode}: {said}" for mode, case in cases.items() if (said := describe_status_and_warnings(case))]
        rows.append([network_title(model), *values, "; ".join(warned)])
    return Table([*columns, Column("warnings", "Warnings", "left")], rows).without_empty_columns(["warnings"])


def _summary_table_cell(case: pd.Series, name: str) -> Cell:
    return half_width_with_interval(case.to_dict(), name) if name == "half_width" else number_or_none(case[name])


def failures_table(cases: pd.DataFrame, files: Mapping[str, Path]) -> Table:
    """Every attempt without a result: which, how it ended, why, and where to look."""
    axes = [*MAIN_AXES, *varying_axes(cases)]
    columns = [*case_name_columns(axes), Column("status", "Status"), Column("error", "Reason")]
    columns.append(Column("folder", "Output in"))
    several = _come_from_several_folders(files)
    rows = [
        [
            *case_name_cells(c, axes),
            c["status"],
            c["error"] if isinstance(c["error"], str) else units.MISSING,
            _attempt_folder_with_store(c["attempt_id"], files, several),
        ]
        for c in sort_attempts(cases).to_dict("records")
    ]
    return Table(columns, rows)


def attempts_table(cases: pd.DataFrame, sources: Sequence[str], files: Mapping[str, Path]) -> Table:
    """Every attempt: when, its file, where its raw output lies, and the command that measures the same case again."""
    columns = [
        Column("attempt_id", "Attempt"),
        Column("case_id", "Case"),
        Column("status", "Status"),
        Column("started_at", "Started (UTC)"),
        Column("wall_s", "Took", "right", seconds_text),
        Column("file", "File"),
        Column("folder", "Folder"),
        Column("command", "Measure it again"),
    ]
    several = _come_from_several_folders(files)
    rows: list[list[Cell]] = [
        [c["attempt_id"], c["case_id"], c["status"], f"{c['started_at']:%Y-%m-%d %H:%M:%S}",
         number_or_none(c["wall_s"]), str(files.get(c["attempt_id"], units.MISSING)),
         _attempt_folder_with_store(c["attempt_id"], files, several),
         rerun_command(c, _results_folder_of_attempt(c["attempt_id"], sources, files))]
        for c in cases.to_dict("records")
    ]  # fmt: skip
    elsewhere = sorted({f"{name}.toml" for name in cases["suite"] if not _find_suite(str(name))})
    words = f"Suites not in benchmarks/ on this machine: {', '.join(elsewhere)}. In the command, give the suite's path."
    notes = [words] if elsewhere else []
    return Table(columns, rows, notes=notes)


def metric_definitions_table() -> Table:
    """Every metric with its unit, meaning and derivation."""
    columns = [Column("title", "Metric"), Column("unit", "Unit"), Column("description", "What it is")]
    columns += [Column("derivation", "How it is derived"), Column("name", "Column in metrics.csv")]
    rows = [[m.title, "" if m.unit == "1" else m.unit, m.description, m.derivation, m.name] for m in METRICS.values()]
    return Table(columns, rows)


def rerun_command(case: Mapping[Hashable, Any], results: str = "") -> str:
    """The command that measures this one case again.

    What is not the default, or what the suite itself sets, is spelt out. A suite that is not in benchmarks/ here is
    named as a file, whose path only its owner knows.

    Args:
        results: the folder that the new attempt goes to; "" for the default one.
    """
    name = str(case["suite"])
    suite, defaults = _find_suite(name), Case("")
    words = ["dlbench", "run", name if suite else f"{name}.toml"]
    named = {"model", "mode", "precision", "batch_size", "device", *(suite.axes if suite else ())}
    for axis in AXES:
        if axis == "batch_size" and GLOBAL_BATCH in named:
            words += ["-P", f"{GLOBAL_BATCH}={case[axis] * case['nodes'] * case['devices_per_node']}"]
        elif axis in named or case[axis] != getattr(defaults, axis):
            words += ["-P", f"{axis}={case[axis]}"]
    usual = dataclasses.asdict(suite.protocol if suite else defaults.protocol)
    for key, value in json.loads(case["protocol"] or "{}").items():
        if value != usual.get(key):
            words += ["-P", f"protocol.{key}={value}"]
    words += ["--launcher", "srun"] if case["nodes"] > 1 else []
    return shlex.join([*words, "--fresh", *(["--results", results] if results else [])])


@cache
def _find_suite(name: str) -> Suite | None:
    """The suite of this name in benchmarks/, if there is one."""
    try:
        return load_suite(name)
    except (DlbenchError, ValueError):  # a name that is no path
        return None


def _results_folder_of_attempt(attempt_id: str, sources: Sequence[str], files: Mapping[str, Path]) -> str:
    """The results folder that holds an attempt's output; the only source, where none does; "" where nobody knows."""
    beside = files[attempt_id].parent if attempt_id in files else None
    if beside and (beside / attempt_folder(attempt_id)).is_dir():
        return str(beside)
    folders = [s for s in sources if Path(s).is_dir()]
    return folders[0] if len(folders) == 1 else ""


def _attempt_folder_with_store(attempt_id: str, files: Mapping[str, Path], several: bool) -> str:
    """`attempt_folder`, with the store before it where there are several."""
    return f"{files[attempt_id].parent}/{attempt_folder(attempt_id)}" if several else attempt_folder(attempt_id)


def _come_from_several_folders(files: Mapping[str, Path]) -> bool:
    return len({file.parent for file in set(files.values())}) > 1


def attempt_folder(attempt_id: object) -> str:
    """Where an attempt left its output, relative to the store."""
    return f"attempts/{attempt_id}/"


#: Attempts by system, and then in the order of cases.
sort_attempts = partial(sort_cases, by=("system_id", *MAIN_AXES, "attempt_id"))


def choose_column_unit(name: str, values: pd.Series[float]) -> tuple[float, str]:
    """The factor and the unit in which a column of this metric is printed: one for all, after its median."""
    unit = METRICS[name].unit
    middle = float(values.dropna().abs().median())
    if unit == "%":
        return 0.01, "%"
    if unit == "B":
        return (2**30, "GiB") if middle >= 2**30 else (2**20, "MiB")
    if unit not in ("s", "FLOP", "FLOP/s") and not unit.startswith("J/"):
        return 1.0, "" if unit == "1" else unit
    factor, prefix = next((p for p in _SI_PREFIXES if middle >= p[0]), _SI_PREFIXES[-1])
    # Seconds have no thousands, counts and rates no thousandths.
    if (unit == "s" and factor > 1) or (unit in ("FLOP", "FLOP/s") and factor < 1):
        factor, prefix = 1.0, ""
    return factor, prefix + unit


def metric_column(name: str, values: pd.Series[float], significant: int, key: str = "", title: str = "") -> Column:
    """The column of a metric, all its `values` in one unit and with so many significant digits, percents with two."""
    factor, unit = choose_column_unit(name, values)
    short_title = _SHORT_TITLES.get(name, METRICS[name].title)
    significant = 2 if METRICS[name].unit == "%" else significant
    if name == "steps":
        return Column(name, short_title, "right", _format_count)

    def format_metric_cell(cell: Cell) -> str:
        if name == "step_time_half_width":
            return half_width_text(cell).removesuffix(" %")
        if isinstance(cell, str):
            return cell  # why there is no number
        return units.number_text(cell / factor, significant) if isinstance(cell, int | float) else units.MISSING

    heading = f"{short_title} [{unit}]" if unit and not short_title.startswith(unit) else short_title
    return Column(key or name, title or heading, "right", format_metric_cell)


def energy_table(shown: pd.DataFrame, names: Mapping[str, str]) -> Table:
    """One row per case that a meter saw, with its system where `names` (by `system_id`) has several."""
    metered = sort_attempts(shown[shown["average_power"].notna()])
    axes = [*MAIN_AXES, *varying_axes(metered)]
    known = [name for name in _ENERGY_METRICS if metered[name].notna().any()]
    columns = case_name_columns(axes, names)
    columns += [metric_column(name, metered[name], 3) for name in known]
    columns += [Column("energy_source", "Meter"), Column("energy_scope", "Of"), Column("energy_note", "Note")]
    rows: list[list[Cell]] = []
    for case in metered.to_dict("records"):
        cells = case_name_cells(case, axes, names)
        cells += [number_or_none(case[name]) for name in known]
        texts = [case[name] for name in ("energy_source", "energy_scope", "energy_note")]
        rows.append([*cells, *(text if isinstance(text, str) else "" for text in texts)])
    notes = [
        "Energies are gross: they include idle power, which is measured before each case. A missing value was not "
        "measured."
    ]
    of_partial = metered.loc[metered["flop_partial"].notna(), "model"]
    if len(of_partial) and "energy_per_gflop" in known:
        names_of_partial = ", ".join(dict.fromkeys(network_title(name) for name in of_partial))
        notes.append(f"Energy per FLOP is an upper bound for {names_of_partial}, because the FLOP count is partial.")
    return Table(columns, rows, notes=notes).without_empty_columns(["energy_note"])


def interval_note(shown: pd.DataFrame) -> str:
    """What each ± of the table is, and at what confidence."""
    return (
        f"One row per case. ±: half-width of the {confidence_levels.describe_levels(shown)} confidence interval of the "
        "mean over processes; the mean of a repeated measurement should lie in it. One more run ±: half-width of the "
        "interval in which the value of one further process should lie. Within one run ±: half-width of the interval "
        "of a single process, median over all processes. A case with fewer than three processes has only "
        "'Within one run ±'."
    )


def combined_processes_table(shown: pd.DataFrame, system_names: dict[str, str]) -> Table | None:
    """One row per case and system, its processes taken together; None where no case has several."""
    processes = add_case_numbers(shown)
    cases = sort_cases(summarize_processes(processes))
    if cases.empty or cases["processes"].max() < 2:
        return None
    rates = processes[["throughput", "throughput_low", "throughput_high"]]
    widths = rates.div(rates["throughput"], axis=0).assign(half_width=processes["step_time_half_width"])
    within = widths.groupby([processes["number"], processes["system_id"]]).median().to_dict("index")
    axes = [*MAIN_AXES, *(a for a in varying_axes(shown) if a not in ("repeat", "device"))]
    columns = [
        *case_name_columns(axes, system_names),
        Column("processes", "Processes", "right"),
        Column("throughput", "Throughput", "right", METRICS["throughput"].cell_text),
        Column("half_width", "±", "right", half_width_text),
        Column("next_run", "One more run ±", "right", half_width_text),
        Column("within", "Within one run ±", "right", half_width_text),
        Column("groups", "Two groups", "left"),
    ]
    rows: list[list[Cell]] = []
    for case in cases.to_dict("records"):
        cells = case_name_cells(case, axes, system_names)
        groups = case["groups"] if isinstance(case["groups"], str) else ""
        own = within[case["number"], case["system_id"]]
        cells += [
            int(case["processes"]),
            number_or_none(case["throughput"]),
            half_width_with_interval(case, "half_width"),
        ]
        cells += [number_or_none(case["next_run"]), half_width_with_interval(own, "half_width")]
        rows.append([*cells, groups])
    return Table(columns, rows).without_empty_columns(["groups"])


def _count_runs(cell: Cell) -> str:
    """How many attempts a cell of `runs` names."""
    return str(len(str(cell).split()))


def _short_attempt_id(cell: Cell) -> str:
    """An attempt's id without its time, which is enough for `dlbench show`."""
    text = str(cell)
    return text.partition("-")[2] or text


def _format_count(cell: Cell) -> str:
    return shown_cell(int(cell)) if isinstance(cell, int | float) else units.MISSING
