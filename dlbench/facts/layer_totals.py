"""Sums over the layers of a network, as integers: the counted figures of the audit.

The layers are counted elsewhere, from the actual module; this module only adds them and needs no torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from dlbench.facts.layers import LayerRow


@dataclass(frozen=True)
class LayerTotals:
    """One network as counted. Weights exclude biases; MACs are per image, of the forward pass."""

    input_shape: tuple[int, ...]  # C, H, W
    conv_layers: int
    filter_sizes: tuple[tuple[int, int], ...]  # distinct R, S of the convolutions, ascending
    num_filters: tuple[int, ...]  # distinct M of the convolutions, ascending
    conv_weights: int
    conv_macs: int
    fc_layers: int
    fc_weights: int
    fc_macs: int

    @property
    def total_weights(self) -> int:
        """Weights of convolutions and fully connected layers."""
        return self.conv_weights + self.fc_weights

    @property
    def total_macs(self) -> int:
        """MACs of convolutions and fully connected layers."""
        return self.conv_macs + self.fc_macs


def sum_layers(rows: Iterable[LayerRow], input_shape: tuple[int, ...]) -> LayerTotals:
    """Sum over `rows`: all convolutions (also transposed ones) and FC layers of one network.

    Args:
        rows: one per layer; the caller omits training-only auxiliary heads.
        input_shape: C, H, W of one image.
    """
    layers = list(rows)
    kinds = {row.kind for row in layers}
    assert kinds <= {"conv", "conv_transposed", "fc"}, f"unknown kind of layer: {sorted(kinds)}"
    fc = [row for row in layers if row.kind == "fc"]
    conv = [row for row in layers if row.kind != "fc"]
    return LayerTotals(
        input_shape=input_shape,
        conv_layers=len(conv),
        filter_sizes=tuple(sorted({(row.R, row.S) for row in conv if row.R is not None and row.S is not None})),
        num_filters=tuple(sorted({row.M for row in conv if row.M is not None})),
        conv_weights=sum(row.weights for row in conv),
        conv_macs=sum(row.macs for row in conv),
        fc_layers=len(fc),
        fc_weights=sum(row.weights for row in fc),
        fc_macs=sum(row.macs for row in fc),
    )
