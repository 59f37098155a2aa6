"""What a network gives, whatever its shape: the main scores, those of auxiliary heads, and a description."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

#: What class scores are called in a dictionary of outputs.
_SCORES = ("logits", "scores", "out", "output", "pred", "prediction", "predictions")
#: Prefix of names of auxiliary heads, as in outputs of GoogLeNet and Inception.
_AUXILIARY = "aux"


def main_scores(outputs: Any) -> Tensor | None:
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
        named = [tensors[name] for name in _SCORES if name in tensors]
        return named[0] if named else next(iter(tensors.values())) if len(tensors) == 1 else None
    if isinstance(outputs, tuple | list) and outputs:
        return main_scores(outputs[0])
    return None


def auxiliary_scores(outputs: Any, scores: Tensor) -> list[Tensor]:
    """Return the scores of auxiliary heads: of the shape of the main scores, and named aux if they have names.

    A loss or feature map is not an auxiliary score.
    """
    beside: Iterable[Any] = ()
    if isinstance(outputs, Mapping):
        beside = [value for key, value in outputs.items() if str(key).startswith(_AUXILIARY)]
    elif isinstance(outputs, tuple | list):
        names = getattr(outputs, "_fields", None) or [_AUXILIARY] * len(outputs)
        beside = [v for name, v in zip(names[1:], outputs[1:], strict=True) if name.startswith(_AUXILIARY)]
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
