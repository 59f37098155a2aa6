"""LeNet-5: LeCun et al., "Gradient-based learning applied to document recognition", 1998, Section II-B.

Two things differ from the paper, as everywhere today: sub-sampling is a plain average without its own coefficients, and
the output is a fully connected layer instead of radial basis functions.
"""

import torch
from torch import Tensor, nn

#: Table I of the paper: maps of S2 (of six) connected to each of the sixteen maps of C3.
C3_CONNECTIONS: tuple[tuple[int, ...], ...] = (
    (0, 1, 2),
    (1, 2, 3),
    (2, 3, 4),
    (3, 4, 5),
    (4, 5, 0),
    (5, 0, 1),
    (0, 1, 2, 3),
    (1, 2, 3, 4),
    (2, 3, 4, 5),
    (3, 4, 5, 0),
    (4, 5, 0, 1),
    (5, 0, 1, 2),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


class SparseC3(nn.Module):
    """Layer C3 with only the connections of Table I: 60 kernels of 5x5, 1,500 weights, 150,000 MACs.

    Maps that see equally many maps of S2 (three, four or all six) form one grouped convolution with one map per group,
    so that no product with an absent connection is ever computed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        for fan_in in (3, 4, 6):
            maps = [inputs for inputs in C3_CONNECTIONS if len(inputs) == fan_in]
            gathered = torch.tensor([channel for inputs in maps for channel in inputs])
            self.register_buffer(f"channels_of_{fan_in}", gathered, persistent=False)
            self.convolutions.append(nn.Conv2d(len(gathered), len(maps), 5, groups=len(maps)))

    def forward(self, x: Tensor) -> Tensor:
        """Maps of S2, N x 6 x 14 x 14, to maps of C3, N x 16 x 10 x 10."""
        gathered = (x[:, self.get_buffer(f"channels_of_{fan_in}")] for fan_in in (3, 4, 6))
        return torch.cat([conv(maps) for conv, maps in zip(self.convolutions, gathered, strict=True)], dim=1)


def lenet5() -> nn.Module:
    """LeNet-5 for 28x28 images (padded by 2 to the paper's 32x32), each map of C3 connected to all of S2."""
    return _build_lenet5(nn.Conv2d(6, 16, 5))


def lenet5_sparse_c3() -> nn.Module:
    """LeNet-5 for 28x28 images with the paper's sparse C3: 60,000 trainable parameters in LeCun's own count."""
    return _build_lenet5(SparseC3())


def _build_lenet5(c3: nn.Module) -> nn.Module:
    c1 = nn.Conv2d(1, 6, 5, padding=2)
    c5, f6, output = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)
    features = nn.Sequential(c1, nn.Tanh(), nn.AvgPool2d(2), c3, nn.Tanh(), nn.AvgPool2d(2))
    return nn.Sequential(features, nn.Flatten(), nn.Sequential(c5, nn.Tanh(), f6, nn.Tanh(), output))
