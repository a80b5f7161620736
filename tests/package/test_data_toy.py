"""Toy densities against SciPy's integrals and tests, and scikit-learn's curves."""

import itertools
import math

import numpy as np
import pytest
import torch
from mfdnn.data import toy
from scipy import integrate, stats
from sklearn.datasets import make_moons, make_swiss_roll
from sklearn.neighbors import NearestNeighbors
from torch import distributions

DENSITIES = [
    toy.GaussianMixture(),
    toy.GaussianMixture(modes=5, radius=1.0, std=0.4),
    toy.Checkerboard(),
    toy.Checkerboard(squares=6),
    toy.Moons(),
    toy.Moons(noise=0.07),
    toy.SwissRoll(),
    toy.SwissRoll(noise=0.3),
]
ids = [str(d) for d in DENSITIES]


def draw(density, count=20_000, seed=0):
    return density.sample(count, torch.Generator().manual_seed(seed))


def grid(n=288, side=4.8):
    """Midpoints of n*n cells of side 1/30, so that no square of a board is cut."""
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n * 2 * side - side
    return torch.stack(torch.meshgrid(x, x, indexing="xy"), dim=-1), (2 * side / n) ** 2


@pytest.mark.parametrize("density", DENSITIES, ids=ids)
def test_density_integrates_to_one(density):
    points, area = grid()
    mass = density.log_prob(points).exp().sum() * area
    assert abs(mass - 1) < 1e-6


@pytest.mark.parametrize("density", DENSITIES, ids=ids)
def test_samples_follow_the_density(density):
    """Chi-square over 24x24 cells whose probabilities integrate the density."""
    points, area = grid()
    cells = density.log_prob(points).exp() * area
    cells = cells.view(24, 12, 24, 12).sum(dim=(1, 3)).flatten().numpy()
    sample = draw(density).double()
    where = ((sample + 4.8) / 9.6 * 24).floor().long()
    assert where.min() >= 0 and where.max() < 24
    counts = (where[:, 1] * 24 + where[:, 0]).bincount(minlength=576).numpy()
    likely = cells * len(sample) > 5
    observed = np.append(counts[likely], counts[~likely].sum())
    expected = np.append(cells[likely], cells[~likely].sum()) * len(sample)
    keep = expected > 0
    assert observed[~keep].sum() == 0
    expected = expected[keep] * (len(sample) / expected[keep].sum())
    assert stats.chisquare(observed[keep], expected).pvalue > 1e-3


@pytest.mark.parametrize("density", DENSITIES, ids=ids)
def test_samples_repeat_with_the_seed(density):
    assert torch.equal(draw(density, 50), draw(density, 50))
    assert not torch.equal(draw(density, 50), draw(density, 50, seed=1))
    assert draw(density, 7).shape == (7, 2)
    assert draw(density, 7).dtype == torch.float32
    assert density.log_prob(draw(density, 6).view(2, 3, 2)).shape == (2, 3)


def test_mixture_is_torchs():
    density = toy.GaussianMixture(modes=3)
    angle = torch.tensor([0, 2 * math.pi / 3, 4 * math.pi / 3], dtype=torch.float64)
    means = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
    parts = distributions.Independent(distributions.Normal(means, 0.2), 1)
    weights = distributions.Categorical(torch.ones(3, dtype=torch.float64))
    theirs = distributions.MixtureSameFamily(weights, parts)
    points = draw(density, 100).double()
    torch.testing.assert_close(density.log_prob(points), theirs.log_prob(points))


@pytest.mark.parametrize("density", [toy.Moons(), toy.SwissRoll()], ids=str)
def test_noisy_curve_is_scipys_integral(density):
    """log_prob is the integral along the curve, here by adaptive quadrature."""
    for point in draw(density, 5).double():

        def along(u, point=point):
            mean = density.curve(torch.tensor(u, dtype=torch.float64))
            square = float((point - mean).square().sum())
            return math.exp(-square / 2 / 0.01) / (2 * math.pi * 0.01)

        pieces = [i / 16 for i in range(17)]
        total = sum(
            integrate.quad(along, a, b, epsabs=1e-10)[0]
            for a, b in itertools.pairwise(pieces)
        )
        assert abs(float(density.log_prob(point)) - math.log(total)) < 1e-6


def nearest(points, curve):
    """The largest distance of a point from a densely drawn curve."""
    return NearestNeighbors(n_neighbors=1).fit(curve).kneighbors(points)[0].max()


def test_curves_are_scikit_learns():
    moons, _ = make_moons(5000)
    ours = toy.Moons(noise=0.0)
    assert nearest(draw(ours, 500), moons) < 2e-3
    assert nearest(moons[::50], draw(ours)) < 2e-2
    roll, _ = make_swiss_roll(20_000, random_state=0)
    roll = roll[:, [0, 2]] / (1.5 * math.pi)
    ours = toy.SwissRoll(noise=0.0)
    assert nearest(draw(ours, 500), roll) < 2e-2
    assert nearest(roll[::50], draw(ours)) < 2e-2


def test_board_has_no_mass_on_light_squares():
    board = toy.Checkerboard()
    points = torch.tensor([[-1.5, -1.5], [-0.5, -1.5], [1.5, 1.5], [3.0, 0.5]])
    expected = torch.tensor([1, 0, 1, 0]) / 8
    torch.testing.assert_close(board.log_prob(points).exp(), expected)


def test_curve_without_noise_has_no_density():
    with pytest.raises(ValueError, match="at least"):
        toy.Moons(noise=0.0).log_prob(torch.zeros(2))


@pytest.mark.parametrize("density", DENSITIES, ids=ids)
def test_score_is_finite_where_there_is_mass(density):
    points = draw(density, 50).requires_grad_()
    value = density.log_prob(points).sum()
    if value.requires_grad:  # the board is piecewise constant
        value.backward()
        assert points.grad.isfinite().all()
