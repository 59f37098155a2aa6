"""The first page of a report: the brief of several systems, or of one its key figures and each network's fastest."""

from __future__ import annotations

import math

import pandas as pd

from dlbench import units
from dlbench.report.analysis import confidence_levels
from dlbench.report.analysis.case_selection import fastest_cases, representative_network
from dlbench.report.analysis.case_warnings import (
    add_warnings_column,
    describe_status_and_warnings,
    summarize_case_warnings,
)
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.derived_metrics import MIN_STEPS
from dlbench.report.analysis.labels import network_title, setting_label, varying_axes
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.side_by_side import add_case_numbers, summarize_processes
from dlbench.report.chapters import brief, convergence, tables
from dlbench.report.chapters.systems_section import measured_systems, thread_counts_by_system, threads_text
from dlbench.report.document import Block, KeyFigure, Section
from dlbench.report.figures import plots_rates
from dlbench.results import training_store
from dlbench.suites.case import USUAL_CONFIDENCE


def summary_section(content: Content) -> Section:
    """The brief of several systems; of one the key figures and the fastest setting of each network."""
    # The median of several processes of a case: the fastest of them would be luck.
    if len(measured_systems(content)) > 1:
        machines = Block(heading="Systems", points=tuple(_system_sentences(content)))
        return Section("summary", "In brief", [*brief.brief_blocks(content), machines], folded=False)
    processes = add_case_numbers(content.shown)
    cases = add_warnings_column(summarize_processes(processes), processes)
    blocks = [Block(words=_summary_text(content, cases), emphasis=True)]
    if not content.attempts.empty:
        blocks.append(Block(figures=_key_figures(content, cases)))
    if warned := summarize_case_warnings(processes, cases):
        blocks.append(Block(words=f"Cases with warnings: {warned}. See the chapter Failures and warnings."))
    blocks += brief.ab_experiment_blocks(content)
    blocks += [Block(words=words) for words in _system_sentences(content)]
    if len(cases):
        heading = "Each network at its fastest setting"
        heading += " (mean over its processes)" if cases["processes"].gt(1).any() else ""
        blocks.append(Block(heading=heading, table=tables.summary_table(cases)))
    return Section("summary", "In brief", blocks, folded=False)


def _key_figures(content: Content, cases: pd.DataFrame) -> tuple[KeyFigure, ...]:
    shown, failed = content.shown, content.failed
    unstable = int(cases["status"].eq("unstable").sum())
    several = len(cases) < len(shown)
    counted = KeyFigure(
        f"{len(shown)} of {len(shown) + len(failed)}",
        f"runs measured, in {units.count_text(len(cases), 'case')}" if several else "cases measured",
        f"{len(failed)} failed, {units.count_text(unstable, 'case')} unstable",
    )
    if shown.empty:
        return (counted,)
    of_reference = cases[cases["model"] == representative_network(cases)]
    training = of_reference[of_reference["mode"] == "training"]
    candidates = _cases_for_summary(training if len(training) else of_reference)
    # Among unstable cases the one with the most steps, among good ones the fastest.
    by = "throughput" if candidates["status"].eq("ok").all() else "steps"
    best = candidates.sort_values([by, "throughput"], ascending=False, kind="stable").iloc[0]
    figures = [
        KeyFigure(
            METRICS["throughput"].format(best["throughput"]),
            f"{network_title(best['model'])}, {best['mode']}",
            "; ".join([*_half_width_texts(best), _setting_text(best, shown), _status_and_steps_text(best)]),
        )
    ]
    if cases["flop_rate"].notna().any():
        top = cases.iloc[cases["flop_rate"].argmax()]
        of_peak = (
            f"{units.percent_text(top['mfu'])} of the datasheet peak" if top["mfu"] > 0 else "no datasheet peak known"
        )
        words = f"{network_title(top['model'])}, {top['mode']}; {of_peak}; {_status_and_steps_text(top)}"
        rate = _text_if_flop_partial(top, "≥ ") + METRICS["flop_rate"].format(top["flop_rate"])
        figures.append(KeyFigure(rate, "highest rate of arithmetic", words))
    if best["energy_per_image"] > 0:
        name = f"{network_title(best['model'])}, {best['mode']}"
        words = f"{name}; with idle power, from {best['energy_source']}; {_status_and_steps_text(best)}"
        figures.append(
            KeyFigure(METRICS["energy_per_image"].format(best["energy_per_image"]), "energy per image", words)
        )
    return (*figures, counted)


def _text_if_flop_partial(case: pd.Series, words: str) -> str:
    """`words` where operations of a case are not counted, so that its FLOP are a lower bound."""
    return words if isinstance(case["flop_partial"], str) else ""


def _half_width_texts(case: pd.Series) -> list[str]:
    """Half of the range of its processes' intervals, of a single one of its interval; nothing where that is unknown."""
    several = case["processes"] > 1
    reach = (case["throughput_high"] - case["throughput_low"]) / 2 / case["throughput"]
    ends = case["throughput_low"] / case["throughput"], case["throughput_high"] / case["throughput"]
    width = reach if several else case["step_time_half_width"]
    over = f" over {case['processes']:.0f} processes" if several else ""
    level = confidence_levels.confidence_levels(case.to_frame().T)[0]
    at = "" if level == USUAL_CONFIDENCE else f" at {units.confidence_text(level)}"
    return [f"{units.plus_minus_text(width, ends)}{at}{over}"] if math.isfinite(width) else []


