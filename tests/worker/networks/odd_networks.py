"""Networks that somebody might bring along, and that go wrong."""

from __future__ import annotations

import os

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


class _Forks(_Small):
    """Forks in each step; its first child comes back from the network's code, as somebody's slip would have it."""

    calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if os.fork() == 0:
            if self.calls > 1:
                os._exit(0)
        elif self.calls > 1:
            os.wait()
        return super().forward(images)


def forks() -> nn.Module:
    return _Forks()


def huge() -> nn.Module:
    model = _Small()
    model.input_shape = (1, 10**30, 1)
    return model


def two_classes() -> nn.Module:
    model = _Small()
    model.num_classes = 2
    return model


def tf32() -> nn.Module:
    torch.backends.cuda.matmul.allow_tf32 = True
    return _Small()
