"""Small networks whose products can be counted by hand; 64 numbers in, 10 scores out unless a class says otherwise."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


class Network(nn.Module):
    input_shape = (64,)
    num_classes = 10


class MadeWeights(Network):
    """A weight that is a product of two parameters, made once per step whatever the batch."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Parameter(torch.ones(512, 128)), nn.Parameter(torch.ones(128, 64))
        self.head = nn.Linear(512, 10, bias=False)

    def forward(self, x):
        return self.head(functional.relu(functional.linear(x, self.left @ self.right)))


class SpectralNorm(Network):
    """One power iteration per training step: two products of the weights with a vector."""

    def __init__(self):
        super().__init__()
        self.head = nn.utils.parametrizations.spectral_norm(nn.Linear(64, 10, bias=False))

    def forward(self, x):
        return self.head(x)


class EachToEach(Network):
    """Every image of the batch against every other."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(64, 256, bias=False), nn.Linear(256, 10, bias=False)

    def forward(self, x):
        z = self.embed(x)
        return self.head(torch.softmax(z @ z.t(), -1) @ z)


class Bilinear(Network):
    def __init__(self):
        super().__init__()
        self.form = nn.Bilinear(64, 64, 10, bias=False)

    def forward(self, x):
        return self.form(x, x)


class Complex(Network):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(10, 64, dtype=torch.complex64))

    def forward(self, x):
        return functional.linear(x.to(torch.complex64), self.weight).abs()


class Distances(Network):
    power = 2.0

    def __init__(self):
        super().__init__()
        self.points = nn.Parameter(torch.ones(1000, 64))

    def forward(self, x):
        return -torch.cdist(x, self.points, p=self.power)[:, :10]


class ManhattanDistances(Distances):
    power = 1.0


class Forces(Network):
    """The gradient of an energy to the input, taken in the forward pass."""

    def __init__(self):
        super().__init__()
        self.energy, self.head = nn.Linear(64, 64, bias=False), nn.Linear(64, 10, bias=False)

    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (force,) = torch.autograd.grad(self.energy(x).sin().sum(), x, create_graph=True)
        return self.head(force)


class Spectrum(Network):
    """A Fourier transform, which is not counted, before a layer that is."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(33, 10, bias=False)

    def forward(self, x):
        return self.head(torch.fft.rfft(x).abs())


class OnlySpectrum(Network):
    """Nothing that is counted at all."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(64))

    def forward(self, x):
        return torch.fft.rfft(x * self.scale).abs()[:, :10]


class LayerDrop(Network):
    """Eight layers, each left out of half of the training steps."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(8))
        self.head = nn.Linear(64, 10, bias=False)

    def drops(self):
        return bool(torch.rand(()) < 0.5)

    def forward(self, x):
        for layer in self.layers:
            if self.training and self.drops():
                continue
            x = torch.relu(layer(x))
        return self.head(x)


class LayerDropByPython(LayerDrop):
    def drops(self):
        return random.random() < 0.5


class LayerDropByNumpy(LayerDrop):
    def drops(self):
        return np.random.rand() < 0.5


class EverySecondStep(LayerDrop):
    """Without random numbers: all layers in one step, none in the next."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def drops(self):
        return self.calls % 2 == 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class EveryTenthStep(EverySecondStep):
    def drops(self):
        return self.calls % 10 != 0


class LayerDropByOwnGenerator(LayerDrop):
    def __init__(self):
        super().__init__()
        self.generator = np.random.default_rng(0)

    def drops(self):
        return self.generator.random() < 0.5


class Checkpointed(Network):
    """Two of three layers run again in the backward pass."""

    reentrant = False

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 128, bias=False)
        self.block = nn.Sequential(nn.Linear(128, 128, bias=False), nn.ReLU(), nn.Linear(128, 128, bias=False))
        self.head = nn.Linear(128, 10, bias=False)

    def forward(self, x):
        return self.head(checkpoint(self.block, self.first(x), use_reentrant=self.reentrant))


class CheckpointedReentrant(Checkpointed):
    reentrant = True


class Unchecked(Checkpointed):
    """The same without checkpointing."""

    def forward(self, x):
        return self.head(self.block(self.first(x)))


class LargeTable(Network):
    """A table of 4 MiB that no gradient reaches and no checkpoint holds."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.ones(1024, 1024), persistent=False)
        self.norm, self.head = nn.BatchNorm1d(64), nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.norm(x)) + self.table[0, :10]


class FrozenPart(nn.Module):
    """A checkpointed block of which one half runs without gradients."""

    input_shape = (64,)
    num_classes = 10

    def __init__(self):
        super().__init__()
        self.frozen, self.trained = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
        self.head = nn.Linear(64, 10, bias=False)

    def block(self, x):
        with torch.no_grad():
            fixed = self.frozen(x)
        return self.trained(x) + fixed

    def forward(self, x):
        return self.head(checkpoint(self.block, x, use_reentrant=False))


class OwnProduct(torch.autograd.Function):
    """A product that computes its gradients with gradients enabled."""

    @staticmethod
    def forward(ctx, x, weights):
        ctx.save_for_backward(x, weights)
        return x @ weights

    @staticmethod
    def backward(ctx, gradient):
        x, weights = ctx.saved_tensors
        with torch.enable_grad():
            return gradient @ weights.t(), x.t() @ gradient


class OwnGradients(nn.Module):
    """A layer whose gradients are a function of the network's own."""

    input_shape = (64,)
    num_classes = 10

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.randn(64, 64))
        self.head = nn.Linear(64, 10, bias=False)

    def forward(self, x):
        return self.head(OwnProduct.apply(x.requires_grad_(), self.weights))


class InThreads(nn.Module):
    """A layer that runs in other threads."""

    input_shape = (64,)
    num_classes = 10

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(64, 64, bias=False), nn.Linear(64, 10, bias=False)

    def forward(self, x):
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(self.layer, [x, x])
        return self.head(first + second)
