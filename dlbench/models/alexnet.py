"""AlexNet: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", 2012,
Section 3 and Figure 2; and the one tower of Krizhevsky, "One weird trick for parallelizing convolutional neural
networks", 2014, Section 5.
"""

from collections.abc import Collection

from torch import nn

from dlbench.models.uninitialised import Conv2d, Linear


def alexnet() -> nn.Module:
    """AlexNet of 2012 for 227x227 images: two groups of filters, local response normalisation."""
    features = nn.Sequential(
        *(Conv2d(3, 96, 11, stride=4), nn.ReLU(inplace=True), _response_norm(), nn.MaxPool2d(3, 2)),
        *(Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(inplace=True), _response_norm(), nn.MaxPool2d(3, 2)),
        *(Conv2d(256, 384, 3, padding=1), nn.ReLU(inplace=True)),
        *(Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(inplace=True)),
        *(Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
    )
    network = nn.Sequential(features, nn.Flatten(), classifier(9216, 4096, Linear))
    initialise_weights(network, ones=(2, 4, 5, 6, 7))
    return network


def alexnet_owt() -> nn.Module:
    """The one-tower AlexNet of 2014 for 224x224 images; no groups, no normalisation; layers as in torchvision."""
    features = nn.Sequential(
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
    )
    return nn.Sequential(features, nn.Flatten(), classifier(9216, 4096))


def classifier(inputs: int, hidden: int, linear: type[nn.Linear] = nn.Linear) -> nn.Module:
    """The three fully connected layers, with dropout before the first two: N x `inputs` to class scores, N x 1000."""
    return nn.Sequential(
        *(nn.Dropout(0.5), linear(inputs, hidden), nn.ReLU(inplace=True)),
        *(nn.Dropout(0.5), linear(hidden, 4096), nn.ReLU(inplace=True)),
        linear(4096, 1000),
    )


def _response_norm() -> nn.Module:
    # The paper's alpha of 1e-4 multiplies the sum over n = 5 maps; PyTorch's multiplies their mean.
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


def initialise_weights(network: nn.Module, ones: Collection[int] = ()) -> None:
    """Section 5 of the paper: weights N(0, 0.01); biases 1 in `ones` (convolutions 2, 4, 5, hidden FC), or 0."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for number, layer in enumerate(layers, start=1):
        nn.init.normal_(layer.weight, std=0.01)
        if layer.bias is not None:
            nn.init.constant_(layer.bias, 1.0 if number in ones else 0.0)
