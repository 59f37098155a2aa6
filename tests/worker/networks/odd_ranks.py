"""Networks whose rank 1 goes its own way."""

import os
import time

import torch
from torch import nn


def _rank() -> int:
    return int(os.environ.get("RANK", os.environ.get("PMI_RANK", "0")))


class _Net(nn.Module):
    input_shape = (1, 4, 4)
    num_classes = 4

    def __init__(self, after: int, what) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 4)
        self.left, self.what = after, what

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0 and _rank() == 1 and x.device.type != "meta":
            self.what()
        return self.layer(x.flatten(1))


def _absurd() -> None:
    torch.empty(2**50)


def out_of_memory():
    return _Net(3, _absurd)


def hanging():
    return _Net(3, lambda: time.sleep(600))


class _NanOnOneRank(_Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / (1 - _rank())


def nan_outputs():
    return _NanOnOneRank(2**30, _absurd)
