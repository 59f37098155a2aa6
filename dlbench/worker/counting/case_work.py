"""Counted work of a case, for its record."""

from typing import Any

from dlbench.suites.case import Case
from dlbench.worker.counting.flops import CountedWork, count_network_flop


def count_case_flop(case: Case) -> dict[str, Any]:
    """Count MAC and FLOP per image of a step of the case, on the meta device; add a warning if that fails.

    Uncounted operations are listed in `flop_partial`; the count is None if nothing could be counted.
    """
    training = case.mode == "training"
    try:
        counted = count_network_flop(case.model, training, case.batch_size)
    except Exception as error:  # a user's network may read its data, which the meta device lacks
        text = str(error).strip().splitlines()
        return {"warnings": (f"flop_unknown: {type(error).__name__}: {text[0] if text else 'no message'}",)}
    facts = {
        "forward_macs": counted.forward_macs,
        "forward_flop": counted.forward_flop,
        "backward_flop": counted.backward_flop if training else None,
        "executed_flop": counted.executed_flop,
        "pytorch_forward_flop": counted.pytorch_forward_flop,
        "pytorch_backward_flop": counted.pytorch_backward_flop if training else None,
    }
    if counted.uncounted:
        # With uncounted operations, 0 would mean unknown.
        facts = {name: value or None for name, value in facts.items()}
    names = ", ".join(counted.uncounted) or None
    return {**facts, "flop_partial": names, "flop_varies": counted.num_passes > 1, "warnings": _count_warnings(counted)}


def _count_warnings(counted: CountedWork) -> tuple[str, ...]:
    warnings = []
    if counted.uncounted:
        warnings.append(f"flop_partial: not counted: {', '.join(counted.uncounted)}; the FLOP are a lower bound.")
    if counted.num_passes > 1:
        warnings.append(
            f"flop_varies: the work differs between steps, from {counted.lowest_flop:,} to {counted.highest_flop:,} "
            f"FLOP per image; the record has the mean of {counted.num_passes} steps."
        )
    return tuple(warnings)
