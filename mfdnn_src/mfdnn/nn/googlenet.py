"""GoogLeNet (Inception v1), for ImageNet and for CIFAR-10."""

from typing import Any

import torch
from torch import Tensor, nn

Pair = tuple[int, int]  # channels after the bottleneck, and in the end
#: Channels of a module's branches: 1x1, 3x3, 5x5, pooling.
Widths = tuple[int, Pair, Pair, int]
#: The nine modules of the paper.
MODULES: dict[str, Widths] = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}


def conv(n_in: int, n_out: int, f: int, norm: bool, **options: Any) -> nn.Sequential:
    """A convolution, batch normalization in place of its bias if so wanted, ReLU."""
    layers: list[nn.Module] = [nn.Conv2d(n_in, n_out, f, bias=not norm, **options)]
    if norm:
        layers.append(nn.BatchNorm2d(n_out, eps=1e-3))
    return nn.Sequential(*layers, nn.ReLU())


class Inception(nn.Module):
    """Convolutions of three sizes and a pooling side by side, concatenated.

    Maps shape (N, n_in, H, W) to (N, out, H, W); out is the sum of the branches' last
    widths.

    Args:
        n_in: input channels.
        widths: channels of the branches.
        norm: batch normalization after each convolution.
        five: side of the filters in the third branch.
    """

    def __init__(
        self, n_in: int, widths: Widths, norm: bool = False, five: int = 5
    ) -> None:
        super().__init__()
        one, (reduce3, three), (reduce5, last5), pool = widths
        self.out = one + three + last5 + pool
        self.one = conv(n_in, one, 1, norm)
        self.three = nn.Sequential(
            conv(n_in, reduce3, 1, norm), conv(reduce3, three, 3, norm, padding=1)
        )
        self.five = nn.Sequential(
            conv(n_in, reduce5, 1, norm),
            conv(reduce5, last5, five, norm, padding=five // 2),
        )
        self.pool = nn.Sequential(
            nn.MaxPool2d(3, 1, padding=1), conv(n_in, pool, 1, norm)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches' maps, one after the other, shape (N, out, H, W)."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


def stages(norm: bool = False, five: int = 5, last_pool: int = 3) -> nn.ModuleDict:
    """The nine modules, with poolings after 3b and 4e: (N, 192, H, W) to 1024 maps."""
    parts = nn.ModuleDict()
    channels = 192
    for name, widths in MODULES.items():
        module = Inception(channels, widths, norm, five)
        parts[name] = module
        channels = module.out
        if name in ("3b", "4e"):
            size = 3 if name == "3b" else last_pool
            parts[f"pool {name}"] = nn.MaxPool2d(size, 2, ceil_mode=True)
    return parts


def auxiliary(n_in: int, norm: bool, pool: nn.Module) -> nn.Sequential:
    """A classifier on maps (N, n_in, 14, 14) in the middle of the network."""
    hidden = [nn.Linear(2048, 1024), nn.ReLU(), nn.Dropout(0.7), nn.Linear(1024, 1000)]
    return nn.Sequential(pool, conv(n_in, 128, 1, norm), nn.Flatten(), *hidden)


def classifier(classes: int) -> nn.Sequential:
    """The end of the network: (N, 1024, H, W) to logits."""
    linear = nn.Linear(1024, classes)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), linear)


class GoogLeNet(nn.Module):
    """GoogLeNet for ImageNet.

    Maps images (N, 3, 224, 224) to logits (N, 1000); in training mode to three
    logits: the network's, and those of the auxiliary classifiers on 4a and 4d.
    6,998,552 parameters, without these two.

    Args:
        torchvision: as torchvision has it, with 6,624,904 parameters: batch
            normalization in place of biases and local response normalization, 3x3
            filters in the 5x5 branches, other windows in the last max pooling and in
            the auxiliary classifiers.

    Source: lecture topics 3.87 and 3.88; Szegedy et al., "Going deeper with
    convolutions" (2015).
    """

    def __init__(self, torchvision: bool = False) -> None:
        super().__init__()
        norm = torchvision
        self.stem = nn.Sequential(
            conv(3, 64, 7, norm, stride=2, padding=3),  # (N, 64, 112, 112)
            nn.MaxPool2d(3, 2, ceil_mode=True),  # (N, 64, 56, 56)
            nn.Identity() if norm else nn.LocalResponseNorm(5),
            conv(64, 64, 1, norm),
            conv(64, 192, 3, norm, padding=1),  # (N, 192, 56, 56)
            nn.Identity() if norm else nn.LocalResponseNorm(5),
            nn.MaxPool2d(3, 2, ceil_mode=True),  # (N, 192, 28, 28)
        )
        self.stages = stages(norm, 3, 2) if torchvision else stages()
        self.auxiliary = nn.ModuleDict()
        for name, channels in (("4a", 512), ("4d", 528)):
            pool = nn.AdaptiveAvgPool2d(4) if torchvision else nn.AvgPool2d(5, 3)
            self.auxiliary[name] = auxiliary(channels, norm, pool)
        self.classifier = classifier(1000)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Return the logits; in training mode those of all three classifiers."""
        x = self.stem(x)
        extra = []
        for name, part in self.stages.items():
            x = part(x)
            if self.training and name in self.auxiliary:
                extra.append(self.auxiliary[name](x))
        logits: Tensor = self.classifier(x)
        return (logits, extra[0], extra[1]) if self.training else logits


class GoogLeNetCIFAR10(nn.Module):
    """GoogLeNet for images of 32x32 pixels, without auxiliary classifiers.

    Maps images (N, 3, 32, 32) to logits (N, 10). 6,180,410 parameters, or 6,187,690
    with batch normalization in place of the biases.

    Args:
        norm: batch normalization after each convolution.

    Source: lecture topic 3.89; module 3b as Szegedy et al. (2015) have it.
    """

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv(3, 64, 7, norm, padding=3),  # (N, 64, 32, 32)
            conv(64, 64, 1, norm),
            conv(64, 192, 5, norm),  # (N, 192, 28, 28)
        )
        self.stages = stages(norm)
        self.classifier = classifier(10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, shape (N, 10), of images of shape (N, 3, 32, 32)."""
        x = self.stem(x)
        for part in self.stages.values():
            x = part(x)
        logits: Tensor = self.classifier(x)
        return logits
