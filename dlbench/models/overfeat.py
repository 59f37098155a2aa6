"""OverFeat: Sermanet et al., "OverFeat: integrated recognition, localization and detection using convolutional
networks", 2014, Table 1 (the fast model).
"""

from torch import nn

from dlbench.models.alexnet import classifier, initialise_weights
from dlbench.models.uninitialised import Conv2d, Linear


def overfeat_fast() -> nn.Module:
    """The fast OverFeat for 231x231 images: AlexNet's depth without groups, normalisation or overlapping pooling."""
    features = nn.Sequential(
        *(Conv2d(3, 96, 11, stride=4), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(Conv2d(96, 256, 5), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(Conv2d(256, 512, 3, padding=1), nn.ReLU(inplace=True)),
        *(Conv2d(512, 1024, 3, padding=1), nn.ReLU(inplace=True)),
        *(Conv2d(1024, 1024, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
    )
    network = nn.Sequential(features, nn.Flatten(), classifier(36864, 3072, Linear))
    initialise_weights(network)  # section 3.1 of the paper: weights N(0, 0.01); biases 0
    return network
