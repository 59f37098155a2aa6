"""The findings that chapters open with: one sentence from the numbers, "" where they show nothing."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dlbench import units
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import network_title, setting_label
from dlbench.report.analysis.metrics import METRICS
from dlbench.report.analysis.side_by_side import add_case_numbers, summarize_processes

_MEMORY_PARTS = ("memory_parameters", "memory_gradients", "memory_optimizer", "memory_activations", "memory_workspace")


def throughput_opening(content: Content) -> str:
    """The range of throughputs per mode."""
    if content.shown.empty:
        return ""
    parts = []
    cases = summarize_processes(add_case_numbers(content.shown), ("throughput",))
    for mode, of_mode in cases[cases["throughput"].gt(0)].groupby("mode", sort=True):
        slow, fast = _lowest_and_highest_case(of_mode, "throughput")
        show = METRICS["throughput"].format
        if len(of_mode) == 1:
            parts.append(f"{mode} runs at {show(fast['throughput'])} ({_describe_case(fast, content, ())})")
        else:
            low, high = f"{show(slow['throughput'])} ({_describe_case(slow, content, ())})", show(fast["throughput"])
            parts.append(f"{mode} runs at {low} to {high} ({_describe_case(fast, content, ())})")
    words = "; ".join(reversed(parts))
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def step_time_opening(content: Content) -> str:
    """Which phase takes most of a training step."""
    phases = {"forward": "forward_time", "backward": "backward_time", "optimizer": "optimizer_time"}
    known = content.shown.dropna(subset=list(phases.values()))
    known = known[(known["mode"] == "training") & known["step_time"].gt(0)]
    if known.empty:
        return ""
    shares = {name: float((known[column] / known["step_time"]).median()) for name, column in phases.items()}
    largest = max(shares, key=lambda name: shares[name])
    rest = " and ".join(f"{name} {units.percent_text(share)}" for name, share in shares.items() if name != largest)
    return f"Shares of a training step (medians over runs): {largest} {units.percent_text(shares[largest])}, {rest}."


def memory_opening(content: Content) -> str:
    """The case with the highest peak, and what most of it is."""
    metric = next((m for m in ("memory_allocated", "memory_device", "memory_rss") if content.shown[m].gt(0).any()), "")
    if not metric:
        return ""
    top = content.shown.nlargest(1, metric).iloc[0]
    parts = {name: float(top[name]) for name in _MEMORY_PARTS if top[name] == top[name]}
    largest = max(parts, key=lambda name: parts[name], default="")
    most = f"; largest part: {METRICS[largest].title.lower()}" if largest else ""
    peak = METRICS[metric].title
    return f"{peak}: at most {units.bytes_text(top[metric])}, in {_describe_case(top, content)}{most}."


def energy_opening(content: Content) -> str:
    """The least and the most energy per image."""
    if content.shown.empty:
        return ""
    known = content.shown[content.shown["energy_per_image"].gt(0)]
    if known.empty:
        return "No energy was measured."
    low, high = _lowest_and_highest_case(known, "energy_per_image")
    show = METRICS["energy_per_image"].format
    first = f"{show(low['energy_per_image'])} ({_describe_case(low, content)})"
    return (
        f"Energy per image ranges from {first} to {show(high['energy_per_image'])} ({_describe_case(high, content)})."
    )


def flop_time_opening(content: Content) -> str:
    """How near the best case comes to a peak."""
    if content.shown.empty:
        return ""
    for metric, what in (("mfu", "datasheet peak"), ("share_of_measured_peak", "measured peak")):
        known = content.shown[content.shown[metric].gt(0)]
        if len(known):
            best = known.nlargest(1, metric).iloc[0]
            middle = f"; the median share is {units.percent_text(known[metric].median())}" if len(known) > 2 else ""
            share = units.percent_text(best[metric])
            return f"{_describe_case(best, content)} reaches {share} of the {what}, the largest share{middle}."
    return "No peak of this device is known; run `dlbench ceilings` to measure it."


def variability_opening(content: Content) -> str:
    """How far steps scatter, and how many windows are unstable."""
    known = content.shown["iqr"].dropna()
    unstable = int(content.shown["status"].eq("unstable").sum())
    if known.empty:
        return ""
    wild = content.shown.loc[known.nlargest(1).index[0]]
    spread = (
        f"The middle half of a run's step times spans {units.percent_text(known.median())} of "
        "the median step (median over "
        f"runs)"
    )
    most = f"at most {units.percent_text(known.max())} ({_describe_case(wild, content)})"
    return f"{spread}, {most}; {unstable} of {units.count_text(len(content.shown), 'run')} unstable."


def failures_opening(content: Content) -> str:
    """How many cases failed."""
    if content.shown.empty:
        return ""
    failed, all_cases = len(content.failed), len(content.failed) + len(content.shown)
    return f"{units.count_text(failed, 'case')} of {all_cases} failed." if failed else "Every case was measured."


def _lowest_and_highest_case(cases: pd.DataFrame, metric: str) -> tuple[Any, Any]:
    return cases.nsmallest(1, metric).iloc[0], cases.nlargest(1, metric).iloc[0]


def _describe_case(case: Any, content: Content, axes: Sequence[str] = ("mode",)) -> str:
    """Such as "ResNet-50, training, amp_bf16, batch 256"; with the system where there are several."""
    parts = [network_title(case["model"]), setting_label(case, [*axes, "precision", "batch_size"])]
    names = content.system_names
    return ", ".join([*parts, names[case["system_id"]]] if len(names) > 1 and case["system_id"] in names else parts)
