"""Outputs of a network, whatever their structure: the main scores, those of auxiliary heads, all tensors."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from dlbench.errors import BadInput

#: What class scores are called in a dictionary of outputs.
_SCORE_NAMES = ("logits", "scores", "out", "output", "pred", "prediction", "predictions")
#: Prefix of names of auxiliary heads, as in outputs of GoogLeNet and Inception.
_AUXILIARY_NAME = "aux"


#: `ignore_index` of PyTorch's losses.
_IGNORED_LABEL = -100


def main_head_scores(outputs: Any) -> Tensor | None:
    """Return the class scores of the main head in the outputs of a network; None if there are none.

    They are the tensor itself; `logits` of an object that has them; the first of a tuple or list; in a dictionary the
    one with a usual name, else its only tensor.
    """
    if isinstance(outputs, Tensor):
        return outputs
    logits = getattr(outputs, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    if isinstance(outputs, Mapping):
        tensors = {str(key): value for key, value in outputs.items() if isinstance(value, Tensor)}
        named = [tensors[name] for name in _SCORE_NAMES if name in tensors]
        return named[0] if named else next(iter(tensors.values())) if len(tensors) == 1 else None
    if isinstance(outputs, tuple | list) and outputs:
        return main_head_scores(outputs[0])
    return None


def auxiliary_head_scores(outputs: Any, scores: Tensor) -> list[Tensor]:
    """Return the scores of auxiliary heads: of the shape of the main scores, and named aux if they have names.

    A loss or feature map is not an auxiliary score.
    """
    beside: Iterable[Any] = ()
    if isinstance(outputs, Mapping):
        beside = [value for key, value in outputs.items() if str(key).startswith(_AUXILIARY_NAME)]
    elif isinstance(outputs, tuple | list):
        names = getattr(outputs, "_fields", None) or [_AUXILIARY_NAME] * len(outputs)
        beside = [v for name, v in zip(names[1:], outputs[1:], strict=True) if name.startswith(_AUXILIARY_NAME)]
    return [v for v in beside if isinstance(v, Tensor) and v.shape == scores.shape]


def describe_outputs(outputs: Any) -> str:
    """Describe the outputs of a network: types, shapes and keys of a dictionary."""
    if isinstance(outputs, Tensor):
        return f"a tensor of shape {tuple(outputs.shape)}"
    if isinstance(outputs, Mapping):
        parts = [f"'{key}': {describe_outputs(value)}" for key, value in list(outputs.items())[:4]]
        return f"a dictionary of {', '.join(parts)}" if parts else "an empty dictionary"
    if isinstance(outputs, tuple | list):
        return f"a {type(outputs).__name__} of {', '.join(map(describe_outputs, outputs[:4]))}"
    return f"a {type(outputs).__name__}"


def count_classes(scores: Tensor, declared: int | None, name: str) -> int:
    """Return the number of classes that targets are drawn from: the declared one, or that of the scores.

    Raises:
        BadInput: there are fewer scores. A target beyond them is an error that on CUDA ends the whole process.
    """
    available = scores.shape[-1]
    if declared is not None and declared > available:
        raise BadInput(f"declares num_classes = {declared}, but returns scores for {available} {name}")
    return declared or available


def require_targets(targets: Tensor, num_classes: int, name: str) -> None:
    """Raise BadInput if a target is no class: on CUDA that is an error that ends the whole process."""
    # Tensors without data, on the meta device or FakeTensors, hold no classes to check.
    if type(targets) is not Tensor or targets.is_floating_point() or targets.is_meta or not targets.numel():
        return
    low, high = (int(value) for value in targets.aminmax())
    # PyTorch's losses leave out targets of -100.
    if high >= num_classes or (low < 0 and low != _IGNORED_LABEL):
        wrong = high if high >= num_classes else low
        raise BadInput(
            f"model '{name}' has a make_batch that returns target {wrong}; classes are 0 to {num_classes - 1}"
        )


def find_nested_tensors(values: Any) -> Iterator[Tensor]:
    """Return all tensors in nested mappings, lists, tuples and dataclasses, and the `logits` of another object."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from find_nested_tensors(value)
    elif isinstance(values, Mapping):
        yield from find_nested_tensors(list(values.values()))
    elif dataclasses.is_dataclass(values):
        yield from find_nested_tensors(list(vars(values).values()))
    elif (logits := getattr(values, "logits", None)) is not None:
        yield from find_nested_tensors(logits)
