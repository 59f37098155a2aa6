"""Networks that somebody might bring along, and that go wrong."""

from __future__ import annotations

import torch
from torch import nn


class _Small(nn.Module):
    input_shape = (1, 28, 28)
    num_classes = 10

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


class _NotANumber(_Small):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * float("nan")


def nan_loss() -> nn.Module:
    return _NotANumber()


def raising() -> nn.Module:
    raise ValueError("no weights in /nowhere")


def absurd() -> nn.Module:
    model = _Small()
    model.register_buffer("table", torch.empty(1 << 50))
    return model
