"""Layers whose weights the network sets itself: PyTorch's initial values would take half the time of a build."""

from torch import nn


class Conv2d(nn.Conv2d):
    """A convolution without initial values."""

    def reset_parameters(self) -> None:
        """Leave the values to the network."""


class Linear(nn.Linear):
    """A fully connected layer without initial values."""

    def reset_parameters(self) -> None:
        """Leave the values to the network."""
