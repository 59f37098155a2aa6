"""The task of a user's own network: a task that it names, changed by functions that it defines."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlbench.errors import BadInput, UnknownName
from dlbench.safe_names import short_repr
from dlbench.tasks import TASKS
from dlbench.tasks.task import Batch, Task

_SAMPLE_UNITS = ("img", "seq")


def network_or_factory_attribute(module: object, factory: object, name: str, default: Any = None) -> Any:
    """An attribute of the network, else of its factory."""
    return getattr(module, name, getattr(factory, name, default))


def user_task(module: object, factory: object) -> Task:
    """The task that a network or its factory declares; the default is classification.

    Both may define `make_batch(batch_size, device)`, which returns inputs (a tensor, or a tuple of tensors) and
    targets; `loss(outputs, targets)`, if they also define `task` or `make_batch`; `sample_unit` ("img" or "seq"); and
    `items_per_sample`, the tokens of a sequence.

    Raises:
        BadInput: the task is unknown, or an attribute has a wrong value. The message does not contain the model's name.
    """
    names = ("task", "make_batch", "loss", "sample_unit", "items_per_sample")
    name, own_batches, own_loss, unit, items = (network_or_factory_attribute(module, factory, name) for name in names)
    # Many networks have a `loss` for other purposes: it counts only together with a task or batches.
    if name is None and own_batches is None:
        own_loss = None
    name = "classification" if name is None else name
    if not isinstance(name, str) or name not in TASKS:
        raise BadInput(f"names an {UnknownName('task', name, TASKS)}")
    task = TASKS[name]
    changes: dict[str, Any] = {}
    for key, function in (("make_batch", own_batches), ("loss", own_loss)):
        if function is not None and not callable(function):
            raise BadInput(f"has {key} {short_repr(function)}; it must be a function")
    if own_batches is not None:
        changes |= {"make_batch": _add_batch_checks(own_batches), "num_dimensions": None}
    if own_loss is not None:
        changes |= {"loss": _add_loss_checks(own_loss), "check_output": _accept_any_output, "has_classes": False}
    if unit is not None:
        if unit not in _SAMPLE_UNITS:
            raise BadInput(f"names an {UnknownName('sample_unit', unit, _SAMPLE_UNITS)}")
        changes["sample_unit"] = unit
    if items is not None:
        if not isinstance(items, int) or isinstance(items, bool) or items < 1:
            raise BadInput(f"has items_per_sample {short_repr(items)}; it must be a whole number above zero")
        changes["items_per_sample"] = lambda _: items
    return dataclasses.replace(task, **changes)


def _add_batch_checks(function: Callable[..., Any]) -> Callable[..., Batch]:
    def make_batch(size: int, _: tuple[int, ...], __: int, device: torch.device) -> Batch:
        try:
            found = function(size, device)
        except Exception as error:  # somebody's code
            reason = (str(error).splitlines() or [""])[0]
            raise BadInput(f"has a make_batch that raised {type(error).__name__}: {reason}") from error
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise BadInput(f"has a make_batch that returns a {type(found).__name__}; it must return (inputs, targets)")
        inputs, targets = found
        inputs = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
        wrong = [type(part).__name__ for part in (*inputs, targets) if not isinstance(part, Tensor)]
        if wrong or not inputs:
            what = f"a {wrong[0]}" if wrong else "no input"
            raise BadInput(f"has a make_batch that returns {what}; inputs and targets must be tensors")
        return inputs, targets

    return make_batch


def _add_loss_checks(function: Callable[..., Any]) -> Callable[[Any, Tensor], Tensor]:
    def loss(outputs: Any, targets: Tensor) -> Tensor:
        found = function(outputs, targets)
        if not isinstance(found, Tensor) or found.numel() != 1:
            what = f"tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise BadInput(f"the network's loss function returns a {what}; it must return a scalar tensor")
        return found

    return loss


def _accept_any_output(_: Any, __: Batch, num_classes: int | None) -> int:
    """Accept any output: only the network's own loss can check it."""
    return num_classes or 0