def _cases_for_summary(shown: pd.DataFrame) -> pd.DataFrame:
    """The cases that may stand at the head: those that are ok, else those with some steps, else all."""
    for good in (shown["status"] == "ok", shown["steps"] >= MIN_STEPS):
        if good.any():
            return shown[good]
    return shown


def _status_and_steps_text(case: pd.Series) -> str:
    return ", ".join(
        part for part in (describe_status_and_warnings(case), units.count_text(int(case["steps"]), "step")) if part
    )


def _system_sentences(content: Content) -> list[str]:
    """Each system in one sentence: hardware, then software."""
    rows, threads = content.rows, thread_counts_by_system(content)
    sentences = []
    for system, name in content.system_names.items():
        of_system = (rows["system_id"] == system) & (rows["system_hostname"].fillna("") != "")
        one = rows.iloc[int(of_system.to_numpy().argmax())].to_dict()
        hosts = rows["system_hostname"][of_system].nunique()
        parts = [
            f"setting {content.sides[system].setting}" if system in content.sides else "",
            f"{one['system_device_name']}" if one["system_device_kind"] not in ("cpu", None) else "",
            f"{one['system_cpu_model']}" if isinstance(one["system_cpu_model"], str) else "",
            units.count_text(int(one["system_cpu_cores"]), "core") if one["system_cpu_cores"] > 0 else "",
            threads_text(threads[system]) if threads.get(system) else "",
            units.bytes_text(one["system_memory_bytes"]) if one["system_memory_bytes"] > 0 else "",
            f"{hosts} hosts" if hosts > 1 else str(one["system_hostname"]),
            *(f"{title} {one[key]}" for key, title in _SOFTWARE_NAMES.items() if isinstance(one[key], str)),
        ]
        sentences.append(f"{name}: {', '.join(part for part in parts if part and part != name)}.")
    return sentences


_SOFTWARE_NAMES = {
    "system_torch_version": "PyTorch",
    "system_cuda_version": "CUDA",
    "system_cudnn_version": "cuDNN",
    "system_driver_version": "driver",
}


def _setting_text(case: pd.Series, shown: pd.DataFrame) -> str:
    axes = [axis for axis in varying_axes(shown) if axis not in ("repeat", "device")]
    return setting_label(case.to_dict(), ["precision", "batch_size", *axes])


def _summary_text(content: Content, cases: pd.DataFrame) -> str:
    shown = content.shown
    if content.attempts.empty:
        trained = convergence.convergence_section(training_store.read_trainings(content.sources)).finding
        return trained or "There are no results; run `dlbench run quick` first."
    if shown.empty:
        return "No case has a result; see the chapter Failures and warnings for the reasons."
    sentences = []
    for mode in ("training", "inference"):
        best = fastest_cases(cases[cases["mode"] == mode], ["model"], limit=None).dropna(subset="throughput")
        if len(best) > 1:
            slow, fast = best.iloc[best["throughput"].argmin()], best.iloc[best["throughput"].argmax()]
            show = METRICS["throughput"].format
            sentences.append(
                f"{mode.capitalize()} runs at {show(slow['throughput'])} ({network_title(slow['model'])}) to "
                f"{show(fast['throughput'])} ({network_title(fast['model'])}) over {len(best)} networks."
            )
    if cases["mfu"].notna().any():
        top = cases.iloc[cases["mfu"].argmax()]
        name = f"{network_title(top['model'])}, {top['mode']}, {_setting_text(top, shown)}"
        share = _text_if_flop_partial(top, "at least ") + units.percent_text(top["mfu"])
        sentences.append(f"The highest share of the datasheet's peak FLOP/s is {share} ({name}).")
    over = "half_width" in cases and cases["half_width"].notna().any()
    widths = cases["half_width"] if over else shown["step_time_half_width"]
    rates = (cases if over else shown)[widths.notna()]
    low, high = (float((rates[f"throughput_{end}"] / rates["throughput"]).median()) for end in ("low", "high"))
    kind = "over processes" if over else "within one run"
    sentences.append(_intervals_sentence(widths, (low, high), confidence_levels.describe_levels(shown), kind))
    if shown["energy_per_image"].isna().all():
        sentences.append(plots_rates.no_meter_reason(shown))
    return " ".join(sentences)


def _intervals_sentence(widths: pd.Series[float], ends: tuple[float, float], level: str, kind: str) -> str:
    """How many cases have an interval, and how narrow these are."""
    known = widths.dropna()
    cases = units.count_text(len(widths), "case")
    if known.empty:
        return f"None of {cases} has an interval: there are too few steps, or they vary too much."
    if len(known) == 1:
        width = units.plus_minus_text(known.iloc[0], ends)
        return f"1 of {cases} has a confidence interval ({level}, {kind}): {width}."
    width = units.plus_minus_text(known.median(), ends)
    return f"{len(known)} of {cases} have a confidence interval ({level}, {kind}); the median interval is {width}."
