"""Squeeze-and-excitation: channels weighted by what the whole image contains.

Source: lecture topics 3.114 and 3.115; Hu, Shen and Sun, "Squeeze-and-excitation
networks" (2018).
"""

from torch import Tensor, nn

from mfdnn.nn.resnet import BasicBlock, Bottleneck, ResNet


class SqueezeExcitation(nn.Module):
    """Multiply each channel by a weight in (0, 1) computed from all channels' means.

    Maps shape (N, channels, H, W) to the same shape. 2 channels^2 / reduction weights.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        inner = max(channels // reduction, 1)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),  # squeeze: (N, channels, 1, 1)
            nn.Conv2d(channels, inner, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the weighted channels, shape (N, channels, H, W)."""
        y: Tensor = x * self.gate(x)
        return y


class SEBasicBlock(BasicBlock):
    """A basic block whose residual branch ends with squeeze-and-excitation."""

    def __init__(
        self, c_in: int, width: int, stride: int = 1, version: str = "1.5"
    ) -> None:
        super().__init__(c_in, width, stride, version)
        self.residual.append(SqueezeExcitation(width * self.expansion))


class SEBottleneck(SEBasicBlock, Bottleneck):
    """A bottleneck block whose residual branch ends with squeeze-and-excitation."""


def se_resnet(layers: int, classes: int = 1000, small: bool = False) -> ResNet:
    """SE-ResNet-18 or SE-ResNet-50: 11,778,592 and 28,088,024 parameters.

    See `mfdnn.nn.resnet.ResNet` for the other arguments.
    """
    built: dict[int, tuple[type[BasicBlock], tuple[int, ...]]] = {
        18: (SEBasicBlock, (2, 2, 2, 2)),
        50: (SEBottleneck, (3, 4, 6, 3)),
    }
    if layers not in built:
        raise ValueError(f"layers is one of {sorted(built)}, not {layers}")
    return ResNet(*built[layers], classes, small=small)
