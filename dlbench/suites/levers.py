"""Levers: axes that change how fast a network runs; the values worth trying, and what each of them gave."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlbench.errors import BadInput
from dlbench.suites.case import AXES, Case, Protocol, describe_axis

#: In the order in which they are tried: what mostly gives much comes first, and what takes long to start comes last.
LEVERS = (
    *("batch_size", "memory_format", "precision", "threads", "fold_batch_norm", "cuda_graph", "optimizer_impl"),
    *("cudnn_benchmark_limit", "flush_denormals", "compile", "freeze"),
)
#: Changes of the batch, each tried again while it gives more.
BATCH_FACTORS = (2.0, 0.5)
#: Suites of `dlbench tune` start with this.
TUNE_PREFIX = "tune-"


def lever_values_to_try(case: Case, precisions: Sequence[str], num_threads: int) -> dict[str, tuple[Any, ...]]:
    """Return the values of each lever other than that of `case`, but for the batch.

    Args:
        precisions: those of the device, as `dlbench.worker --probe` gives them.
        num_threads: of PyTorch on this machine.
    """
    gpu, training = case.device == "cuda", case.mode == "training"
    halves = {"amp_bf16": "bf16", "amp_fp16": "fp16"}
    # Without a loss scaler fp16 trains nothing.
    whole = [halves[p] for p in precisions if p in halves and (p == "amp_bf16" or not training)]
    low = [*(p for p in precisions if p != "amp_fp16" or gpu), *(p for p in whole if p != "fp16" or gpu)]
    found: dict[str, tuple[Any, ...]] = {
        "memory_format": ("channels_first", "channels_last"),
        "precision": tuple(low),
        "compile": ("off", "default", "reduce-overhead", "max-autotune-no-cudagraphs") if gpu else ("off", "default"),
    }
    if training:
        found["optimizer_impl"] = ("auto", "foreach", "fused")
    else:
        found["fold_batch_norm"] = found["freeze"] = ("off", "on")
    if gpu:
        found |= {"cuda_graph": ("off", "on"), "cudnn_benchmark_limit": (10, 0)}
    else:
        fewer = {count for count in (1, num_threads // 2) if 0 < count < num_threads}
        found |= {"flush_denormals": ("off", "on"), "threads": (0, *sorted(fewer))}
    return {
        axis: tuple(
            v for v in found[axis] if v != getattr(case, axis) and case_with_axes(case, **{axis: v}) is not None
        )
        for axis in LEVERS
        if axis in found
    }


def case_with_axes(case: Case, **axes: Any) -> Case | None:
    """Return the case with these values; None if they do not fit together."""
    try:
        found = dataclasses.replace(case, **axes)
        found.require_compatible_axes()
    except BadInput:
        return None
    return found


@dataclass(frozen=True)
class LeverChange:
    """One bar of a waterfall: what was changed, and the figure before and after."""

    text: str
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """The figure after over the one before."""
        return self.after / self.before


def improvement_path(measured: Mapping[Case, float], first: Case, best: Case) -> list[LeverChange]:
    """Describe the way from `first` to `best` over measured settings, each time by the change that gives most.

    Args:
        measured: figure of each setting, higher is better; settings are cases with the default protocol.
    """
    changes: list[LeverChange] = []
    now = first
    while now != best:
        open_axes = [axis for axis in AXES if getattr(now, axis) != getattr(best, axis)]
        nearer = [
            (case, axis)
            for axis in open_axes
            if (case := dataclasses.replace(now, **{axis: getattr(best, axis)})) in measured
        ]
        if nearer:
            after, axis = max(nearer, key=lambda one: measured[one[0]])
            text = describe_change(axis, getattr(best, axis))
        else:  # not measured apart: several at once
            after, text = best, ", ".join(describe_change(axis, getattr(best, axis)) for axis in open_axes)
        changes.append(LeverChange(text, measured[now], measured[after]))
        now = after
    return changes


def settings_to_measure_between(
    measured: Callable[[], Mapping[Case, float]], first: Case, best: Case
) -> Iterator[Case]:
    """Yield the settings between `first` and `best` that are not measured, one at a time; measure each before the next.

    The levers come in their order. `measured` gives what is measured by now.
    """
    now = first
    for axis in LEVERS:
        if getattr(now, axis) != getattr(best, axis):
            following = case_with_axes(now, **{axis: getattr(best, axis)})
            if following is None:
                continue
            if following not in measured():
                yield following
            if following in measured():
                now = following


def describe_change(axis: str, value: object) -> str:
    """Describe a change of an axis: "batch size 64", "compile default", "threads 1", "cuda graph off"."""
    if axis in ("memory_format", "precision"):
        return str(value)
    text = describe_axis(axis, value)
    if not text:
        return f"{axis.replace('_', ' ')} {'as PyTorch chooses' if value == 0 else value}"
    return f"{axis.replace('_', ' ')} {value}" if axis in ("batch_size", "optimizer_impl") else text


def setting_without_protocol(case: Case) -> Case:
    """The setting of a case: without its protocol and the number of its process."""
    return dataclasses.replace(case, protocol=Protocol(), repeat=0)
