"""U-Net: down to a coarse scale, and up again with what was seen on the way down."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def convolutions(channels: int, width: int, count: int) -> nn.Sequential:
    """Build several convolutions 3x3, each with batch normalization and ReLU.

    Args:
        channels: of the input.
        width: channels of each output.
        count: how many.

    Returns:
        layers from shape (N, channels, H, W) to (N, width, H, W).
    """
    layers: list[nn.Module] = []
    for _ in range(count):
        layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=False))
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Encoder and decoder with a connection across at every scale.

    Maps images of shape (N, channels, H, W) to shape (N, outputs, H, W); both sides
    must be divisible by 2 ** (len(widths) - 1). On the way down two convolutions a
    scale and max pooling; on the way up a transposed convolution of stride 2, the
    encoder's maps appended, and three convolutions. With three channels, 21 outputs
    and the usual widths, those of the lecture's figure, 10,002,373 parameters.

    Args:
        channels: of the images.
        outputs: of the last, 1x1 convolution.
        widths: maps at each scale, from fine to coarse.

    Source: lecture topic 4.28; Ronneberger, Fischer and Brox, "U-Net: convolutional
    networks for biomedical image segmentation" (2015), without padding and batch
    normalization there.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        widths: Sequence[int] = (24, 64, 128, 256, 512),
    ) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            convolutions(c, width, 2)
            for c, width in zip([channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        coarse, fine = list(widths[:0:-1]), list(widths[-2::-1])
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(c, c, 2, 2) for c in coarse)
        self.up = nn.ModuleList(
            convolutions(c + width, width, 3)
            for c, width in zip(coarse, fine, strict=True)
        )
        self.head = nn.Conv2d(widths[0], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs at every pixel, shape (N, outputs, H, W)."""
        scales = 2 ** len(self.up)
        if x.shape[-2] % scales or x.shape[-1] % scales:
            raise ValueError(
                f"the sides of images of shape {tuple(x.shape)} are not divisible by "
                f"{scales}"
            )
        seen: list[Tensor] = []
        for block in self.down:
            x = block(x if not seen else self.pool(x))
            seen.append(x)
        for enlarge, block, across in zip(
            self.enlarge, self.up, seen[-2::-1], strict=True
        ):
            x = block(torch.cat([enlarge(x), across], dim=1))
        outputs: Tensor = self.head(x)
        return outputs
