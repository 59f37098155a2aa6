"""The first page of a report: the brief of several systems, or of one its key figures and each network's fastest."""

from __future__ import annotations

import pandas as pd

from dlbench import units
from dlbench.report.analysis import levels
from dlbench.report.analysis.case_warnings import describe, of_all, with_warnings
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.derive import MIN_STEPS
from dlbench.report.analysis.labels import network, setting, varying_axes
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.selection import fastest
from dlbench.report.analysis.side_by_side import numbered, over_processes
from dlbench.report.chapters import brief, convergence, tables
from dlbench.report.chapters.systems_section import measured
from dlbench.report.document import Block, KeyFigure, Section
from dlbench.report.figures import plots_rates
from dlbench.results import training_store
from dlbench.suites.case import USUAL_CONFIDENCE


def summary(content: Content) -> Section:
    """The brief of several systems; of one the key figures and the fastest setting of each network."""
    # Of several processes of a case their median: the fastest of them would be luck.
    if len(measured(content)) > 1:
        machines = Block(heading="Systems", points=tuple(_machines(content)))
        return Section("summary", "In brief", [*brief.blocks(content), machines], folded=False)
    processes = numbered(content.shown)
    cases = with_warnings(over_processes(processes), processes)
    blocks = [Block(words=_in_words(content, cases), emphasis=True)]
    if not content.attempts.empty:
        blocks.append(Block(figures=_key_figures(content, cases)))
    if warned := of_all(content.shown, with_energy=True):
        blocks.append(Block(words=f"Warnings: {warned}. See Failures and warnings."))
    blocks += [Block(words=words) for words in _machines(content)]
    if len(cases):
        heading = "Each network at its fastest setting"
        heading += ", the mean of its processes" if cases["processes"].gt(1).any() else ""
        blocks.append(Block(heading=heading, table=tables.summary(cases)))
    return Section("summary", "In brief", blocks, folded=False)


def _key_figures(content: Content, cases: pd.DataFrame) -> tuple[KeyFigure, ...]:
    shown, failed = content.shown, content.failed
    unstable = int(cases["status"].eq("unstable").sum())
    several = len(cases) < len(shown)
    counted = KeyFigure(
        f"{len(shown)} of {len(shown) + len(failed)}",
        f"runs measured, of {units.counted(len(cases), 'case')}" if several else "cases measured",
        f"{len(failed)} failed, {units.counted(unstable, 'case')} unstable",
    )
    if shown.empty:
        return (counted,)
    of_reference = cases[cases["model"] == _reference(cases)]
    training = of_reference[of_reference["mode"] == "training"]
    candidates = _sound(training if len(training) else of_reference)
    # Of unstable cases the one with the most steps, of good ones the fastest.
    by = "throughput" if candidates["status"].eq("ok").all() else "steps"
    best = candidates.sort_values([by, "throughput"], ascending=False, kind="stable").iloc[0]
    figures = [
        KeyFigure(
            METRICS["throughput"].show(best["throughput"]),
            f"{network(best['model'])}, {best['mode']}",
            "; ".join([*_uncertainty(best), _setting(best, shown), _standing(best)]),
        )
    ]
    if cases["flop_rate"].notna().any():
        top = cases.iloc[cases["flop_rate"].argmax()]
        of_peak = f"{units.percent(top['mfu'])} of the datasheet peak" if top["mfu"] > 0 else "no datasheet peak known"
        words = f"{network(top['model'])}, {top['mode']}; {of_peak}; {_standing(top)}"
        rate = _at_least(top, "≥ ") + METRICS["flop_rate"].show(top["flop_rate"])
        figures.append(KeyFigure(rate, "highest rate of arithmetic", words))
    if best["energy_per_image"] > 0:
        words = f"{network(best['model'])}, {best['mode']}; gross, by {best['energy_source']}; {_standing(best)}"
        figures.append(KeyFigure(METRICS["energy_per_image"].show(best["energy_per_image"]), "energy per image", words))
    return (*figures, counted)


def _at_least(case: pd.Series, words: str) -> str:
    """`words` where operations of a case are not counted, so that its FLOP are a lower bound."""
    return words if isinstance(case["flop_partial"], str) else ""


def _uncertainty(case: pd.Series) -> list[str]:
    """Half of the range of its processes' intervals, of a single one of its interval; nothing where that is unknown."""
    several = case["processes"] > 1
    reach = (case["throughput_high"] - case["throughput_low"]) / 2 / case["throughput"]
    width = units.percent(reach if several else case["step_time_half_width"])
    over = f" over {case['processes']:.0f} processes" if several else ""
    level = levels.levels(case.to_frame().T)[0]
    at = "" if level == USUAL_CONFIDENCE else f" at {units.level(level)}"
    return [f"± {width}{at}{over}"] if width != units.MISSING else []


