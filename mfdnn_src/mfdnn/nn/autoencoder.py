"""Autoencoders: networks that rebuild what they see through a narrow passage."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class Autoencoder(nn.Module):
    """A fully connected encoder and its mirror image.

    Maps rows (N, sizes[0]) with entries in [0, 1] to rows of the same shape. ReLU
    after every layer, also after the latent one; a sigmoid at the end. The usual
    sizes have 476,720 parameters.

    Args:
        sizes: from the number of pixels to that of the latents.

    Source: lecture topics 5.04, 5.05.
    """

    def __init__(self, sizes: Sequence[int] = (784, 256, 128, 32)) -> None:
        super().__init__()
        self.encoder, decoder = nn.Sequential(), nn.Sequential()
        for fan_in, fan_out in pairwise(sizes):
            self.encoder.extend([nn.Linear(fan_in, fan_out), nn.ReLU()])
        for fan_in, fan_out in pairwise(reversed(sizes)):
            decoder.extend([nn.Linear(fan_in, fan_out), nn.ReLU()])
        self.decoder = decoder[:-1].append(nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction, shape (N, sizes[0])."""
        rebuilt: Tensor = self.decoder(self.encoder(x))
        return rebuilt
