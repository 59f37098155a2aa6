"""Networks with unusual layers, wrappers and outputs."""

from collections import namedtuple
from dataclasses import dataclass

import torch
from tiny import Net
from torch import nn


class Lazy(nn.Module):
    input_shape = (3, 16, 16)
    num_classes = 10

    def __init__(self):
        super().__init__()
        self.c = nn.LazyConv2d(8, 3, bias=False)
        self.n = nn.LazyBatchNorm2d()
        self.h = nn.LazyLinear(10, bias=False)

    def forward(self, x):
        return self.h(self.n(self.c(x)).flatten(1))


class LazyHead(Lazy):
    """A lazy auxiliary head that only training has."""

    def __init__(self):
        super().__init__()
        self.aux = nn.LazyLinear(10)

    def forward(self, x):
        features = self.n(self.c(x)).flatten(1)
        return (self.h(features), self.aux(features)) if self.training else self.h(features)


class LazyUnused(Lazy):
    def __init__(self):
        super().__init__()
        self.never = nn.LazyLinear(3)


class LazyFails(Lazy):
    def forward(self, x):
        return self.h(x.view(7, -1))


class OtherShape(nn.Module):
    """Its layer takes other inputs than its `input_shape` says."""

    input_shape = (3, 16, 16)

    def __init__(self):
        super().__init__()
        self.h = nn.Linear(100, 10)

    def forward(self, x):
        return self.h(x.flatten(1))


class Buggy(OtherShape):
    """Fails in the first step for a reason that is not the shape."""

    def forward(self, x):
        if x.is_meta:
            return x.flatten(1)[:, :10]
        raise RuntimeError("no such luck")


def parallel():
    return nn.DataParallel(Net())


def parallel_inside():
    net = Net()
    net.a = nn.DataParallel(net.a)
    return net


def compiled():
    return torch.compile(Net())


def compiled_inside():
    net = Net()
    net.a = torch.compile(net.a)
    net.h.compile()
    return net


class Distributed(nn.parallel.DistributedDataParallel):
    def __init__(self):
        nn.Module.__init__(self)


class WithLoss(Net):
    def forward(self, x):
        y = super().forward(x)
        return y, y.square().mean()


class WithFeatures(Net):
    def forward(self, x):
        features = torch.relu(self.a(x))
        return self.h(features), features


class WithHead(Net):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        features = torch.relu(self.a(x))
        return self.h(features), self.head(features), None


Outputs = namedtuple("Outputs", ["logits", "probabilities"])


class WithProbabilities(Net):
    def forward(self, x):
        y = super().forward(x)
        return Outputs(y, y.softmax(1))


class Dictionary(Net):
    def forward(self, x):
        features = torch.relu(self.a(x))
        return {"features": features, "logits": self.h(features), "loss": features.mean()}


class Unclear(Net):
    def forward(self, x):
        features = torch.relu(self.a(x))
        return {"features": features, "classes": self.h(features)}


@dataclass
class Answer:
    logits: torch.Tensor
    state: torch.Tensor


class Object(Net):
    def forward(self, x):
        y = super().forward(x)
        return Answer(y, y.argmax(1))


class Dense(nn.Module):
    input_shape = (3, 16, 16)
    num_classes = 21

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 21, 3, padding=1)

    def forward(self, x):
        return {"out": self.c(x)}


class Headless(nn.Module):
    input_shape = (64,)
    num_classes = 0

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(64, 32)

    def forward(self, x):
        return self.a(x)


class Frozen(Net):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class Nan(Net):
    def forward(self, x):
        return torch.log(super().forward(x))


class NanBeside(Net):
    def forward(self, x):
        y = super().forward(x)
        return y, {"more": [y.argmax(1), y / 0]}


class NanLater(Net):
    """After a thousand images of inference."""

    def __init__(self):
        super().__init__()
        self.left = 5

    def forward(self, x):
        self.left -= x.device.type != "meta"
        return super().forward(x) * (float("inf") if self.left < 0 else 1.0)


class Integers(Net):
    def forward(self, x):
        return super().forward(x).argmax(1)