def _sound(shown: pd.DataFrame) -> pd.DataFrame:
    """The cases that may stand at the head: those that are ok, else those with some steps, else all."""
    for good in (shown["status"] == "ok", shown["steps"] >= MIN_STEPS):
        if good.any():
            return shown[good]
    return shown


def _standing(case: pd.Series) -> str:
    return ", ".join(part for part in (describe(case), units.counted(int(case["steps"]), "step")) if part)


def _machines(content: Content) -> list[str]:
    """Each system in one sentence: hardware, then software."""
    rows = content.rows
    sentences = []
    for system, name in content.system_names.items():
        of_system = (rows["system_id"] == system) & (rows["system_hostname"].fillna("") != "")
        one = rows.iloc[int(of_system.to_numpy().argmax())].to_dict()
        hosts = rows["system_hostname"][of_system].nunique()
        parts = [
            f"{one['system_cpu_model']}" if isinstance(one["system_cpu_model"], str) else "",
            units.counted(int(one["system_cpu_cores"]), "core") if one["system_cpu_cores"] > 0 else "",
            units.bytes_(one["system_memory_bytes"]) if one["system_memory_bytes"] > 0 else "",
            f"{hosts} hosts" if hosts > 1 else str(one["system_hostname"]),
            *(f"{title} {one[key]}" for key, title in _SOFTWARE.items() if isinstance(one[key], str)),
        ]
        sentences.append(f"{name}: {', '.join(part for part in parts if part and part != name)}.")
    return sentences


_SOFTWARE = {
    "system_torch_version": "PyTorch",
    "system_cuda_version": "CUDA",
    "system_cudnn_version": "cuDNN",
    "system_driver_version": "driver",
}


def _reference(shown: pd.DataFrame) -> str:
    """The network that stands for all at the head of a report: ResNet-50, or the one with the most work per image."""
    names = list(shown["model"])
    return "resnet50" if "resnet50" in names else str(names[shown["flop_per_image"].fillna(0).argmax()])


def _setting(case: pd.Series, shown: pd.DataFrame) -> str:
    axes = [axis for axis in varying_axes(shown) if axis not in ("repeat", "device")]
    return setting(case.to_dict(), ["precision", "batch_size", *axes])


def _in_words(content: Content, cases: pd.DataFrame) -> str:
    shown = content.shown
    if content.attempts.empty:
        trained = convergence.section(training_store.read(content.sources)).finding
        return trained or "The store is empty; run `dlbench run quick` first."
    if shown.empty:
        return "No case has a result; see Failures and warnings for the reasons."
    sentences = []
    for mode in ("training", "inference"):
        best = fastest(cases[cases["mode"] == mode], ["model"], limit=None).dropna(subset="throughput")
        if len(best) > 1:
            slow, fast = best.iloc[best["throughput"].argmin()], best.iloc[best["throughput"].argmax()]
            show = METRICS["throughput"].show
            sentences.append(
                f"{mode.capitalize()} runs at {show(slow['throughput'])} ({network(slow['model'])}) to "
                f"{show(fast['throughput'])} ({network(fast['model'])}) over {len(best)} networks."
            )
    if cases["mfu"].notna().any():
        top = cases.iloc[cases["mfu"].argmax()]
        name = f"{network(top['model'])}, {top['mode']}, {_setting(top, shown)}"
        share = _at_least(top, "at least ") + units.percent(top["mfu"])
        sentences.append(f"The largest share of the datasheet peak is {share} ({name}).")
    over = "half_width" in cases and cases["half_width"].notna().any()
    widths = cases["half_width"] if over else shown["step_time_half_width"]
    sentences.append(_intervals(widths, levels.named(shown), "over processes" if over else "within one run"))
    if shown["energy_per_image"].isna().all():
        sentences.append(plots_rates.no_meter(shown))
    return " ".join(sentences)


def _intervals(widths: pd.Series[float], level: str, kind: str) -> str:
    """How many cases have an interval, and how narrow these are."""
    known = widths.dropna()
    cases = units.counted(len(widths), "case")
    if known.empty:
        return f"None of {cases} has an interval: there are too few steps, or they vary too much."
    if len(known) == 1:
        return f"1 of {cases} has an interval: ± {units.percent(known.iloc[0])} at {level}, {kind}."
    width = units.percent(known.median())
    return f"{len(known)} of {cases} have an interval at {level}; the median of these is ± {width}, {kind}."
