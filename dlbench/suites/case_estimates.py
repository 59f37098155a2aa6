"""FLOP and predicted memory of the cases of a suite, computed before any run and without torch."""

from functools import cache

from dlbench.facts.csv_files import read_csv_rows
from dlbench.suites.case import Case
from dlbench.suites.catalog import find_model

#: Tensors of the size of the parameters that each optimizer keeps from step to step.
OPTIMIZER_STATES = {"sgd": 1, "adam": 2, "adamw": 2, "adagrad": 1, "rmsprop": 1}


def step_flop(case: Case) -> int | None:
    """FLOP of one step on one device; None for a network that is not in the catalogue."""
    model = find_model(case.model)
    if model is None:
        return None
    return case.batch_size * (model.training_flop if case.mode == "training" else model.forward_flop)


def predicted_memory_bytes(case: Case) -> int | None:
    """Predict the peak memory that the framework allocates on one device; None for a network outside the catalogue.

    Maximum of the network's linear functions of the batch, fitted by `dlbench.worker.counting.memory_fit` to a step
    with SGD, corrected for the state of other optimizers. Temporaries of Adam's step on a CPU and Adagrad's on a GPU
    are not included; they matter only at small batches (12 and 20 % of AlexNet's peak at a batch of 2). CUDA's context
    and workspaces of cuBLAS and cuDNN are not included. `dlbench maxbatch` runs the case itself, with torch.
    """
    device = "cuda" if case.device == "cuda" else "cpu"
    precision = "amp_bf16" if case.precision.startswith("amp") else "fp32"
    model, lines = find_model(case.model), _read_memory_coefficients().get((case.model, case.mode, device, precision))
    if model is None or lines is None:
        return None
    peak = max(fixed + case.batch_size * per_image for fixed, per_image in lines)
    size = 4
    if case.precision in ("bf16", "fp16"):
        # Every tensor of the fp32 step at half its size; a few, such as class numbers, keep theirs.
        peak, size = peak // 2, 2
    if case.mode == "inference":
        return peak
    return peak + size * model.parameters * (OPTIMIZER_STATES[case.optimizer] - OPTIMIZER_STATES["sgd"])


@cache
def _read_memory_coefficients() -> dict[tuple[str, ...], list[tuple[int, int]]]:
    """Read constant bytes and bytes per image, by model, mode, device and precision."""
    found: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for row in read_csv_rows("memory_lines.csv"):
        key = (row["model"], row["mode"], row["device"], row["precision"])
        found.setdefault(key, []).append((int(row["fixed_bytes"]), int(row["bytes_per_image"])))
    return found
