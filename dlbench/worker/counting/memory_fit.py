"""Linear functions of peak memory over the batch for each catalogue network, for `dlbench plan` (without torch).

    python -m dlbench.worker.counting.memory_fit > dlbench/facts/memory_lines.csv

During each operation of a step some bytes are constant and some are per image: both are determined from two batches; a
third batch verifies that memory is linear. The peak at any batch is the highest of these lines, and few of them ever
are.
"""

import csv
import dataclasses
import itertools
import sys

from dlbench.errors import BadInput
from dlbench.suites.case import MODES, Case
from dlbench.suites.catalog import CATALOG
from dlbench.worker.counting.memory_prediction import predict_memory_with_trace

#: The catalogue, and lengths of sequences that suites ask for.
LISTED_MODELS = (*CATALOG, "transformer_base@32", "gpt2_small@64", "gpt2_small@256")
COLUMNS = ("model", "mode", "device", "precision", "fixed_bytes", "bytes_per_image")
_BATCH_SIZES = (4, 8, 12)
#: Lines that are the maximum at none of these batches are dropped.
_CHECKED_BATCH_SIZES = tuple(dict.fromkeys(round(1.05**i) for i in range(230)))


def fit_memory(case: Case) -> list[tuple[int, int]]:
    """Return constant bytes and bytes per image at the peaks of `case`, by ascending bytes per image.

    Raises:
        UnknownName, BadInput: as `predict_memory`; or operations differ between batches, or memory is not linear.
    """
    traces = [predict_memory_with_trace(dataclasses.replace(case, batch_size=batch))[1] for batch in _BATCH_SIZES]
    return _fit_linear_memory(case.model, traces)


def fit_peak_memory(case: Case) -> list[tuple[int, int]]:
    """Return `fit_memory` of the allocator peak, with the workspace of cuBLAS. Raises the same."""
    found = [predict_memory_with_trace(dataclasses.replace(case, batch_size=batch)) for batch in _BATCH_SIZES]
    prediction, held = found[0]
    beside = prediction.peak_bytes - max(held)
    return [
        (fixed + beside, per_image) for fixed, per_image in _fit_linear_memory(case.model, [held for _, held in found])
    ]


def _fit_linear_memory(model: str, held: list[list[int]]) -> list[tuple[int, int]]:
    for batch, other in zip(_BATCH_SIZES, held, strict=True):
        if len(other) != len(held[0]):
            raise BadInput(f"{model} runs different operations for batch {batch} than for batch {_BATCH_SIZES[0]}")
    (few, many, _), (low, high, more) = held, _BATCH_SIZES
    slopes = [(b - a) // (high - low) for a, b in zip(few, many, strict=True)]
    lines = [(a - low * slope, slope) for a, slope in zip(few, slopes, strict=True)]
    # Slopes are rounded to whole bytes.
    if any(abs(fixed + more * slope - most) > more for (fixed, slope), most in zip(lines, held[2], strict=True)):
        raise BadInput(f"the memory of {model} is not linear in the batch: {low}, {high}, {more}")
    highest = {max(set(lines), key=lambda line: (line[0] + batch * line[1], line)) for batch in _CHECKED_BATCH_SIZES}
    return sorted(highest, key=lambda line: line[1])


def main() -> None:
    """Print the table."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for model, mode, device, precision in itertools.product(
        LISTED_MODELS, MODES, ("cpu", "cuda"), ("fp32", "amp_bf16")
    ):
        for line in fit_memory(Case(model, mode=mode, device=device, precision=precision)):
            writer.writerow([model, mode, device, precision, *line])


if __name__ == "__main__":
    main()
