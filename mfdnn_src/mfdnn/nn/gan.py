"""Generators and discriminators of adversarial networks."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


class MLPGenerator(nn.Sequential):
    """A fully connected generator of grey images.

    Maps latents (N, latents) to images (N, 1, side, side) in (-1, 1).

    Args:
        latents: r.
        sizes: of the hidden layers, each followed by a leaky ReLU.
        side: of the images, in pixels.

    Source: lecture topic 5.99.
    """

    def __init__(
        self,
        latents: int = 100,
        sizes: Sequence[int] = (256, 512),
        side: int = 28,
    ) -> None:
        super().__init__()
        for fan_in, fan_out in pairwise((latents, *sizes)):
            self.extend([nn.Linear(fan_in, fan_out), nn.LeakyReLU(0.2)])
        self.extend([nn.Linear(sizes[-1], side**2), nn.Tanh()])
        self.append(nn.Unflatten(1, (1, side, side)))


class MLPDiscriminator(nn.Sequential):
    """A fully connected discriminator of grey images, with dropout.

    Maps images (N, 1, side, side) to logits (N, 1); large means real.

    Args:
        sizes: of the hidden layers, each followed by a leaky ReLU and dropout.
        side: of the images, in pixels.

    Source: lecture topic 5.99.
    """

    def __init__(self, sizes: Sequence[int] = (512, 256), side: int = 28) -> None:
        super().__init__(nn.Flatten())
        for fan_in, fan_out in pairwise((side**2, *sizes)):
            self.extend([nn.Linear(fan_in, fan_out), nn.LeakyReLU(0.2)])
            self.append(nn.Dropout(0.3))
        self.append(nn.Linear(sizes[-1], 1))


class DCGANGenerator(nn.Sequential):
    """The generator of DCGAN: a linear layer, then transposed convolutions.

    Maps latents (N, latents) to images (N, channels, S, S) in (-1, 1). The first
    maps have 4x4 pixels, and each transposed convolution doubles them: four widths
    give S = 64. Batch normalization and ReLU after every layer but the last, and no
    biases. With the defaults, the lecture's, 18,855,040 parameters.

    Args:
        latents: r.
        widths: numbers of maps, from the 4x4 ones on.
        channels: of the images.
        kernel: 5 as in the paper's figure, or 4.

    Source: lecture topic 5.100; Radford, Metz and Chintala, "Unsupervised
    representation learning with deep convolutional generative adversarial networks"
    (2016).
    """

    def __init__(
        self,
        latents: int = 100,
        widths: Sequence[int] = (1024, 512, 256, 128),
        channels: int = 3,
        kernel: int = 5,
    ) -> None:
        super().__init__(
            nn.Linear(latents, widths[0] * 4 * 4, bias=False),
            nn.Unflatten(1, (widths[0], 4, 4)),
        )
        for fan_in, fan_out in pairwise((*widths, channels)):
            self.extend([nn.BatchNorm2d(fan_in), nn.ReLU()])
            self.append(_doubling(fan_in, fan_out, kernel))
        self.append(nn.Tanh())
        _small_weights(self)


class DCGANDiscriminator(nn.Sequential):
    """The discriminator of DCGAN: convolutions of stride 2, then a linear layer.

    Maps images (N, channels, S, S) to logits (N, 1); large means real. Each
    convolution halves the maps, the last ones have 4x4 pixels. Leaky ReLU of slope
    0.2 after every one, and between, but for the first, batch normalization. With
    the defaults, the lecture's, 4,315,585 parameters.

    Args:
        widths: numbers of maps; four of them fit S = 64.
        channels: of the images.
        kernel: 5 as in the paper's figure, or 4.
        spectral: whether each layer is divided by its spectral norm instead of
            batch normalization.

    Source: lecture topics 5.100 and 5.119; Radford, Metz and Chintala (2016);
    Miyato, Kataoka, Koyama and Yoshida, "Spectral normalization for generative
    adversarial networks" (2018).
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512),
        channels: int = 3,
        kernel: int = 5,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        for fan_in, fan_out in pairwise((channels, *widths)):
            self.append(
                nn.Conv2d(fan_in, fan_out, kernel, 2, (kernel - 1) // 2, bias=spectral)
            )
            if len(self) > 1 and not spectral:
                self.append(nn.BatchNorm2d(fan_out))
            self.append(nn.LeakyReLU(0.2))
        self.extend([nn.Flatten(), nn.Linear(widths[-1] * 4 * 4, 1)])
        _small_weights(self)
        if spectral:
            for layer in self:
                if isinstance(layer, (nn.Conv2d, nn.Linear)):
                    spectral_norm(layer)


def _doubling(fan_in: int, fan_out: int, kernel: int) -> nn.ConvTranspose2d:
    """A transposed convolution from (N, fan_in, S, S) to (N, fan_out, 2 S, 2 S)."""
    return nn.ConvTranspose2d(
        fan_in,
        fan_out,
        kernel,
        stride=2,
        padding=(kernel - 1) // 2,
        output_padding=kernel % 2,
        bias=False,
    )


def _small_weights(model: nn.Module) -> None:
    """Draw the weights of all layers but the normalizing ones with deviation 0.02."""
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(layer.weight, 0.0, 0.02)
