"""The cases of a suite as a table: what each will compute and need, known before anything runs and without torch."""

from __future__ import annotations

import csv
from functools import cache

from dlbench.facts.peaks import DATA
from dlbench.suites.case import Case
from dlbench.suites.catalog import CATALOG

#: Tensors of the size of the parameters that each optimizer keeps from step to step.
OPTIMIZER_STATES = {"sgd": 1, "adam": 2, "adagrad": 1, "rmsprop": 1}


def step_flop(case: Case) -> int | None:
    """FLOP of one step on one device; None for a network that is not in the catalogue."""
    model = CATALOG.get(case.model)
    if model is None:
        return None
    return case.batch_size * (model.training_flop if case.mode == "training" else model.forward_flop)


def predicted_memory_bytes(case: Case) -> int | None:
    """Peak memory that the framework will allocate on one device; None for a network that is not in the catalogue.

    The highest of the network's lines over the batch, which `dlbench.worker.counting.memory_fit` found by following its
    step with SGD; another optimizer keeps more or less. Further temporaries of Adam's step on a CPU and Adagrad's on a
    GPU are not in it; they matter at small batches only (12 and 20 % of AlexNet's peak at a batch of 2). CUDA's context
    and the workspace of cuBLAS and cuDNN come on top. `dlbench maxbatch` follows the case itself, with torch.
    """
    device = "cuda" if case.device == "cuda" else "cpu"
    precision = "amp_bf16" if case.precision.startswith("amp") else "fp32"
    lines = _memory_lines().get((case.model, case.mode, device, precision))
    if lines is None:
        return None
    peak = max(fixed + case.batch_size * per_image for fixed, per_image in lines)
    if case.mode == "inference":
        return peak
    return peak + 4 * CATALOG[case.model].parameters * (OPTIMIZER_STATES[case.optimizer] - OPTIMIZER_STATES["sgd"])


@cache
def _memory_lines() -> dict[tuple[str, ...], list[tuple[int, int]]]:
    """Bytes whatever the batch and bytes per image, by model, mode, device and precision."""
    found: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    with (DATA / "memory_lines.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            key = (row["model"], row["mode"], row["device"], row["precision"])
            found.setdefault(key, []).append((int(row["fixed_bytes"]), int(row["bytes_per_image"])))
    return found
