"""ResNet: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2016, Table 1.

v1 is the paper's: the first bottleneck of a stage halves the resolution in its first 1x1 convolution. v1.5 halves it in
the 3x3, as Torch and torchvision have it: 6 % more MACs and about 0.5 % more accuracy. All shortcuts that change shape
are projections (the paper's option B). Modules are named as in torchvision, so that its weights can be loaded.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from dlbench.models.uninitialised import Conv2d


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (Figure 5, left)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """N x `channels` x H x W to N x `width` x H / `stride` x W / `stride`."""
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        out: Tensor = self.relu(residual.add_(self.downsample(x)))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut (Figure 5, right); output has four times `width` channels."""

    def __init__(self, channels: int, width: int, stride: int, stride_in_3x3: bool) -> None:
        super().__init__()
        stride1, stride3 = (1, stride) if stride_in_3x3 else (stride, 1)
        self.conv1 = Conv2d(channels, width, 1, stride1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, stride3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """N x `channels` x H x W to N x 4 `width` x H / `stride` x W / `stride`."""
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        out: Tensor = self.relu(residual.add_(self.downsample(x)))
        return out


class ResNet(nn.Module):
    """A 7x7 stem, four stages of residual blocks, one fully connected layer."""

    def __init__(self, block: Callable[[int, int, int], nn.Module], expansion: int, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        stages: list[nn.Module] = []
        channels = 64
        for stage, depth in enumerate(depths):
            width, stride = 64 * 2**stage, 1 if stage == 0 else 2
            first = block(channels, width, stride)
            channels = expansion * width
            stages.append(nn.Sequential(first, *(block(channels, width, 1) for _ in range(depth - 1))))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, 1000)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images, N x 3 x 224 x 224, to class scores, N x 1000."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        scores: Tensor = self.fc(torch.flatten(self.avgpool(x), 1))
        return scores


def _shortcut(channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and channels == out_channels:
        return nn.Identity()
    return nn.Sequential(Conv2d(channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


def _initialise(network: nn.Module) -> None:
    """Initialise as in the paper (He et al. 2015); batch normalisation starts as the identity."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


_V1, _V1_5 = partial(Bottleneck, stride_in_3x3=False), partial(Bottleneck, stride_in_3x3=True)
#: Networks for 224x224 images, by name; v1.5 as in torchvision and MLPerf.
BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": partial(ResNet, BasicBlock, 1, (2, 2, 2, 2)),
    "resnet34": partial(ResNet, BasicBlock, 1, (3, 4, 6, 3)),
    "resnet50": partial(ResNet, _V1, 4, (3, 4, 6, 3)),
    "resnet101": partial(ResNet, _V1, 4, (3, 4, 23, 3)),
    "resnet152": partial(ResNet, _V1, 4, (3, 8, 36, 3)),
    "resnet50_v1_5": partial(ResNet, _V1_5, 4, (3, 4, 6, 3)),
    "resnet101_v1_5": partial(ResNet, _V1_5, 4, (3, 4, 23, 3)),
    "resnet152_v1_5": partial(ResNet, _V1_5, 4, (3, 8, 36, 3)),
}
