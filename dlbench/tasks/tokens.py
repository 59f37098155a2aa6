"""Tasks on tokens: language modelling, and translation from one sequence to another."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dlbench.errors import BadInput
from dlbench.tasks.outputs import count_classes, describe_outputs, main_head_scores
from dlbench.tasks.task import Batch, Task


def language_batch(size: int, shape: tuple[int, ...], num_classes: int, device: torch.device) -> Batch:
    """Uniform token ids (N, T), and the same shifted by one as targets."""
    (length,) = shape
    tokens = torch.randint(max(1, num_classes), (size, length + 1), device=device)
    return (tokens[:, :-1].contiguous(),), tokens[:, 1:].contiguous()


def translation_batch(size: int, shape: tuple[int, ...], num_classes: int, device: torch.device) -> Batch:
    """Uniform source ids (N, S) and target ids (N, T), and the target ids shifted by one as targets."""
    source_length, length = shape
    source = torch.randint(max(1, num_classes), (size, source_length), device=device)
    tokens = torch.randint(max(1, num_classes), (size, length + 1), device=device)
    return (source, tokens[:, :-1].contiguous()), tokens[:, 1:].contiguous()


def loss(outputs: Any, targets: Tensor) -> Tensor:
    """Cross-entropy over all tokens.

    Args:
        outputs: scores of shape (N, T, vocabulary), as `main_head_scores` finds them.
        targets: (N, T) token ids.

    Raises:
        BadInput: there are no such scores in `outputs`.
    """
    scores = _scores_of_tokens(outputs, targets)
    if scores is None:
        raise BadInput(
            f"the network returns {describe_outputs(outputs)}, but must return {_required_scores_text(targets)}"
        )
    return functional.cross_entropy(scores.flatten(0, 1), targets.flatten())


def check_output(outputs: Any, batch: Batch, num_classes: int | None) -> int:
    """The vocabulary that tokens are drawn from. Raises BadInput where the outputs do not fit."""
    _, targets = batch
    scores = _scores_of_tokens(outputs, targets)
    if scores is None:
        raise BadInput(
            f"returns {describe_outputs(outputs)} for tokens of shape {tuple(targets.shape)}; "
            f"{_required_scores_text(targets)} are needed; in a dictionary they are the value of 'logits'"
        )
    return count_classes(scores, num_classes, "tokens")


def _scores_of_tokens(outputs: Any, targets: Tensor) -> Tensor | None:
    scores = main_head_scores(outputs)
    return scores if scores is not None and scores.dim() == 3 and scores.shape[:2] == targets.shape else None


def _required_scores_text(targets: Tensor) -> str:
    return f"scores of shape ({', '.join(map(str, targets.shape))}, vocabulary)"


def _target_tokens(shape: tuple[int, ...]) -> int:
    return shape[-1]


LANGUAGE_MODEL = Task(
    *("language_model", "seq", language_batch, loss, check_output, _target_tokens), num_dimensions=1, classes="tokens"
)
#: Its throughput in tokens counts those of the target alone, as is usual.
TRANSLATION = Task(
    *("translation", "seq", translation_batch, loss, check_output, _target_tokens), num_dimensions=2, classes="tokens"
)
