"""The facts of every network that dlbench builds itself: what a login node without torch can know about them.

The counts are kept here as plain integers so that planning, the audit and the report need no torch; a test builds
every network and holds each integer against what is counted from the actual modules.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """One network. MACs are per image, of the forward pass; weights exclude biases, parameters include them."""

    name: str  # as in suites
    title: str  # as in tables
    family: str
    input_shape: tuple[int, int, int]  # C, H, W
    num_classes: int
    conv_layers: int
    conv_weights: int
    conv_macs: int
    fc_layers: int
    fc_weights: int
    fc_macs: int
    parameters: int
    forward_flop: int  # as the auxiliary heads have it in training: see `training_flop`
    training_flop: int  # forward + backward in training mode, auxiliary heads included
    saved_elements: int  # saved for backward, per image, fp32 training
    peak_elements: int  # live at once in the inference pass, per image
    source: str

    @property
    def forward_macs(self) -> int:
        """MACs of one forward pass of one image, convolution and fully connected layers."""
        return self.conv_macs + self.fc_macs
