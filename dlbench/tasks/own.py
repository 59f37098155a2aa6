"""The task of a user's own network: one that it names, with functions that it may bring along."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlbench.errors import BadInput, UnknownName
from dlbench.names import excerpt
from dlbench.tasks import TASKS
from dlbench.tasks.task import Batch, Task

_UNITS = ("img", "seq")


def own_task(module: object, factory: object) -> Task:
    """The task that a network or its factory names: classification unless told otherwise.

    Both may bring `make_batch(batch_size, device)`, which gives inputs (a tensor, or a tuple of them) and targets;
    `loss(outputs, targets)`, where they name a task or bring batches; `sample_unit` ("img" or "seq"); and
    `items_per_sample`, the tokens of a sequence.

    Raises:
        BadInput: the task is unknown, or one of these is not what it must be. The message has no model's name.
    """

    def said(name: str) -> Any:
        return getattr(module, name, getattr(factory, name, None))

    name = said("task")
    # Many networks have a `loss` for other purposes; it is taken where the network speaks of its task at all.
    own_loss = said("loss") if name is not None or said("make_batch") is not None else None
    name = "classification" if name is None else name
    if not isinstance(name, str) or name not in TASKS:
        raise BadInput(f"names an {UnknownName('task', name, TASKS)}")
    task = TASKS[name]
    changes: dict[str, Any] = {}
    for key, function in (("make_batch", said("make_batch")), ("loss", own_loss)):
        if function is not None and not callable(function):
            raise BadInput(f"has {key} {excerpt(function)}; it must be a function")
    if said("make_batch") is not None:
        changes["make_batch"] = _own_batches(said("make_batch"))
        changes["num_dimensions"] = None
    if own_loss is not None:
        changes |= {"loss": _own_loss(own_loss), "check_output": _any_output, "has_classes": False}
    unit, items = said("sample_unit"), said("items_per_sample")
    if unit is not None:
        if unit not in _UNITS:
            raise BadInput(f"names an {UnknownName('sample_unit', unit, _UNITS)}")
        changes["sample_unit"] = unit
    if items is not None:
        if not isinstance(items, int) or isinstance(items, bool) or items < 1:
            raise BadInput(f"has items_per_sample {excerpt(items)}; it must be a whole number above zero")
        changes["items_per_sample"] = lambda _: items
    return dataclasses.replace(task, **changes)


def _own_batches(function: Callable[..., Any]) -> Callable[..., Batch]:
    def make_batch(size: int, _: tuple[int, ...], __: int, device: torch.device) -> Batch:
        try:
            found = function(size, device)
        except Exception as error:  # somebody's code
            reason = (str(error).splitlines() or [""])[0]
            raise BadInput(f"has a make_batch that raised {type(error).__name__}: {reason}") from error
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise BadInput(f"has a make_batch that gives a {type(found).__name__}; it must give (inputs, targets)")
        inputs, targets = found
        inputs = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
        wrong = [type(part).__name__ for part in (*inputs, targets) if not isinstance(part, Tensor)]
        if wrong or not inputs:
            what = f"a {wrong[0]}" if wrong else "no input"
            raise BadInput(f"has a make_batch with {what} in it; inputs and targets must be tensors")
        return inputs, targets

    return make_batch


def _own_loss(function: Callable[..., Any]) -> Callable[[Any, Tensor], Tensor]:
    def loss(outputs: Any, targets: Tensor) -> Tensor:
        found = function(outputs, targets)
        if not isinstance(found, Tensor) or found.numel() != 1:
            shape = f"of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"({type(found).__name__})"
            raise BadInput(f"the network's loss gives something {shape}; it must be a scalar tensor")
        return found

    return loss


def _any_output(_: Any, __: Batch, num_classes: int | None) -> int:
    """Whatever a network gives fits a loss of its own."""
    return num_classes or 0
