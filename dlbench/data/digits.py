"""The 1,797 handwritten digits of scikit-learn (8x8, from the UCI repository), enlarged to 28x28: real and offline."""

import torch
from torch import Tensor
from torch.nn import functional

from dlbench.errors import BadInput

#: Shape of an image: channel, height, width.
IMAGE_SHAPE = (1, 28, 28)
NUM_CLASSES = 10
#: A fifth is kept for validation, whatever the seed of a training.
_NUM_TRAINING = 1_437
_SPLIT_SEED = 0


def load_digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images (N, 1, 28, 28) from 0 to 1, labels (N,), for training and validation. Raises BadInput: no scikit-learn."""
    try:
        from sklearn import datasets
    except ModuleNotFoundError:
        raise BadInput("the digit images come with scikit-learn, which is missing; pip install scikit-learn") from None
    found = datasets.load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    images = functional.interpolate(images, IMAGE_SHAPE[1:], mode="bilinear")
    labels = torch.tensor(found.target, dtype=torch.long)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    parts = order[:_NUM_TRAINING], order[_NUM_TRAINING:]
    training, validation = ((images[part].contiguous(), labels[part]) for part in parts)
    return training, validation
