"""Normalizing flows: invertible maps from data to latents, and their densities.

A flow maps x to z = f(x) and returns with it the logarithm of the absolute value of
the determinant of its Jacobian matrix, called log_det; examples come first.

Source: lecture topics 5.30 to 5.52.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus


class Flow(nn.Module):
    """An invertible map; by itself the identity."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents and the log-determinants.

        Args:
            x: shape (N, ...).

        Returns:
            z, of as many entries an example, and log_det, shape (N,).
        """
        return x, x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        """Return the x, shape (N, ...), that the flow maps to z."""
        return z


class Compose(Flow):
    """One flow after another, the first one next to the data (lecture topic 5.36)."""

    def __init__(self, *flows: Flow) -> None:
        super().__init__()
        self.flows = nn.ModuleList(flows)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logarithms of the determinants add up."""
        total = x.new_zeros(len(x))
        for flow in self.flows:
            x, log_det = flow(x)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor) -> Tensor:
        """The inverses in the other order."""
        for flow in reversed(self.flows):
            assert isinstance(flow, Flow)
            z = flow.inverse(z)
        return z


class Coupling(Flow):
    """Keep some entries, and move the others by what a network makes of those.

    z^A = x^A and z^B = exp(s) * x^B + t, where t, and s if there is one, are functions
    of x^A (lecture topics 5.38 to 5.44).

    Args:
        kept: bool, shape (n,): True at the entries of x^A.
        network: maps x^A, shape (N, a), to t of shape (N, n - a); an affine coupling's
            maps it to shape (N, 2 (n - a)), s before t.
        affine: whether there is an s, which makes Real NVP of NICE.
    """

    kept: Tensor

    def __init__(self, kept: Tensor, network: nn.Module, affine: bool = False) -> None:
        super().__init__()
        self.register_buffer("kept", kept)
        self.network, self.affine = network, affine

    def _move(self, x_a: Tensor) -> tuple[Tensor, Tensor]:
        """The pair s, t, both of the shape of x^B."""
        found = self.network(x_a)
        if not self.affine:
            return torch.zeros_like(found), found
        s, t = found.chunk(2, dim=1)
        return s, t

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shape (N, n) to (N, n)."""
        s, t = self._move(x[:, self.kept])
        z = x.clone()
        z[:, ~self.kept] = x[:, ~self.kept] * s.exp() + t
        return z, s.sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        """Shape (N, n) to (N, n)."""
        s, t = self._move(z[:, self.kept])
        x = z.clone()
        x[:, ~self.kept] = (z[:, ~self.kept] - t) * (-s).exp()
        return x


class Scale(Flow):
    """z = exp(s) * x with one s for each of n entries, at first 0."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.zeros(n))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shape (N, n) to (N, n)."""
        return x * self.s.exp(), self.s.sum().expand(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        """Shape (N, n) to (N, n)."""
        return z * (-self.s).exp()


class Logit(Flow):
    """z = logit(alpha + (1 - 2 alpha) x): pixels of [0, 1] to the whole line.

    Args:
        alpha: how far the ends are kept from 0 and 1.
    """

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Any shape (N, ...)."""
        z = torch.logit(self.alpha + (1 - 2 * self.alpha) * x)
        # The derivative of the logit at p is 1 / (p (1 - p)).
        slope = math.log(1 - 2 * self.alpha) + softplus(z) + softplus(-z)
        return z, slope.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        """Any shape (N, ...)."""
        return (torch.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha)


def normal(z: Tensor) -> Tensor:
    """The log density of independent standard normal entries, (N, ...) to (N,)."""
    return (-0.5 * z**2 - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def logistic(z: Tensor) -> Tensor:
    """The log density of independent standard logistic entries, (N, ...) to (N,)."""
    return (-softplus(z) - softplus(-z)).flatten(1).sum(1)


#: How independent entries of a base density are drawn from uniform numbers.
QUANTILES: dict[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] = {
    normal: torch.special.ndtri,
    logistic: torch.logit,
}


class Density(nn.Module):
    """The density of x when the latents f(x) of a flow have a base density.

    Args:
        flow: the flow f.
        base: `normal` or `logistic`.
    """

    def __init__(self, flow: Flow, base: Callable[[Tensor], Tensor] = normal) -> None:
        super().__init__()
        self.flow, self.base = flow, base

    def forward(self, x: Tensor) -> Tensor:
        """Return log p(x): (N, ...) to (N,) (lecture topics 5.33, 5.35)."""
        z, log_det = self.flow(x)
        log_prob: Tensor = self.base(z) + log_det
        return log_prob

    log_prob = forward

    def sample(self, shape: Sequence[int], generator: Generator) -> Tensor:
        """Draw examples (lecture topic 5.21).

        Args:
            shape: of the latents, (N, ...).
            generator: of the CPU.

        Returns:
            shape (N, ...), in the type and on the device of the flow's parameters.
        """
        some = next(self.parameters(), torch.empty(0))
        tiny = torch.finfo(some.dtype).tiny
        uniform = torch.rand(tuple(shape), generator=generator, dtype=some.dtype)
        latents = QUANTILES[self.base](uniform.clamp(min=tiny))
        return self.flow.inverse(latents.to(some.device))


def gaps(flow: Flow, x: Tensor) -> tuple[float, float]:
    """Measure how well a flow inverts, and how well it knows its determinant.

    Args:
        flow: in eval mode, in the type of x.
        x: shape (N, ...), better float64.

    Returns:
        the largest difference between x and its way there and back, and the largest
        one between a logarithm of the flow and that of autograd's Jacobian.
    """
    with torch.no_grad():
        z, log_det = flow(x)
        there = (flow.inverse(z) - x).abs().max()
    worst = 0.0
    for example, found in zip(x, log_det, strict=True):
        jacobian = torch.func.jacrev(lambda one: flow(one[None])[0].flatten())(example)
        square = jacobian.detach().reshape(example.numel(), -1)
        worst = max(worst, float((torch.linalg.slogdet(square)[1] - found).abs()))
    return float(there), worst
