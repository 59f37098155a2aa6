"""Fully connected networks on 28x28 images, and autoencoders, whose outputs have the shape of their input."""

from itertools import pairwise

from torch import Tensor, nn


def mlp() -> nn.Module:
    """784-512-512-10 with ReLU, after the fully connected nets of LeCun et al. 1998, section III-C-3.

    The dropout layers do nothing (p = 0) until a training sets their rate.
    """
    hidden = [nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.0), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.0)]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(512, 10))


class Autoencoder(nn.Module):
    """An encoder, a decoder, and an output of the input's shape."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, x: Tensor) -> Tensor:
        """Images to images of the same shape, with values between 0 and 1."""
        out: Tensor = self.decoder(self.encoder(x))
        return out.view(x.shape)


def deep_autoencoder() -> nn.Module:
    """784-1000-500-250-30 and back: Hinton & Salakhutdinov 2006, Science 313; logistic units, a linear code."""
    sizes = (784, 1000, 500, 250, 30)
    encoder: list[nn.Module] = [nn.Flatten()]
    decoder: list[nn.Module] = []
    for wide, narrow in pairwise(sizes):
        encoder += [nn.Linear(wide, narrow), nn.Sigmoid()]
        decoder = [nn.Linear(narrow, wide), nn.Sigmoid(), *decoder]
    return Autoencoder(nn.Sequential(*encoder[:-1]), nn.Sequential(*decoder))


def conv_autoencoder() -> nn.Module:
    """Strided convolutions 1-16-32 (3x3/2) and 64 (7x7), mirrored by transposed convolutions; 28x28 images."""
    encoder = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        nn.Conv2d(32, 64, 7),
    )
    decoder = nn.Sequential(
        *(nn.ConvTranspose2d(64, 32, 7), nn.ReLU()),
        *(nn.ConvTranspose2d(32, 16, 3, stride=2, padding=1, output_padding=1), nn.ReLU()),
        *(nn.ConvTranspose2d(16, 1, 3, stride=2, padding=1, output_padding=1), nn.Sigmoid()),
    )
    return Autoencoder(encoder, decoder)
