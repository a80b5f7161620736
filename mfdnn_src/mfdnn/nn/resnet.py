"""Residual networks: basic and bottleneck blocks, versions 1, 1.5 and 2.

Source: lecture topics 3.99 to 3.107; He, Zhang, Ren and Sun, "Deep residual learning
for image recognition" (2016) and "Identity mappings in deep residual networks" (2016).
"""

from collections.abc import Sequence

from torch import Tensor, nn


def conv(c_in: int, c_out: int, f: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias whose padding keeps the size at stride one."""
    return nn.Conv2d(c_in, c_out, f, stride, f // 2, groups=groups, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, and the input added to what they return.

    Maps shape (N, c_in, H, W) to shape (N, expansion * width, H / stride, W / stride),
    rounded up. Versions 1 and 1.5 return relu(shortcut(x) + residual(x)) and differ in
    bottlenecks only; version 2 normalizes and activates before each convolution and
    does nothing after the sum.
    """

    expansion = 1

    def __init__(
        self, c_in: int, width: int, stride: int = 1, version: str = "1.5"
    ) -> None:
        super().__init__()
        c_out, before = width * self.expansion, version == "2"
        layers: list[nn.Module] = []
        for c in self.convolutions(c_in, width, stride, version):
            norm = nn.BatchNorm2d(c.in_channels if before else c.out_channels)
            relu = nn.ReLU(inplace=True)
            layers += [norm, relu, c] if before else [c, norm, relu]
        self.projects = stride != 1 or c_in != c_out
        self.first = nn.Sequential(*layers[:2] if before else [])
        self.residual = nn.Sequential(*layers[2:] if before else layers[:-1])
        self.shortcut = nn.Sequential()
        if self.projects:
            self.shortcut.append(conv(c_in, c_out, 1, stride))
            if not before:
                self.shortcut.append(nn.BatchNorm2d(c_out))
        self.last = nn.Sequential() if before else nn.ReLU(inplace=True)

    def convolutions(
        self, c_in: int, width: int, stride: int, version: str
    ) -> list[nn.Conv2d]:
        """The convolutions of the residual branch."""
        return [conv(c_in, width, 3, stride), conv(width, width, 3)]

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both branches, shape (N, expansion * width, H', W')."""
        start = self.first(x)
        skip = self.shortcut(start) if self.projects else x
        y: Tensor = self.last(skip + self.residual(start))
        return y


class Bottleneck(BasicBlock):
    """A 1x1 convolution to `width` channels, a 3x3, a 1x1 to four times as many.

    Where the image is halved, version 1 has the stride in the first 1x1 convolution,
    versions 1.5 and 2 have it in the 3x3.
    """

    expansion = 4

    def convolutions(
        self, c_in: int, width: int, stride: int, version: str
    ) -> list[nn.Conv2d]:
        """The convolutions of the residual branch."""
        early, late = (stride, 1) if version == "1" else (1, stride)
        reduce, restore = conv(c_in, width, 1, early), conv(width, 4 * width, 1)
        return [reduce, conv(width, width, 3, late), restore]


class ResNet(nn.Module):
    """A stem, stages of residual blocks, global average pooling, a linear layer.

    Maps images of shape (N, 3, H, W) to logits of shape (N, classes). All stages but
    the first halve the image and double the width.

    Args:
        block: the class of the blocks.
        counts: how many blocks each stage has.
        classes: number of logits.
        width: width of the first stage, and channels of the stem.
        small: for images of 32x32 pixels: a 3x3 stem, no stride, no max pooling.
        version: "1", "1.5" (torchvision's) or "2".
    """

    def __init__(
        self,
        block: type[BasicBlock],
        counts: Sequence[int],
        classes: int = 1000,
        width: int = 64,
        small: bool = False,
        version: str = "1.5",
    ) -> None:
        super().__init__()
        if version not in ("1", "1.5", "2"):
            raise ValueError(f"version is '1', '1.5' or '2', not {version!r}")
        stem: list[nn.Module] = [conv(3, width, 3) if small else conv(3, width, 7, 2)]
        stem += [] if version == "2" else [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        stem += [] if small else [nn.MaxPool2d(3, 2, padding=1)]
        self.stem, self.blocks, c = nn.Sequential(*stem), nn.Sequential(), width
        for stage, count in enumerate(counts):
            for number in range(count):
                stride = 2 if stage and not number else 1
                self.blocks.append(block(c, width * 2**stage, stride, version))
                c = block.expansion * width * 2**stage
        last = [nn.BatchNorm2d(c), nn.ReLU(inplace=True)] if version == "2" else []
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes)]
        self.head = nn.Sequential(*last, *pool)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, shape (N, classes), of images of shape (N, 3, H, W)."""
        logits: Tensor = self.head(self.blocks(self.stem(x)))
        return logits


def resnet(
    layers: int, classes: int = 1000, small: bool = False, version: str = "1.5"
) -> ResNet:
    """The ResNet with 18, 34, 50, 101 or 152 layers, shortcuts not counted.

    For ImageNet, in versions 1 and 1.5, they have 11,689,512, 21,797,672, 25,557,032,
    44,549,160 and 60,192,808 parameters; ``resnet(18, 10, small=True)``, the one for
    CIFAR-10, has 11,173,962. See `ResNet` for the arguments.
    """
    basic, bottleneck = BasicBlock, Bottleneck
    built: dict[int, tuple[type[BasicBlock], tuple[int, ...]]] = {
        18: (basic, (2, 2, 2, 2)),
        34: (basic, (3, 4, 6, 3)),
        50: (bottleneck, (3, 4, 6, 3)),
        101: (bottleneck, (3, 4, 23, 3)),
        152: (bottleneck, (3, 8, 36, 3)),
    }
    if layers not in built:
        raise ValueError(f"layers is one of {sorted(built)}, not {layers}")
    return ResNet(*built[layers], classes, small=small, version=version)
