"""OverFeat: Sermanet et al., "OverFeat: integrated recognition, localization and detection using convolutional
networks", 2014, Table 1 (the fast model).
"""

from __future__ import annotations

from torch import nn


def overfeat_fast() -> nn.Module:
    """The fast OverFeat for 231x231 images: AlexNet's depth without groups, normalisation or overlapping pooling."""
    features = nn.Sequential(
        *(nn.Conv2d(3, 96, 11, stride=4), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(96, 256, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(256, 512, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(512, 1024, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(1024, 1024, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
    )
    classifier = nn.Sequential(
        *(nn.Dropout(0.5), nn.Linear(36864, 3072), nn.ReLU(inplace=True)),
        *(nn.Dropout(0.5), nn.Linear(3072, 4096), nn.ReLU(inplace=True)),
        nn.Linear(4096, 1000),
    )
    network = nn.Sequential(features, nn.Flatten(), classifier)
    _initialise(network)
    return network


def _initialise(network: nn.Module) -> None:
    """Section 3.1 of the paper: weights N(0, 0.01); biases 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
