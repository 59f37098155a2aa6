"""Networks that are slower than others by a known share, for experiments: they wait busily in each forward pass.

benchmarks.experiments.slow:lenet5          LeNet-5, 3 % slower per step
benchmarks.experiments.slow:squeezenet1_1   torchvision's SqueezeNet 1.1, 3 % slower per step
benchmarks.experiments.slow:metronome       waits 10 ms a step by the clock, whatever the machine does
benchmarks.experiments.slow:late_metronome  the same, 3 % slower per step
"""

from __future__ import annotations

import os
import time
from collections import deque
from statistics import median

import torch
from torch import Tensor, nn

from dlbench.models import build

#: Of the step time without it. The variable is for experiments with other shares; it is read when a network is built.
SHARE = 0.03
#: The wait follows the median of so many steps, so that it is 3 % of the step as it is now, on this machine.
NUM_REMEMBERED = 51
BEAT_S = 0.01


class Slowed(nn.Module):
    """A network that first waits a share of its own step time, from one forward pass to the next.

    What it needs to reckon the wait is part of the wait. The first steps, of which nothing is known yet, do not wait.
    """

    def __init__(self, name: str, share: float) -> None:
        super().__init__()
        built = build(name)
        self.network = built.module
        self.input_shape = built.input_shape
        self.num_classes = built.num_classes
        self._share = share
        self._own_s: deque[float] = deque(maxlen=NUM_REMEMBERED)
        self._began_s: float | None = None
        self._waited_s = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """The network's output, a little later."""
        began_s = time.perf_counter()
        if self._began_s is not None:
            self._own_s.append(began_s - self._began_s - self._waited_s)
        self._began_s = began_s
        until_s = began_s + (self._share * median(self._own_s) if self._own_s else 0.0)
        while time.perf_counter() < until_s:
            pass
        self._waited_s = time.perf_counter() - began_s
        output: Tensor = self.network(x)
        return output


class Metronome(nn.Module):
    """Each forward pass waits the same time by the clock, whatever else the machine does, then does next to nothing."""

    input_shape = (1, 1, 1)
    num_classes = 2

    def __init__(self, beat_s: float) -> None:
        super().__init__()
        self.layer = nn.Linear(1, self.num_classes)
        self._beat_s = beat_s

    def forward(self, x: Tensor) -> Tensor:
        """Two numbers per image."""
        until_s = time.perf_counter() + self._beat_s
        while time.perf_counter() < until_s:
            pass
        output: Tensor = self.layer(torch.flatten(x, 1))
        return output


def lenet5() -> nn.Module:
    """LeNet-5 with every step 3 % longer."""
    return Slowed("lenet5", _share())


def squeezenet1_1() -> nn.Module:
    """SqueezeNet 1.1 with every step 3 % longer."""
    return Slowed("squeezenet1_1", _share())


def metronome() -> nn.Module:
    """A step of 10 ms."""
    return Metronome(BEAT_S)


def late_metronome() -> nn.Module:
    """A step of 10.3 ms."""
    return Metronome((1 + _share()) * BEAT_S)


def _share() -> float:
    return float(os.environ.get("DLBENCH_SLOW_SHARE", SHARE))
