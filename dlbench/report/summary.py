"""The first page of a report: key figures, what they say in words, and each network at its fastest."""

from __future__ import annotations

import pandas as pd

from dlbench import units
from dlbench.report import plots_rates, tables
from dlbench.report.content import Block, Content, KeyFigure, Section
from dlbench.report.figure_parts import fastest
from dlbench.report.labels import network, setting, system_ids, varying_axes
from dlbench.report.metrics import METRICS


def summary(content: Content) -> Section:
    """One page: the key figures, what they say in words, and the fastest setting of each network."""
    blocks = [Block(figures=_key_figures(content)), Block(words=_in_words(content))]
    blocks += [Block(words=words) for words in _machines(content)]
    for system, name in content.system_names.items():
        cases = content.of_system(system)
        if len(cases):
            heading = name if len(content.system_names) > 1 else "Each network at its fastest"
            blocks.append(Block(heading=heading, table=tables.summary(cases)))
    return Section("summary", "Summary", blocks)


def _key_figures(content: Content) -> tuple[KeyFigure, ...]:
    shown, failed = content.shown, content.failed
    unstable = int(shown["status"].eq("unstable").sum())
    counted = KeyFigure(
        f"{len(shown)} of {len(shown) + len(failed)}",
        "cases measured",
        f"{len(failed)} failed, {unstable} unstable",
    )
    if shown.empty:
        return (counted,)
    of_reference = shown[shown["model"] == _reference(shown)]
    training = of_reference[of_reference["mode"] == "training"]
    best = fastest(training if len(training) else of_reference, ["model"]).iloc[0]
    width = units.percent(best["step_time_half_width"])
    figures = [
        KeyFigure(
            METRICS["throughput"].show(best["throughput"]),
            f"{network(best['model'])}, {best['mode']}",
            f"± {width}; {_setting(best, shown)}" if width != units.MISSING else _setting(best, shown),
        )
    ]
    if shown["flop_rate"].notna().any():
        top = shown.iloc[shown["flop_rate"].argmax()]
        of_peak = f"{units.percent(top['mfu'])} of the datasheet peak" if top["mfu"] > 0 else "no datasheet peak known"
        note = f"{network(top['model'])}, {top['mode']}; {of_peak}"
        figures.append(KeyFigure(METRICS["flop_rate"].show(top["flop_rate"]), "highest rate of arithmetic", note))
    if best["energy_per_image"] > 0:
        note = f"{network(best['model'])}, {best['mode']}; gross, by {best['energy_source']}"
        figures.append(KeyFigure(METRICS["energy_per_image"].show(best["energy_per_image"]), "energy per image", note))
    return (*figures, counted)


def _machines(content: Content) -> list[str]:
    """Each system in one sentence: hardware, then software."""
    rows = content.rows.assign(id=system_ids(content.rows))
    sentences = []
    for system, name in content.system_names.items():
        of_system = rows[(rows["id"] == system) & (rows["system_hostname"].fillna("") != "")]
        one = of_system.iloc[0].to_dict()
        hosts = of_system["system_hostname"].nunique()
        parts = [
            f"{one['system_cpu_model']}" if isinstance(one["system_cpu_model"], str) else "",
            f"{one['system_cpu_cores']:.0f} cores" if one["system_cpu_cores"] > 0 else "",
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
    return setting(case.to_dict(), ["precision", "batch_size", *varying_axes(shown)])


def _in_words(content: Content) -> str:
    shown = content.shown
    if content.attempts.empty:
        return "The store is empty. `dlbench run` fills it."
    if shown.empty:
        return "No case gave a result. What went wrong stands under Failures and warnings."
    sentences = []
    for mode in ("training", "inference"):
        best = fastest(shown[shown["mode"] == mode], ["model"], limit=None).dropna(subset="throughput")
        if len(best) > 1:
            slow, fast = best.iloc[best["throughput"].argmin()], best.iloc[best["throughput"].argmax()]
            show = METRICS["throughput"].show
            sentences.append(
                f"{mode.capitalize()} runs at {show(slow['throughput'])} ({network(slow['model'])}) to "
                f"{show(fast['throughput'])} ({network(fast['model'])}) over {len(best)} networks."
            )
    if shown["mfu"].notna().any():
        top = shown.iloc[shown["mfu"].argmax()]
        name = f"{network(top['model'])}, {top['mode']}, {_setting(top, shown)}"
        sentences.append(f"The largest share of the datasheet peak is {units.percent(top['mfu'])} ({name}).")
    widths = shown["step_time_half_width"].dropna()
    if len(widths):
        sentences.append(f"Half of all intervals are narrower than ± {units.percent(widths.median())}.")
    if shown["energy_per_image"].isna().all():
        sentences.append(plots_rates.no_meter(shown))
    return " ".join(sentences)
