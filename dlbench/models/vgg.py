"""VGG: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", 2015, Table 1."""

from collections.abc import Callable
from functools import partial

from torch import nn

from dlbench.models.uninitialised import Conv2d, Linear

#: 3x3 convolutions in each of the five stages: configurations A, B, D, E of Table 1.
_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)


def _build_vgg(num_layers: int) -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for depth, width in zip(_DEPTHS[num_layers], _WIDTHS, strict=True):
        for _ in range(depth):
            layers += [Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    classifier = nn.Sequential(
        *(Linear(25088, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)),
        *(Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)),
        Linear(4096, 1000),
    )
    network = nn.Sequential(nn.Sequential(*layers), nn.Flatten(), classifier)
    _initialise(network)
    return network


def _initialise(network: nn.Module) -> None:
    # The paper starts deep configurations from trained shallow ones; He et al. 2015 made that unnecessary.
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


#: Networks for 224x224 images, by name.
BUILDERS: dict[str, Callable[[], nn.Module]] = {f"vgg{number}": partial(_build_vgg, number) for number in _DEPTHS}
