"""The loss of a training step, whatever shape a network's outputs have."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from dlbench.errors import BadInput

#: Weight of each auxiliary head's loss: Szegedy et al. 2015, section 5; torchvision's Inception v3 takes 0.4.
AUXILIARY_WEIGHT = 0.3


def training_loss(outputs: Any, targets: Tensor) -> Tensor:
    """Cross-entropy of the main head, plus 0.3 times that of each auxiliary head.

    Args:
        outputs: (N, classes); or a tuple, named or not, whose first is that and whose others are auxiliary heads or
            None; or an object with such `logits`.
        targets: (N,) class numbers.

    Raises:
        BadInput: there are no class scores in `outputs`.
    """
    scores = main_scores(outputs)
    if scores is None:
        raise BadInput(f"the network gives a {type(outputs).__name__}, which holds no class scores")
    loss = functional.cross_entropy(scores, targets)
    for auxiliary in outputs[1:] if isinstance(outputs, tuple | list) else ():
        if auxiliary is not None:
            loss = loss + AUXILIARY_WEIGHT * functional.cross_entropy(auxiliary, targets)
    return loss


def main_scores(outputs: Any) -> Tensor | None:
    """The class scores of the main head in whatever a network gives; None where there are none."""
    if isinstance(outputs, tuple | list) and outputs:
        outputs = outputs[0]
    scores = getattr(outputs, "logits", outputs)
    return scores if isinstance(scores, Tensor) else None
