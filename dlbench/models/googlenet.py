"""GoogLeNet: Szegedy et al., "Going deeper with convolutions", 2015, Table 1 and Section 5.

The paper's sizes (112, 56, 28, 14, 7) need pooling that rounds up, as Caffe does. `googlenet_floor` rounds down, which
is PyTorch's default and what the published 1.43 G MACs counted.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlbench.models.uninitialised import Conv2d, Linear

#: Table 1: filters of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5 and pool projection.
_INCEPTION_CHANNELS: dict[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class GoogLeNetOutputs(NamedTuple):
    """Outputs in training: class scores, then those of the two auxiliary heads."""

    logits: Tensor
    auxiliary1: Tensor
    auxiliary2: Tensor


class Inception(nn.Module):
    """Four parallel paths over the same input, joined along the channels (Figure 2 b)."""

    def __init__(self, channels: int, name: str) -> None:
        super().__init__()
        f1, f3_reduce, f3, f5_reduce, f5, pool = _INCEPTION_CHANNELS[name]
        self.out_channels = f1 + f3 + f5 + pool
        self.path1 = _conv_with_relu(channels, f1, 1)
        self.path3 = nn.Sequential(
            _conv_with_relu(channels, f3_reduce, 1), _conv_with_relu(f3_reduce, f3, 3, padding=1)
        )
        self.path5 = nn.Sequential(
            _conv_with_relu(channels, f5_reduce, 1), _conv_with_relu(f5_reduce, f5, 5, padding=2)
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _conv_with_relu(channels, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x `out_channels` x H x W."""
        return torch.cat([self.path1(x), self.path3(x), self.path5(x), self.pool(x)], dim=1)


class GoogLeNet(nn.Module):
    """The 22-layer network; in training it returns `GoogLeNetOutputs`, otherwise only the class scores."""

    def __init__(self, ceil_mode: bool) -> None:
        super().__init__()
        pool = nn.MaxPool2d(3, stride=2, ceil_mode=ceil_mode)
        stem1, stem2, stem3 = (
            _conv_with_relu(3, 64, 7, stride=2, padding=3),
            _conv_with_relu(64, 64, 1),
            _conv_with_relu(64, 192, 3, padding=1),
        )
        self.stem = nn.Sequential(stem1, pool, _response_norm(), stem2, stem3, _response_norm(), pool)
        self.stage3 = nn.Sequential(Inception(192, "3a"), Inception(256, "3b"), pool)
        self.stage4a = Inception(480, "4a")
        self.stage4bcd = nn.Sequential(Inception(512, "4b"), Inception(512, "4c"), Inception(512, "4d"))
        self.stage4e = nn.Sequential(Inception(528, "4e"), pool)
        self.stage5 = nn.Sequential(Inception(832, "5a"), Inception(832, "5b"))
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), Linear(1024, 1000))
        # Average pooling 5/3 reduces 14x14 to 4x4, and 13x13 (from rounding down) to 3x3.
        side = 4 if ceil_mode else 3
        self.auxiliary1: nn.Module | None = _auxiliary_head(512, side)
        self.auxiliary2: nn.Module | None = _auxiliary_head(528, side)

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutputs:
        """Images, N x 3 x 224 x 224, to class scores, N x 1000."""
        after_4a = self.stage4a(self.stage3(self.stem(x)))
        after_4d = self.stage4bcd(after_4a)
        logits: Tensor = self.classifier(self.stage5(self.stage4e(after_4d)))
        if not self.training or self.auxiliary1 is None or self.auxiliary2 is None:
            return logits
        return GoogLeNetOutputs(logits, self.auxiliary1(after_4a), self.auxiliary2(after_4d))

    def remove_auxiliary_heads(self) -> None:
        """Delete the auxiliary heads, which inference never runs."""
        self.auxiliary1 = self.auxiliary2 = None


def googlenet() -> nn.Module:
    """GoogLeNet for 224x224 images as its authors ran it: pooling rounds up."""
    return _initialise(GoogLeNet(ceil_mode=True))


def googlenet_floor() -> nn.Module:
    """GoogLeNet for 224x224 images with pooling that rounds down: 9.6 % fewer MACs, the same weights."""
    return _initialise(GoogLeNet(ceil_mode=False))


def _conv_with_relu(channels: int, filters: int, kernel: int, stride: int = 1, padding: int = 0) -> nn.Module:
    return nn.Sequential(Conv2d(channels, filters, kernel, stride, padding), nn.ReLU(inplace=True))


def _auxiliary_head(channels: int, side: int) -> nn.Module:
    """Section 5: average pooling 5/3, 128 filters of 1x1, FC 1024, dropout 0.7, FC 1000."""
    pooled = nn.Sequential(nn.AvgPool2d(5, 3), _conv_with_relu(channels, 128, 1), nn.Flatten())
    hidden = (Linear(128 * side * side, 1024), nn.ReLU(inplace=True))
    return nn.Sequential(pooled, *hidden, nn.Dropout(0.7), Linear(1024, 1000))


def _response_norm() -> nn.Module:
    # The parameters that its authors published with the Caffe model.
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)


def _initialise(network: nn.Module) -> nn.Module:
    """Glorot's uniform weights and biases of 0.2, as its authors published with the Caffe model; output biases 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                is_output = isinstance(layer, nn.Linear) and layer.out_features == 1000
                nn.init.constant_(layer.bias, 0.0 if is_output else 0.2)
    return network
