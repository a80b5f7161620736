"""ResNeXt: bottlenecks of many narrow parallel paths.

Source: lecture topic 3.109; Xie, Girshick, Dollár, Tu and He, "Aggregated residual
transformations for deep neural networks" (2017).
"""

from torch import nn

from mfdnn.nn.resnet import Bottleneck, ResNet, conv


class ResNeXtBlock(Bottleneck):
    """A bottleneck whose 3x3 convolution has 32 groups of at least 4 channels.

    Shapes as for `Bottleneck`; in the first stage, of width 64, each of the 32 paths
    has 4 channels, and in each later stage twice as many ("32x4d").
    """

    cardinality = 32
    path = 4  # channels of one path where the width is 64

    def convolutions(
        self, c_in: int, width: int, stride: int, version: str
    ) -> list[nn.Conv2d]:
        """The convolutions of the residual branch."""
        inner = self.cardinality * self.path * width // 64
        return [
            conv(c_in, inner, 1),
            conv(inner, inner, 3, stride, groups=self.cardinality),
            conv(inner, 4 * width, 1),
        ]


def resnext(layers: int, classes: int = 1000, small: bool = False) -> ResNet:
    """ResNeXt-50 or ResNeXt-101, 32x4d: 25,028,904 and 44,177,704 parameters.

    See `mfdnn.nn.resnet.ResNet` for the other arguments.
    """
    counts = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
    if layers not in counts:
        raise ValueError(f"layers is one of {sorted(counts)}, not {layers}")
    return ResNet(ResNeXtBlock, counts[layers], classes, small=small)
