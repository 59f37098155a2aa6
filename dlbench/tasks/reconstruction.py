"""Reconstruction: the network returns its input, as an autoencoder does."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dlbench.errors import BadInput
from dlbench.tasks.outputs import describe_outputs, main_head_scores
from dlbench.tasks.task import Batch, Task, count_sample_as_one_item


def make_batch(size: int, shape: tuple[int, ...], _: int, device: torch.device) -> Batch:
    """Uniform images between 0 and 1, which are their own targets."""
    images = torch.empty(size, *shape, device=device).uniform_()
    return (images,), images


def loss(outputs: Any, targets: Tensor) -> Tensor:
    """Mean squared error against the input. Raises BadInput if the output is not a tensor of the input's shape."""
    found = main_head_scores(outputs)
    if found is None or found.shape != targets.shape:
        raise BadInput(
            f"the network returns {describe_outputs(outputs)}, but must return a tensor of the input's shape "
            f"{tuple(targets.shape)}"
        )
    return functional.mse_loss(found, targets)


def check_output(outputs: Any, batch: Batch, num_classes: int | None) -> int:
    """0, since there are no classes. Raises BadInput where the outputs are not of the input's shape."""
    found, (_, targets) = main_head_scores(outputs), batch
    if found is None or found.shape != targets.shape:
        raise BadInput(
            f"returns {describe_outputs(outputs)} for images of shape {tuple(targets.shape)}; "
            "reconstruction needs outputs of the input's shape"
        )
    return num_classes or 0


RECONSTRUCTION = Task(
    "reconstruction", "img", make_batch, loss, check_output, count_sample_as_one_item, has_classes=False
)
