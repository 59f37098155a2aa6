"""A small convolutional network, and the same with a convolution whose kernel for batches of 16 is wrong."""

import torch
from torch import nn


class _Wrong(nn.Conv2d):
    def forward(self, images):
        found = super().forward(images)
        return found * 1.01 if len(images) >= 16 else found


class _WrongInOneSample(nn.Conv2d):
    def forward(self, images):
        found = super().forward(images)
        return torch.cat((found[:-1], 2 * found[-1:])) if len(images) >= 16 else found


def _network(convolution, *normalisation):
    layers = (
        *(nn.Conv2d(3, 16, 3), nn.ReLU(), convolution(16, 32, 3), *normalisation, nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(32 * 9 * 9, 10)),
    )
    module = nn.Sequential(*layers)
    module.input_shape, module.num_classes = (3, 24, 24), 10
    return module


def right():
    return _network(nn.Conv2d)


def normalised():
    return _network(nn.Conv2d, nn.BatchNorm2d(32))


def wrong():
    return _network(_Wrong)


def wrong_and_normalised():
    return _network(_Wrong, nn.BatchNorm2d(32))


def wrong_in_one_sample():
    return _network(_WrongInOneSample)


def deep():
    """Normalised convolutions, of which one has two groups: in bf16, rounding hides an error of one in a hundred."""
    layers = [nn.Conv2d(3, 16, 3, padding=1)]
    for i in range(16):
        convolution = nn.Conv2d(16, 16, 3, padding=1, groups=2 if i == 8 else 1, bias=False)
        layers += [convolution, nn.BatchNorm2d(16), nn.ReLU()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    module.input_shape, module.num_classes = (3, 24, 24), 10
    return module
