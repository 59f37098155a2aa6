"""Compute to train three networks, as published over the years, and what is counted for the one in the catalogue."""

from __future__ import annotations

from dataclasses import dataclass

from dlbench.suites.catalog import CATALOG

#: He et al. 2016, CVPR, section 3.4: 60 x 10^4 iterations with mini-batches of 256.
RESNET_IMAGES = 600_000 * 256


@dataclass(frozen=True)
class TrainedNetwork:
    """One row of the published table; the figures are those of a lecture slide, rounded as there."""

    name: str
    year: int
    parameters: int
    flop: float
    counted_parameters: int | None = None
    counted_flop: float | None = None
    reason: str = "not in the catalogue: nothing is counted"


def trained_networks() -> tuple[TrainedNetwork, ...]:
    """The published rows, with what is counted and why it differs."""
    resnet = CATALOG["resnet152"]
    half = 2 * resnet.forward_flop * RESNET_IMAGES
    return (
        TrainedNetwork(
            *("ResNet-152", 2015, 60_000_000, 7e18),
            resnet.parameters,
            float(resnet.training_flop * RESNET_IMAGES),
            f"{RESNET_IMAGES / 1e6:.1f} million images (600,000 iterations of 256). Two forward passes per image give "
            f"{half / 1e18:.1f} exaFLOP, the published figure. A backward pass alone takes about two forward passes",
        ),
        TrainedNetwork("Deep Speech 2", 2016, 300_000_000, 20e18),
        TrainedNetwork("Google NMT", 2017, 8_700_000_000, 100e18),
    )
