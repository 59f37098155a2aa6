"""The loss of a training step, whatever shape a network's outputs have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from dlbench.errors import BadInput

#: Weight of each auxiliary head's loss: Szegedy et al. 2015, section 5; torchvision's Inception v3 takes 0.4.
AUXILIARY_WEIGHT = 0.3
#: What class scores are called in a dictionary of outputs.
_SCORES = ("logits", "scores", "out", "output", "pred", "prediction", "predictions")
#: What names of auxiliary heads begin with, as in GoogLeNet's and Inception's outputs.
_AUXILIARY = "aux"


def training_loss(outputs: Any, targets: Tensor) -> Tensor:
    """Cross-entropy of the main head, plus 0.3 times that of each auxiliary head.

    Args:
        outputs: as `main_scores` and `auxiliary_scores` take them.
        targets: (N,) class numbers.

    Raises:
        BadInput: there are no class scores in `outputs`.
    """
    scores = main_scores(outputs)
    if scores is None or scores.dim() != 2:
        raise BadInput(f"the network gives {describe_outputs(outputs)}; class scores of shape (N, classes) are needed")
    loss = functional.cross_entropy(scores, targets)
    if scores is not outputs:
        for auxiliary in auxiliary_scores(outputs, scores):
            loss = loss + AUXILIARY_WEIGHT * functional.cross_entropy(auxiliary, targets)
    return loss


def main_scores(outputs: Any) -> Tensor | None:
    """The class scores of the main head in whatever a network gives; None where there are none.

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
    """The scores of auxiliary heads beside the main ones: of the same shape, and where they have names, called aux.

    A loss or a feature map beside the scores is none.
    """
    beside: Iterable[Any] = ()
    if isinstance(outputs, Mapping):
        beside = [value for key, value in outputs.items() if str(key).startswith(_AUXILIARY)]
    elif isinstance(outputs, tuple | list):
        names = getattr(outputs, "_fields", None) or [_AUXILIARY] * len(outputs)
        beside = [v for name, v in zip(names[1:], outputs[1:], strict=True) if name.startswith(_AUXILIARY)]
    return [v for v in beside if isinstance(v, Tensor) and v.shape == scores.shape]


def describe_outputs(outputs: Any) -> str:
    """What a network gives, in words: types, shapes and the keys of a dictionary."""
    if isinstance(outputs, Tensor):
        return f"a tensor of shape {tuple(outputs.shape)}"
    if isinstance(outputs, Mapping):
        parts = [f"'{key}': {describe_outputs(value)}" for key, value in list(outputs.items())[:4]]
        return f"a dictionary of {', '.join(parts)}" if parts else "an empty dictionary"
    if isinstance(outputs, tuple | list):
        return f"a {type(outputs).__name__} of {', '.join(map(describe_outputs, outputs[:4]))}"
    return f"a {type(outputs).__name__}"
