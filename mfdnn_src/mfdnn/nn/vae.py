"""Variational autoencoders of binary images, and their lower bounds."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits


class Sampled(NamedTuple):
    """What K samples z of q(z | x) give for each of N images, in nats.

    Args:
        likelihood: log p(x | z), shape (N, K).
        weights: log (p(x | z) p(z) / q(z | x)), shape (N, K).
        kl: the divergence of q(z | x) from the prior, in closed form, shape (N,).
    """

    likelihood: Tensor
    weights: Tensor
    kl: Tensor

    def vlb(self) -> Tensor:
        """Estimate the variational lower bound, shape (N,) (lecture topic 5.70)."""
        return self.likelihood.mean(1) - self.kl

    def iwae(self) -> Tensor:
        """Estimate the importance weighted bound, shape (N,) (lecture topic 5.63)."""
        return self.weights.logsumexp(1) - math.log(self.weights.shape[1])


class VAE(nn.Module):
    """Normal latents, independent binary pixels, two hidden layers with tanh each way.

    The encoder gives mean and logarithmic deviation of q(z | x), which is normal with
    independent entries; the decoder gives the logits of the pixels. The usual sizes
    have 425,284 parameters.

    Args:
        pixels: of an image.
        hidden: units of each hidden layer.
        latents: entries of z; the prior is standard normal.

    Source: lecture topics 5.71 to 5.74; Burda, Grosse and Salakhutdinov, "Importance
    weighted autoencoders" (2016).
    """

    def __init__(self, pixels: int = 784, hidden: int = 200, latents: int = 50) -> None:
        super().__init__()
        self.latents = latents
        self.encoder = _mlp([pixels, hidden, hidden, 2 * latents])
        self.decoder = _mlp([latents, hidden, hidden, pixels])

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithmic deviation: (N, pixels) to two of (N, latents)."""
        mu, log_sigma = self.encoder(x).chunk(2, dim=1)
        return mu, log_sigma

    def forward(self, x: Tensor, eps: Tensor) -> Sampled:
        """Evaluate at z = mu + sigma eps (lecture topic 5.72).

        Args:
            x: images of zeros and ones, shape (N, pixels).
            eps: standard normal, shape (N, K, latents).
        """
        mu, log_sigma = self.encode(x)
        kl = 0.5 * ((2 * log_sigma).exp() + mu**2 - 1 - 2 * log_sigma).sum(1)
        z = mu[:, None] + log_sigma.exp()[:, None] * eps
        logits = self.decoder(z)
        wrong = binary_cross_entropy_with_logits(
            logits, x[:, None].expand_as(logits), reduction="none"
        )
        likelihood = -wrong.sum(2)
        # log p(z) - log q(z | x): the constants of the two normal densities cancel.
        ratio = (0.5 * eps**2 - 0.5 * z**2 + log_sigma[:, None]).sum(2)
        return Sampled(likelihood, likelihood + ratio, kl)


def _mlp(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with tanh between them, on the last dimension."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class VectorQuantized(NamedTuple):
    """What a VQ-VAE makes of images.

    Args:
        rebuilt: the reconstructions, shape (N, C, H, W).
        codebook: mean square distance that moves the codes, shape ().
        commitment: the same number; it moves the encoder, shape ().
        codes: which code stands where, shape (N, H/4, W/4).
    """

    rebuilt: Tensor
    codebook: Tensor
    commitment: Tensor
    codes: Tensor


class VQVAE(nn.Module):
    """An autoencoder whose latents are a grid of vectors from a small codebook.

    Two convolutions of stride 2 and two residual blocks, the codes, two residual
    blocks and two transposed convolutions. The usual sizes have 1,308,227 parameters.

    Args:
        width: maps of the hidden layers.
        codes: vectors in the codebook.
        size: entries of each.

    Source: lecture topic 5.83; van den Oord, Vinyals and Kavukcuoglu, "Neural discrete
    representation learning" (2017).
    """

    def __init__(self, width: int = 128, codes: int = 512, size: int = 64) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            _Residual(width),
            _Residual(width),
            nn.Conv2d(width, size, 1),
        )
        self.codebook = nn.Embedding(codes, size)
        nn.init.uniform_(self.codebook.weight, -1 / codes, 1 / codes)
        self.decoder = nn.Sequential(
            nn.Conv2d(size, width, 3, padding=1),
            _Residual(width),
            _Residual(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1),
        )

    def nearest(self, latents: Tensor) -> Tensor:
        """Which code is nearest to each latent vector: (N, size, h, w) to (N, h, w)."""
        vectors = latents.movedim(1, 3)
        distances = torch.cdist(vectors.flatten(0, 2), self.codebook.weight)
        return distances.argmin(1).view(vectors.shape[:3])

    def forward(self, x: Tensor) -> VectorQuantized:
        """Rebuild images (N, 3, H, W); 4 divides H and W.

        The gradient of the reconstruction passes straight through to the latents, as
        if rounding them to their codes were the identity.
        """
        latents = self.encoder(x)
        codes = self.nearest(latents)
        chosen = self.codebook(codes).movedim(3, 1)
        rebuilt = self.decoder(latents + (chosen - latents).detach())
        codebook = (chosen - latents.detach()).square().mean()
        commitment = (latents - chosen.detach()).square().mean()
        return VectorQuantized(rebuilt, codebook, commitment, codes)


class _Residual(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))), shape (N, width, H, W) to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        outer: Tensor = x + self.inner(x)
        return outer
