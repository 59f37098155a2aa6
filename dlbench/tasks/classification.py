"""Image classification: one label for each image."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dlbench.errors import BadInput
from dlbench.tasks.outputs import auxiliary_head_scores, count_classes, describe_outputs, main_head_scores
from dlbench.tasks.task import Batch, Task, count_sample_as_one_item

#: Weight of each auxiliary head's loss: Szegedy et al. 2015, section 5; torchvision's Inception v3 takes 0.4.
AUXILIARY_WEIGHT = 0.3


def make_batch(size: int, shape: tuple[int, ...], num_classes: int, device: torch.device) -> Batch:
    """Standard normal images and uniform labels: zeros would draw less power and clock higher."""
    images = torch.empty(size, *shape, device=device).normal_()
    # Without classes there is no label: inference needs none.
    return (images,), torch.randint(max(1, num_classes), (size,), device=device)


def loss(outputs: Any, targets: Tensor) -> Tensor:
    """Cross-entropy of the main head, plus 0.3 times that of each auxiliary head.

    Args:
        outputs: as `main_head_scores` and `auxiliary_head_scores` take them.
        targets: (N,) class numbers.

    Raises:
        BadInput: there are no class scores in `outputs`.
    """
    scores = main_head_scores(outputs)
    if scores is None or scores.dim() != 2:
        raise BadInput(
            f"the network returns {describe_outputs(outputs)}, but must return class scores of shape (N, classes)"
        )
    found = functional.cross_entropy(scores, targets)
    if scores is not outputs:
        for auxiliary in auxiliary_head_scores(outputs, scores):
            found = found + AUXILIARY_WEIGHT * functional.cross_entropy(auxiliary, targets)
    return found


def check_output(outputs: Any, batch: Batch, num_classes: int | None) -> int:
    """The number of classes that labels are drawn from. Raises BadInput where the outputs do not fit."""
    (images, *_), _ = batch
    scores = main_head_scores(outputs)
    if scores is None or scores.dim() != 2 or len(scores) != len(images):
        raise BadInput(
            f"returns {describe_outputs(outputs)} for {len(images)} images of {tuple(images.shape[1:])}; "
            f"class scores of shape ({len(images)}, num_classes) are needed; in a dictionary they are the value "
            f"of 'logits'"
        )
    return count_classes(scores, num_classes, "classes")


CLASSIFICATION = Task("classification", "img", make_batch, loss, check_output, count_sample_as_one_item)
