"""Real NVP: affine couplings of images at several scales."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, relu

from mfdnn.flows import Compose, Flow


class ResidualBlock(nn.Module):
    """x + conv(relu(bn(conv(relu(bn(x)))))), shape (N, C, H, W) to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        inner = self.conv1(relu(self.bn1(x)))
        outer: Tensor = self.conv2(relu(self.bn2(inner)))
        return x + outer


class MaskedCoupling(Flow):
    """An affine coupling of images, x^A chosen by a mask (lecture topics 5.44, 5.48).

    s and t come from one residual network, which sees the image with x^B set to zero.
    s is bounded: a learned factor for each channel times tanh. At first s = t = 0.

    Args:
        mask: shape (C, H, W) or (C, 1, 1): 1 at x^A, 0 at x^B.
        width: maps of the network.
        blocks: its residual blocks.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, width: int, blocks: int) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        channels = len(mask)
        last = nn.Conv2d(width, 2 * channels, 1)
        nn.init.zeros_(last.weight)
        assert last.bias is not None
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            *[ResidualBlock(width) for _ in range(blocks)],
            nn.BatchNorm2d(width),
            nn.ReLU(),
            last,
        )
        self.factor = nn.Parameter(torch.ones(channels, 1, 1))

    def _move(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The pair s, t, zero at x^A."""
        s, t = self.network(self.mask * x).chunk(2, dim=1)
        moved = 1 - self.mask
        return moved * self.factor * torch.tanh(s), moved * t

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shape (N, C, H, W) to the same."""
        s, t = self._move(x)
        return s.exp() * x + t, s.flatten(1).sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        """Shape (N, C, H, W) to the same."""
        s, t = self._move(z)
        return (z - t) * (-s).exp()


class FlowNorm(Flow):
    """Normalize each channel by running statistics (lecture topic 5.50).

    In training mode the statistics of the batch enter the running ones before these
    are used, and gradients flow through those of the batch alone. The latents of one
    image then depend on the others, so that the determinant is exact in eval mode only.

    Args:
        channels: of the images.
        rho: the share of the old statistics that is kept in a step.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, channels: int, rho: float = 0.9) -> None:
        super().__init__()
        self.rho = rho
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("var", torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shape (N, C, H, W) to the same."""
        mean, var = self.mean, self.var
        if self.training:
            new = torch.var_mean(x, dim=(0, 2, 3), correction=0, keepdim=True)
            var = self.rho * var + (1 - self.rho) * new[0][0]
            mean = self.rho * mean + (1 - self.rho) * new[1][0]
            self.mean, self.var = mean.detach(), var.detach()
        log_det = -0.5 * torch.log(var + 1e-5).sum() * x[0, 0].numel()
        return (x - mean) / torch.sqrt(var + 1e-5), log_det.expand(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        """Shape (N, C, H, W) to the same, by the running statistics."""
        return z * torch.sqrt(self.var + 1e-5) + self.mean


class Squeeze(Flow):
    """(N, C, H, W) to (N, 4C, H/2, W/2): each 2x2 cell becomes four channels."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A permutation: the determinant is 1 or -1."""
        return pixel_unshuffle(x, 2), x.new_zeros(len(x))

    def inverse(self, z: Tensor) -> Tensor:
        """(N, 4C, H/2, W/2) to (N, C, H, W)."""
        return pixel_shuffle(z, 2)


class RealNVP(Flow):
    """Couplings at several scales; half of the channels leave after each but the last.

    At each scale three couplings with checkerboard masks, a squeeze, and three with
    masks of channels, each followed by a normalization (lecture topics 5.49 to 5.52).
    Maps images (N, C, H, W) to latents (N, C H W), the fine scales first.

    Args:
        shape: (C, H, W) of an image; a power of 2 to the number of scales divides H
            and W.
        width: maps of the networks of s and t.
        blocks: residual blocks in each.
        scales: their number.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP" (2017).
    """

    def __init__(
        self, shape: tuple[int, int, int], width: int, blocks: int, scales: int = 3
    ) -> None:
        super().__init__()
        self.shape = shape
        self.scales = nn.ModuleList()
        c, h, w = shape
        for _ in range(scales):
            rows, columns = torch.arange(h)[:, None], torch.arange(w)
            checkers = ((rows + columns) % 2).float().expand(c, h, w)
            halves = (torch.arange(4 * c) < 2 * c).float()[:, None, None]
            make = _maker(width, blocks)
            self.scales.append(Compose(*make(checkers), Squeeze(), *make(halves)))
            c, h, w = 2 * c, h // 2, w // 2

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) to (N, C H W)."""
        total = x.new_zeros(len(x))
        latents = []
        for i, scale in enumerate(self.scales):
            x, log_det = scale(x)
            total = total + log_det
            if i < len(self.scales) - 1:
                x, leaves = x.chunk(2, dim=1)
                latents.append(leaves.flatten(1))
        return torch.cat([*latents, x.flatten(1)], dim=1), total

    def inverse(self, z: Tensor) -> Tensor:
        """(N, C H W) to (N, C, H, W)."""
        c, h, w = self.shape
        parts = []
        for i in range(len(self.scales)):
            last = i == len(self.scales) - 1
            c, h, w = 4 * c if last else 2 * c, h // 2, w // 2
            size = c * h * w
            parts.append(z[:, :size].reshape(-1, c, h, w))
            z = z[:, size:]
        x = parts.pop()
        for scale in reversed(self.scales):
            assert isinstance(scale, Flow)
            x = scale.inverse(x)
            if parts:
                x = torch.cat([x, parts.pop()], dim=1)
        return x


def _maker(width: int, blocks: int) -> Callable[[Tensor], list[Flow]]:
    """What makes three couplings whose masks take turns, and their normalizations."""

    def make(mask: Tensor) -> list[Flow]:
        flows: list[Flow] = []
        for kept in (mask, 1 - mask, mask):
            flows.append(MaskedCoupling(kept, width, blocks))
            flows.append(FlowNorm(len(mask)))
        return flows

    return make
