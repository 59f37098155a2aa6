"""The cases of a suite as a table: what each will compute and need, known before anything runs and without torch."""

from __future__ import annotations

from dlbench.spec.case import Case
from dlbench.spec.catalog import CATALOG

_BYTES = {"fp32": 4, "tf32": 4, "amp_bf16": 2, "amp_fp16": 2}
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

    Training: parameters, gradients and optimizer state, and on top the activations saved for backward or, where it is
    more, what the optimizer copies while it steps: on CPUs the largest tensor of weights, on GPUs (which step all
    tensors at once) the size of all. Inference: parameters and the largest set of activations alive at once.
    Workspace of libraries and the CUDA context come on top. `dlbench maxbatch` predicts more closely, with torch.
    """
    model = CATALOG.get(case.model)
    if model is None:
        return None
    input_elements = model.input_shape[0] * model.input_shape[1] * model.input_shape[2]
    element = _BYTES[case.precision]
    if case.mode == "inference":
        return 4 * model.inference_parameters + case.batch_size * (4 * input_elements + element * model.peak_elements)
    kept = 4 * model.parameters * (2 + OPTIMIZER_STATES[case.optimizer]) + case.batch_size * 4 * input_elements
    copied = 4 * (model.parameters if case.device == "cuda" else model.largest_parameter)
    return kept + max(case.batch_size * element * model.saved_elements, copied)
