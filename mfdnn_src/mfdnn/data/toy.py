"""Densities in the plane, to draw from and to compare with.

Each has ``sample(count, generator)``, which gives points of shape (count, 2), and
``log_prob(points)``, which gives the log density in nats at points of shape
(..., 2). Both are float32 or, for log_prob, of the points' own type.
"""

import dataclasses
import math

import torch
from torch import Generator, Tensor


@dataclasses.dataclass(frozen=True)
class GaussianMixture:
    """Round Gaussians of equal weight, their means evenly spaced on a circle.

    Args:
        modes: how many.
        radius: of the circle.
        std: standard deviation of each, in both directions.

    Source: standard; as a test of generative models, Goodfellow et al. (2014)
    and Metz et al. (2017).

    >>> GaussianMixture().sample(3, torch.Generator().manual_seed(0)).shape
    torch.Size([3, 2])
    """

    modes: int = 8
    radius: float = 2.0
    std: float = 0.2

    def means(self) -> Tensor:
        """The centres, shape (modes, 2)."""
        angle = 2 * math.pi * torch.arange(self.modes, dtype=torch.float64) / self.modes
        return self.radius * torch.stack([angle.cos(), angle.sin()], dim=-1)

    def sample(self, count: int, generator: Generator) -> Tensor:
        """Points drawn, float32, shape (count, 2)."""
        which = torch.randint(self.modes, (count,), generator=generator)
        noise = torch.randn(count, 2, generator=generator)
        return self.means()[which].float() + self.std * noise

    def log_prob(self, points: Tensor) -> Tensor:
        """Log density, shape (...), at points of shape (..., 2)."""
        means = self.means().to(points)
        weights = torch.full((self.modes,), 1 / self.modes).to(points)
        return _mixture(points, means, weights, self.std)


@dataclasses.dataclass(frozen=True)
class Checkerboard:
    """Uniform on the dark squares of a board that covers [-2, 2] x [-2, 2].

    Args:
        squares: how many along a side, an even number; the lower left is dark.

    Source: standard test density of normalizing flows, for instance Grathwohl et
    al. (2019).
    """

    squares: int = 4

    def sample(self, count: int, generator: Generator) -> Tensor:
        """Points drawn, float32, shape (count, 2)."""
        n = self.squares
        row = torch.randint(n, (count,), generator=generator)
        column = 2 * torch.randint(n // 2, (count,), generator=generator) + row % 2
        corner = torch.stack([column, row], dim=-1)
        inside = torch.rand(count, 2, generator=generator)
        return 4 * (corner + inside) / n - 2

    def log_prob(self, points: Tensor) -> Tensor:
        """Log density, shape (...): -log 8 on the dark squares, -inf elsewhere."""
        square = ((points + 2) * self.squares / 4).floor()
        dark = square.sum(dim=-1) % 2 == 0
        on_board = ((points >= -2) & (points < 2)).all(dim=-1)
        density = torch.full(dark.shape, -math.log(8)).to(points)
        return density.masked_fill(~(dark & on_board), -math.inf)


@dataclasses.dataclass(frozen=True)
class Moons:
    """Two interleaved half circles of radius 1 with Gaussian noise.

    One is centred at (0, 0) and open below, the other at (1, 0.5) and open above;
    both are equally likely, and the angle is uniform.

    Args:
        noise: standard deviation of the noise, in both directions.

    Source: the half circles of scikit-learn's ``make_moons``.
    """

    noise: float = 0.1

    def curve(self, u: Tensor) -> Tensor:
        """Points without noise at u in [0, 1), shape (...) to (..., 2)."""
        upper = u < 0.5
        angle = 2 * math.pi * torch.where(upper, u, u - 0.5)
        x = torch.where(upper, angle.cos(), 1 - angle.cos())
        y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
        return torch.stack([x, y], dim=-1)

    def sample(self, count: int, generator: Generator) -> Tensor:
        """Points drawn, float32, shape (count, 2)."""
        clean = self.curve(torch.rand(count, generator=generator))
        return clean + self.noise * torch.randn(count, 2, generator=generator)

    def log_prob(self, points: Tensor) -> Tensor:
        """Log density, shape (...), by quadrature along both half circles."""
        u, weights = _nodes(0.05, self.noise)
        both = torch.cat([u / 2, (u + 1) / 2])
        half = torch.cat([weights, weights]) / 2
        means = self.curve(both)
        return _mixture(points, means.to(points), half.to(points), self.noise)


@dataclasses.dataclass(frozen=True)
class SwissRoll:
    """A spiral of one turn and a half with Gaussian noise, seen along its axis.

    The angle t is uniform in [1.5 pi, 4.5 pi], and the radius is t / (1.5 pi), so
    that it grows from 1 to 3.

    Args:
        noise: standard deviation of the noise, in both directions.

    Source: the roll of scikit-learn's ``make_swiss_roll`` (Marsland, 2009),
    projected and divided by 1.5 pi.
    """

    noise: float = 0.1

    def curve(self, u: Tensor) -> Tensor:
        """Points without noise at u in [0, 1), shape (...) to (..., 2)."""
        angle = 1.5 * math.pi * (1 + 2 * u)
        spiral = torch.stack([angle.cos(), angle.sin()], dim=-1)
        return (1 + 2 * u)[..., None] * spiral

    def sample(self, count: int, generator: Generator) -> Tensor:
        """Points drawn, float32, shape (count, 2)."""
        clean = self.curve(torch.rand(count, generator=generator))
        return clean + self.noise * torch.randn(count, 2, generator=generator)

    def log_prob(self, points: Tensor) -> Tensor:
        """Log density, shape (...), by quadrature along the spiral."""
        u, weights = _nodes(0.3, self.noise)
        means = self.curve(u).to(points)
        return _mixture(points, means, weights.to(points), self.noise)


def _nodes(length: float, noise: float) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes in (0, 1) and weights that sum to 1, float64.

    The density of a noisy curve is a mixture over the curve; the rule converges
    faster than any power once its nodes are closer than the noise. The length is
    relative: more nodes for a longer curve.
    """
    import numpy as np

    if noise < 0.02:
        raise ValueError(f"log_prob needs a noise of at least 0.02, not {noise}")
    x, w = np.polynomial.legendre.leggauss(int(64 + 128 * length / noise))
    return torch.from_numpy((x + 1) / 2), torch.from_numpy(w / 2)


def _mixture(points: Tensor, means: Tensor, weights: Tensor, std: float) -> Tensor:
    """Log density of a mixture of round Gaussians.

    Points (..., 2), means (K, 2), weights (K,); returns shape (...).
    """
    x, y = points[..., None].unbind(dim=-2)  # (..., 1) each
    square = (x - means[:, 0]).square() + (y - means[:, 1]).square()  # (..., K)
    log_weights = weights.log() - math.log(2 * math.pi * std**2)
    return torch.logsumexp(log_weights - square / (2 * std**2), dim=-1)
