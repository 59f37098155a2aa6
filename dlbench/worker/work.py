"""Counted work of a case, for its record."""

from __future__ import annotations

from typing import Any

from dlbench.spec.case import Case
from dlbench.worker.flops import count


def count_work(case: Case) -> dict[str, Any]:
    """MAC and FLOP per image of the case's network, on the meta device; a warning where it does not run there."""
    training = case.mode == "training"
    try:
        counted = count(case.model, training)
    except Exception as error:  # somebody's own network may read its data, which the meta device has not
        text = str(error).strip().splitlines()
        return {"warnings": (f"flop_unknown: {type(error).__name__}: {text[0] if text else 'no message'}",)}
    return {
        "forward_macs": counted.forward_macs,
        "forward_flop": counted.forward_flop,
        "backward_flop": counted.backward_flop if training else None,
        "pytorch_forward_flop": counted.pytorch_forward_flop,
        "pytorch_backward_flop": counted.pytorch_backward_flop if training else None,
    }
