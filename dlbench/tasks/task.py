"""Definition of a task: the batch that a network takes, its loss, and the unit of a sample."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Inputs of the network, and the targets that its outputs are compared with.
Batch = tuple[tuple[Tensor, ...], Tensor]


@dataclass(frozen=True)
class Task:
    """The functions of one task; `shape` and `num_classes` are the `input_shape` and `num_classes` of the network.

    make_batch(size, shape, num_classes, device) returns random inputs and targets.
    loss(outputs, targets) returns the scalar that training minimises.
    check_output(outputs, batch, num_classes) returns the number of classes, or raises BadInput if outputs do not fit.
    items_per_sample(shape) returns the tokens of a sequence that throughput counts; 1 for an image.
    """

    name: str
    sample_unit: str  # "img" | "seq"
    make_batch: Callable[[int, tuple[int, ...], int, torch.device], Batch]
    loss: Callable[[Any, Tensor], Tensor]
    check_output: Callable[[Any, Batch, int | None], int]
    items_per_sample: Callable[[tuple[int, ...]], int]
    #: Length of `input_shape`; None: any.
    num_dimensions: int | None = None
    #: Whether its targets are class numbers, so that a network without classes cannot be trained.
    has_classes: bool = True
    #: What `num_classes` counts, for messages.
    classes: str = "classes"


def unique_batch_tensors(batch: Batch) -> tuple[Tensor, ...]:
    """The tensors of a batch, each once."""
    inputs, targets = batch
    return tuple({id(tensor): tensor for tensor in (*inputs, targets)}.values())


def map_batch_tensors(function: Callable[[Tensor], Tensor], batch: Batch) -> Batch:
    """Apply `function` to each tensor of a batch, only once if a target is also an input."""
    done = {id(tensor): function(tensor) for tensor in unique_batch_tensors(batch)}
    inputs, targets = batch
    return tuple(done[id(tensor)] for tensor in inputs), done[id(targets)]


def count_sample_as_one_item(_: tuple[int, ...]) -> int:
    """Return 1: an image has no tokens."""
    return 1
