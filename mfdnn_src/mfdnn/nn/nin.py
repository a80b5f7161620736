"""Network in Network: perceptrons that slide over the image, and no linear layer."""

from collections.abc import Sequence

from torch import Tensor, nn


def mlpconv(channels: int, widths: Sequence[int], size: int) -> list[nn.Module]:
    """Build the layers of a small MLP that is applied to every patch.

    Args:
        channels: of the input.
        widths: of the MLP's layers.
        size: odd side of the patches.

    Returns:
        a convolution that keeps the size of the maps, 1x1 convolutions, and a ReLU
        after each: shape (N, channels, H, W) to (N, widths[-1], H, W).
    """
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, size, padding=size // 2), nn.ReLU()]
        channels, size = width, 1
    return layers


class NiNCIFAR10(nn.Module):
    """Network in Network for images of 32x32 pixels.

    Maps images of shape (N, 3, 32, 32) to logits of shape (N, 10), which are not
    negative: a ReLU follows the last convolution too. 966,986 parameters. The maps
    of the last convolution are the classes; their averages are the logits.

    Source: lecture topic 3.81; Lin, Chen and Yan, "Network in network" (2014).
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *mlpconv(3, (192, 160, 96), 5),  # (N, 96, 32, 32)
            nn.MaxPool2d(3, 2, ceil_mode=True),  # (N, 96, 16, 16)
            nn.Dropout(),
            *mlpconv(96, (192, 192, 192), 5),  # (N, 192, 16, 16)
            nn.MaxPool2d(3, 2, ceil_mode=True),  # (N, 192, 8, 8)
            nn.Dropout(),
            *mlpconv(192, (192, 192, 10), 3),  # (N, 10, 8, 8)
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, shape (N, 10), of images of shape (N, 3, 32, 32)."""
        logits: Tensor = self.head(self.features(x))
        return logits
