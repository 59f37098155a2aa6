"""The loss of a training step, whatever shape a network's outputs have."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

#: Weight of each auxiliary head's loss: Szegedy et al. 2015, section 5; torchvision's Inception v3 takes 0.4.
AUXILIARY_WEIGHT = 0.3


def training_loss(outputs: Any, targets: Tensor) -> Tensor:
    """Cross-entropy of the main head, plus 0.3 times that of each auxiliary head.

    Args:
        outputs: (N, classes), or a tuple (named or not) whose first is that and whose others are auxiliary heads or None.
        targets: (N,) class numbers.
    """
    if isinstance(outputs, Tensor):
        return functional.cross_entropy(outputs, targets)
    if hasattr(outputs, "logits") and not isinstance(outputs, tuple):
        return functional.cross_entropy(outputs.logits, targets)
    main, *auxiliary = outputs
    loss = functional.cross_entropy(main, targets)
    for scores in auxiliary:
        if scores is not None:
            loss = loss + AUXILIARY_WEIGHT * functional.cross_entropy(scores, targets)
    return loss
