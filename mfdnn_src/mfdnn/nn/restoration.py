"""Networks that map a degraded image to a better one of the same size."""

from collections.abc import Sequence

from torch import Tensor, nn


class DnCNN(nn.Module):
    """Estimate the noise of an image and take it away.

    Maps noisy images of shape (N, channels, H, W) to clean ones of the same shape.
    Convolutions 3x3; between the first and the last, batch normalization too. The
    usual 17 layers of 64 maps, for grey images, have 557,057 parameters.

    Source: lecture topic 4.03; Zhang, Zuo, Chen, Meng and Zhang, "Beyond a Gaussian
    denoiser: residual learning of deep CNN for image denoising" (2017).
    """

    def __init__(self, channels: int = 1, width: int = 64, depth: int = 17) -> None:
        super().__init__()
        layers = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers.append(nn.Conv2d(width, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.Conv2d(width, channels, 3, padding=1))
        self.noise = nn.Sequential(*layers)

    def forward(self, y: Tensor) -> Tensor:
        """Return y less its estimated noise, shape (N, channels, H, W)."""
        x: Tensor = y - self.noise(y)
        return x


class SRCNN(nn.Sequential):
    """Sharpen an image that was enlarged: three convolutions, 64 and 32 maps.

    Maps shape (N, 1, H, W) to the same shape. With filters of 9, 5 and 5 pixels a side
    57,281 parameters, with 9, 1 and 5 as in the paper's basic network 8,129.

    Source: lecture topic 4.06; Dong, Loy, He and Tang, "Image super-resolution using
    deep convolutional networks" (2015).
    """

    def __init__(self, sizes: Sequence[int] = (9, 5, 5)) -> None:
        first, second, third = sizes
        super().__init__(
            nn.Conv2d(1, 64, first, padding=first // 2),
            nn.ReLU(),
            nn.Conv2d(64, 32, second, padding=second // 2),
            nn.ReLU(),
            nn.Conv2d(32, 1, third, padding=third // 2),
        )


class VDSR(nn.Module):
    """Sharpen an image that was enlarged: a deep network adds the missing detail.

    Maps shape (N, 1, H, W) to the same shape. Convolutions 3x3 without biases; the
    usual 20 layers of 64 maps have 664,704 parameters. Weights start as He et al. have
    it.

    Source: lecture topic 4.07; Kim, Lee and Lee, "Accurate image super-resolution
    using very deep convolutional networks" (2016).
    """

    def __init__(self, width: int = 64, depth: int = 20) -> None:
        super().__init__()
        widths = [1, *[width] * (depth - 1)]
        layers: list[nn.Module] = []
        for c_in, c_out in zip(widths, [*widths[1:], 1], strict=True):
            conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            layers += [conv, nn.ReLU()]
        self.detail = nn.Sequential(*layers[:-1])

    def forward(self, y: Tensor) -> Tensor:
        """Return y with the detail added, shape (N, 1, H, W)."""
        x: Tensor = y + self.detail(y)
        return x
