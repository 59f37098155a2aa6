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

    Training: parameters, gradients and optimizer state, and the activations saved for backward; inference: parameters
    and the largest set of activations alive at once. Workspace of libraries and the CUDA context come on top.
    """
    model = CATALOG.get(case.model)
    if model is None:
        return None
    input_elements = model.input_shape[0] * model.input_shape[1] * model.input_shape[2]
    element = _BYTES[case.precision]
    if case.mode == "inference":
        return 4 * model.inference_parameters + case.batch_size * (4 * input_elements + element * model.peak_elements)
    copies = 2 + OPTIMIZER_STATES[case.optimizer]
    return 4 * model.parameters * copies + case.batch_size * (4 * input_elements + element * model.saved_elements)
